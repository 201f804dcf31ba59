"""`petl-search train`: one resolved trial again, in this process, without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from petl.errors import UserError
from search.export import of_repeat, read_trial, save_model
from search.space import parse_assignments
from trainables.config import TrialConfig

if TYPE_CHECKING:
    from trainables.loop import Report


class _Failed(Exception):
    """The request was right, but the training came to nothing."""


def train_again(trial: Path, output: Path | None, assignments: list[str], out: Console, err: Console) -> int:
    """Train to the last epoch, keep the best one, evaluate it once on the test split, write an adapter directory.

    Returns the exit status: 1 when the training came to nothing.
    """
    try:
        _train(trial, output, assignments, out)
    except _Failed as failed:
        err.print(str(failed), markup=False, soft_wrap=True)
        return 1
    return 0


def _train(trial: Path, output: Path | None, assignments: list[str], out: Console) -> None:
    name, config, monitor = read_trial(trial)
    changed = parse_assignments(assignments)
    refuse_recipe(changed, "a trial file")
    if changed:  # all that a recipe set is there
        config = TrialConfig.from_flat({**config.to_flat(), "recipe": None, **changed})
    target = output or trial.parent / f"{trial.stem}-again"
    _check_free(target)

    import torch

    from trainables.checkpoints import under
    from trainables.evaluation import answers_on
    from trainables.loop import mean_of, train
    from trainables.precision import choose
    from trainables.session import Session

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    session = Session(None, device, None, monitor)
    repeats = session.data(config)
    places = [target, *(target.with_name(f"{target.name}-{data.title}") for data in repeats[1:])]
    for place in places:
        _check_free(place)
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
        raise _Failed(f"no epoch gave a finite {monitor[0]}")
    tested = []
    for data, place in zip(repeats, places, strict=True):
        prefix = f"{data.title}/model" if data.title else "model"
        model.front_end = data.front_end
        model.load_adapter_state(under(best.judged, prefix))
        tested.append(answers_on(config, model, data, "test").metrics())
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


def _check_free(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not empty; name another with --output")


def refuse_recipe(changed: Mapping[str, Any], what: str) -> None:
    """`UserError` for a recipe among changes to a configuration in which nothing is left open for it."""
    if changed.get("recipe") is not None:
        raise UserError(
            f"--set recipe={changed['recipe']}: {what} holds every setting already, and a recipe sets only what is "
            "left open; start from a space instead: python launch.py --space … --set recipe=NAME"
        )


def _reports(training: Iterator[Report]) -> Iterator[Report]:
    from trainables.loop import Diverged

    try:
        yield from training
    except Diverged as diverged:
        raise _Failed(f"the trial diverged: {diverged}; lower optim.lr (--set optim.lr=…)") from None


_SHOWN = ("train/loss", "val/loss")
