"""`--dry-run`: everything that can be known without starting anything."""

from __future__ import annotations

from rich.console import Console

from petl.errors import UserError
from search.plan import make_plan, render
from search.prepare import check_precisions
from search.request import Request
from search.resources import local_resources, plan_groups
from search.space import load_space


def show_plan(request: Request, out: Console) -> None:
    """Validate the request and print what a search would do."""
    if request.space is None:
        raise UserError("--dry-run needs --space FILE")
    space = load_space(request.space, request.overrides)
    groups = plan_groups(
        local_resources(),
        workers_per_trial=request.workers_per_trial or 1,
        gpus_per_worker=request.gpus_per_worker,
        cpus_per_worker=request.cpus_per_worker,
        concurrent=request.concurrent,
        trials=space.budget.trials,
    )
    check_precisions(space, gpu=groups.gpus > 0)
    out.print(render(make_plan(space, groups)))
