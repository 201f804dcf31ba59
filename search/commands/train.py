"""`petl-search train`: one resolved trial again, in this process, without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from petl.errors import UserError
from search.export import of_repeat, read_trial, save_model
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

    from trainables.checkpoints import under
    from trainables.evaluation import answers_on
    from trainables.loop import mean_of, train
    from trainables.precision import choose
    from trainables.session import Session

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    session = Session(None, device, None, monitor)
    repeats = session.data(config)
    model = session.build(config, repeats[0])
    out.print(
        f"{name} on {repeats[0].name}: {choose(config.train.precision, device, model.adapted.shape.hidden)[1]}",
        markup=False,
    )
    best = None
    for report in _reports(train(config, model, repeats, monitor=monitor)):
        mark = "  best" if report.is_best else ""
        shown = "  ".join(f"{k} {v:.4f}" for k, v in report.metrics.items() if k in (*_SHOWN, monitor[0]))
        out.print(f"epoch {report.epoch:>3}/{config.epochs}  {shown}  {report.seconds:.1f} s{mark}", markup=False)
        if report.is_best:
            best = report
    if best is None:
        raise UserError(f"no epoch gave a finite {monitor[0]}")
    tested = []
    for number, data in enumerate(repeats):
        prefix = f"{data.title}/model" if data.title else "model"
        model.front_end = data.front_end
        model.load_adapter_state(under(best.judged, prefix))
        tested.append(answers_on(config, model, data, "test").metrics())
        place = target.with_name(f"{target.name}-{data.title}") if number else target
        save_model(
            model,
            place,
            config,
            data=data,
            validation=of_repeat(best.metrics, data.title),
            test={f"test/{k}": v for k, v in tested[-1].items()},
            provenance={"trial": name, "epoch": best.epoch, "repeat": data.title, "data digest": data.digest},
        )
    plain = monitor[0].removeprefix("val/")
    test = mean_of(tested, [data.title for data in repeats])
    shown = f", test/{plain} {test[plain]:.4f}" if plain in test else ""
    out.print(
        f"best epoch {best.epoch}: {monitor[0]} {best.metrics[monitor[0]]:.4f}{shown}\nadapter  {target}",
        markup=False,
        soft_wrap=True,
    )


def _reports(training: Iterator[Report]) -> Iterator[Report]:
    from trainables.loop import Diverged

    try:
        yield from training
    except Diverged as diverged:
        raise UserError(f"the trial diverged: {diverged}; lower optim.lr (--set optim.lr=…)") from None


_SHOWN = ("train/loss", "val/loss")
