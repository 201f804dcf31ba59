"""`petl-search train`: one resolved trial again, in this process, without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from petl.errors import UserError
from search.export import read_trial, save_model
from search.space import parse_assignments
from trainables.config import TrialConfig

if TYPE_CHECKING:
    from trainables.loop import Report


def train_again(trial: Path, output: Path | None, assignments: list[str], out: Console) -> None:
    """Train to the last epoch, keep the best one, evaluate it once on the test split, write an adapter directory."""
    name, config, monitor = read_trial(trial)
    changed = parse_assignments(assignments)
    if changed:
        config = TrialConfig.from_flat({**config.to_flat(), **changed})
    target = output or trial.parent / f"{trial.stem}-again"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not empty; name another with --output")

    import torch

    from trainables import metrics
    from trainables.loop import predict_split, train
    from trainables.precision import choose
    from trainables.session import Session

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    session = Session(None, device, None, monitor)
    model, data = session.build(config)
    out.print(
        f"{name} on {data.name}: {choose(config.train.precision, device, model.adapted.shape.hidden)[1]}", markup=False
    )
    best = None
    for report in _reports(train(config, model, data, monitor=monitor)):
        mark = "  best" if report.is_best else ""
        shown = "  ".join(f"{k} {v:.4f}" for k, v in report.metrics.items() if k in _SHOWN)
        out.print(f"epoch {report.epoch:>3}/{config.epochs}  {shown}  {report.seconds:.1f} s{mark}", markup=False)
        if report.is_best:
            best = report
    if best is None:
        raise UserError(f"no epoch gave a finite {monitor[0]}")
    model.load_adapter_state(best.checkpoint.part("model"))
    tested = metrics.classification(*predict_split(config, model, data, "test"))
    test = {f"test/{k}": v for k, v in tested.items()}
    save_model(
        model,
        target,
        config,
        validation=best.metrics,
        test=test,
        provenance={"trial": name, "epoch": best.epoch, "data digest": data.digest},
    )
    out.print(
        f"best epoch {best.epoch}: val/accuracy {best.metrics['val/accuracy']:.4f}, "
        f"test/accuracy {test['test/accuracy']:.4f}\nadapter  {target}",
        markup=False,
        soft_wrap=True,
    )


def _reports(training: Iterator[Report]) -> Iterator[Report]:
    from trainables.loop import Diverged

    try:
        yield from training
    except Diverged as diverged:
        raise UserError(f"the trial diverged: {diverged}; lower optim.lr (--set optim.lr=…)") from None


_SHOWN = ("train/loss", "val/loss", "val/accuracy")
