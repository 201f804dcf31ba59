"""The winner as files a person keeps: the adapter directory and the trial that makes it again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from petl.errors import UserError
from search.records import SearchRecord, TrialRecord
from search.result_tables import intervals_of
from search.space import Space
from search.texts import task_text
from trainables.config import TrialConfig
from trainables.metric_names import METRICS

if TYPE_CHECKING:
    from trainables.data import AudioData

TRIAL_SCHEMA = "petl.trial/1"


def export_winner(
    space: Space,
    record: SearchRecord,
    winner: TrialRecord,
    config: TrialConfig,
    checkpoints: str,
    directory: Path,
) -> Path:
    """Write `best/` and `best.yaml` into the run directory; returns `best/`.

    Of several repeats `best/` is the first one's adapter; those of the others are beside it (`best-fold2/`, …).
    """
    import torch

    from trainables.checkpoints import CheckpointStore
    from trainables.session import Session

    first = space.objectives[0]
    write_trial(directory / "best.yaml", winner.name, config, (first.metric, first.mode))
    session = Session(CheckpointStore(checkpoints), torch.device("cpu"), None, (first.metric, first.mode))
    best = winner.best(first)
    repeats = session.data(config)
    if (directory / "best" / "petl_config.json").is_file():
        shutil.rmtree(directory / "best")  # an earlier winner's: with it this export would look finished
    for number in (*range(1, len(repeats)), 0):  # `best/` last: where it is, the others are, too
        data = repeats[number]
        model = session.best_model(winner.id, config, number)
        try:
            save_model(
                model,
                directory / (f"best-{data.title}" if number else "best"),
                config,
                data=data,
                validation=of_repeat(best.metrics, data.title) if best else {},
                test=of_repeat(record.test, data.title),
                intervals={} if data.title else intervals_of(record),
                provenance={
                    "search": record.name,
                    "trial": winner.name,
                    "epoch": best.epoch if best else None,
                    "repeat": data.title,
                    "data digest": record.info["data_digest"],
                    "space digest": record.info["space_digest"],
                    "git commit": record.info.get("git_commit", ""),
                    **{f"version of {k}": v for k, v in record.info.get("versions", {}).items()},
                },
            )
        finally:
            model.adapted.detach()
    return directory / "best"


def of_repeat(metrics: dict[str, float], title: str) -> dict[str, float]:
    """Of the metrics of several repeats those of one, under their plain names."""
    if not title:
        return metrics
    return {name.removesuffix(f"/{title}"): value for name, value in metrics.items() if name.endswith(f"/{title}")}


def save_model(
    model: Any,
    directory: Path,
    config: TrialConfig,
    *,
    validation: dict[str, float],
    test: dict[str, float],
    provenance: dict[str, Any],
    data: AudioData | None = None,
    intervals: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Write an adapter directory with a card that says what it is, how good, and where it comes from."""
    import petl

    if data is not None and data.title:  # so that it is evaluated on the clips that it did not learn from
        config = config.model_copy(update={"data": data.options})
    known = {k: v for k, v in provenance.items() if v not in (None, "")}
    petl.save_adapter(
        directory,
        model,
        card={
            **(_about(data) if data is not None else {}),
            "intervals": intervals or {},
            "configuration": config.to_flat(),
            "metrics": {**{k: v for k, v in validation.items() if k.startswith("val/")}, **test},
            "provenance": known,
        },
        metadata={"trial": config.to_flat(), "provenance": known},
        backbone=config.backbone,
        revision=config.revision,
    )


def _about(data: AudioData) -> dict[str, Any]:
    """What was learned, on what, and how that was split."""
    plan = data.plan
    return {
        "task": task_text(plan.target.task),
        "data": f"{data.name}, target {plan.target_name}",
        "protocol": plan.splits.protocol,
        "reads_test": plan.splits.reads_test,
    }


def write_trial(path: Path, name: str, config: TrialConfig, monitor: tuple[str, str]) -> None:
    """A resolved trial as YAML, with the metric that chooses its best epoch: `petl-search train` repeats it."""
    metric, mode = monitor
    content = {
        "schema": TRIAL_SCHEMA,
        "name": name,
        "best_epoch_by": {"metric": metric, "mode": mode},
        "config": config.to_flat(),
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_trial(path: Path) -> tuple[str, TrialConfig, tuple[str, str]]:
    """Name and configuration of a trial file, and the metric and mode that choose its best epoch.

    Raises:
        UserError: when it is not there, not YAML, not a trial, or holds a wrong key.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; a search writes it as best.yaml in its run directory")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or content.get("schema") != TRIAL_SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        hint = "; this is a space: use `petl-search search --space`" if str(found).startswith("petl.space") else ""
        raise UserError(f"{path} is not a trial file: schema is {found!r}, expected {TRIAL_SCHEMA!r}{hint}")
    config = content.get("config")
    if not isinstance(config, dict):
        raise UserError(f"{path} has no mapping under 'config'")
    chosen = content.get("best_epoch_by", {"metric": "val/accuracy", "mode": "max"})
    if not isinstance(chosen, dict) or chosen.get("metric") not in METRICS or chosen.get("mode") not in ("max", "min"):
        raise UserError(f"{path}: best_epoch_by needs a metric ({', '.join(METRICS)}) and a mode (max or min)")
    try:
        return str(content.get("name", path.stem)), TrialConfig.from_flat(config), (chosen["metric"], chosen["mode"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
