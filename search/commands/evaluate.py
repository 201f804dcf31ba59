"""`petl-search evaluate`: how good an adapter is on labelled recordings."""

from __future__ import annotations

import json as jsonlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from petl.errors import UserError, nearest
from petl.hub import read_json
from search.commands.devices import chosen_device
from search.commands.train import refuse_recipe
from search.space import parse_assignments
from trainables.config import DATASETS, EMBEDDED, TrialConfig
from trainables.data.datasets import dataset as find

if TYPE_CHECKING:
    from trainables.data import AudioData

_SPLITS = ("train", "val", "test", "all")


def evaluate_adapter(
    adapter: Path,
    data_path: str | None,
    dataset: str | None,
    split: str,
    as_json: bool,
    assignments: list[str],
    backbone: str | None,
    out: Console,
    err: Console | None = None,
    *,
    device: str | None = None,
) -> None:
    """Measure the adapter on a split of the data it was trained on, or of other data with the same labels."""
    if split not in _SPLITS:
        raise UserError(f"--split {split}{nearest(split, _SPLITS)}; allowed: {', '.join(_SPLITS)}")

    import petl
    from trainables.data import open_data
    from trainables.evaluation import answers_on

    model = petl.load_adapter(adapter, backbone=backbone, device=chosen_device(device))
    trained, digest = _trained_on(adapter)
    changed = parse_assignments(assignments)
    config = _config(trained, data_path, dataset, changed)
    _check_changes(changed, trained, config, split)
    # The features come out of the cache raw; the adapter's own front end makes inputs of them.
    own = {"normalize": "backbone", "frames": model.front_end.frames, "padding": "checkpoint"}
    options = config.data.model_copy(update=own)
    data: AudioData = open_data(options, model.front_end, whole=split == "all").answered_with(model.output)
    part = "test" if split == "all" else split
    if data.size(part) == 0:
        raise UserError(f"the split '{split}' of {data.name} is empty")
    if err is not None and digest not in (None, data.digest) and (_same_place(trained, config) or _drawn(data, part)):
        hint = "" if split == "all" else ". If none of the recordings was, evaluate them all with --split all"
        err.print(
            "caution: these are not the data that the adapter was trained on as they were then (clips or labels were "
            "added, removed or changed), so that the split may be another: some of these clips may have been trained "
            f"on{hint}",
            markup=False,
            soft_wrap=True,
        )
    answers = answers_on(config, model, data, part)
    measured, tables, intervals = answers.metrics(), answers.tables(), answers.intervals()
    if as_json:
        result = {
            "split": split,
            "clips": data.size(part),
            **measured,
            "intervals": {name: list(ends) for name, ends in intervals.items()},
            "labels": list(model.labels),
        }
        if "confusion" in tables:
            result["confusion"] = tables["confusion"]["matrix"]
        print(jsonlib.dumps(_finite(result), ensure_ascii=False, allow_nan=False))
        return
    title = f"{escape(str(adapter))} on {escape(data.name)}, {split}: {data.size(part)} clips"
    rows = tables.get("per_class", [])
    if rows:
        table = Table(title=title)
        for column in rows[0]:
            table.add_column(column, justify="left" if column == "label" else "right")
        for row in rows:
            table.add_row(*(escape(_cell(value)) for value in row.values()))
        out.print(table)
    else:
        out.print(title, markup=False, soft_wrap=True)
    for name, value in measured.items():
        ends = (
            f"  (95 % of resamples: {intervals[name][0]:.4f} to {intervals[name][1]:.4f})" if name in intervals else ""
        )
        out.print(f"{name} {value:.4f}{ends}", markup=False, soft_wrap=True)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if value != value else f"{value:.3f}"
    return "-" if value is None else str(value)


def _finite(value: Any) -> Any:
    """The same with None for numbers that JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _trained_on(adapter: Path) -> tuple[dict[str, Any], str | None]:
    """The configuration the adapter was trained with, and the digest of its data where that is known."""
    try:
        metadata = read_json(adapter / "petl_config.json")["metadata"]
        flat, provenance = dict(metadata["trial"]), metadata.get("provenance")
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{adapter}: its petl_config.json does not say on what it was trained") from None
    digest = provenance.get("data digest") if isinstance(provenance, dict) else None
    return flat, digest if isinstance(digest, str) else None


def _same_place(trained: dict[str, Any], config: TrialConfig) -> bool:
    """Whether these are the data of the training by their name and place."""
    path = trained.get("data")
    there = None if config.data.path is None else Path(config.data.path).expanduser().resolve()
    known = Path(path).expanduser().resolve() if isinstance(path, str) else None
    return trained.get("dataset", EMBEDDED) == config.data.dataset and known == there


def _drawn(data: AudioData, split: str) -> bool:
    """Whether which clips are in the split depends on the other clips."""
    if data.size(split) == len(data.plan.clips):
        return False
    return any(clip.split != split and clip.fold is None for clip in data.clips(split))


def _config(
    trained: dict[str, Any], data_path: str | None, dataset: str | None, changed: dict[str, Any]
) -> TrialConfig:
    """The configuration the adapter was trained with, on the data asked for."""
    flat = dict(trained)
    refuse_recipe(changed, "an adapter")
    flat.pop("recipe", None)  # all that it set is there
    asked = {key: value for key, value in (("dataset", dataset), ("data", data_path)) if value is not None} | changed
    if asked.get("dataset", flat.get("dataset")) != flat.get("dataset"):
        _leave_data(flat, asked["dataset"])
    return TrialConfig.from_flat({**flat, **asked})


_SPLITTING = (
    *("data.protocol", "data.fold", "data.shots", "data.draw", "data.subset"),
    *("data.val_fraction", "data.test_fraction", "data.split_seed"),
)
_COMPUTING = ("train.eval_batch_size", "train.batching", "train.batch_seconds", "train.precision", "train.loaders")


def _check_changes(changed: dict[str, Any], trained: dict[str, Any], config: TrialConfig, split: str) -> None:
    """Refuse settings that change nothing here, and other splits of the data that the adapter has learned from."""
    fixed = ("data.normalize", "data.frames", "data.padding")  # the adapter's own
    for key in changed:
        belongs = key in ("dataset", "data") or key.startswith("data.") or key in _COMPUTING
        if key in fixed or not belongs:
            raise UserError(
                f"--set {key}=… changes nothing about a trained adapter; what can be set is data.* "
                f"(not {', '.join(fixed)}), {', '.join(_COMPUTING)}"
            )
    other = [key for key in _SPLITTING if key in changed and changed[key] != trained.get(key)]
    if other and split != "all" and _same_place(trained, config):
        raise UserError(
            f"--set {other[0]}={changed[other[0]]}: the adapter was trained with {trained.get(other[0])} there, so "
            "that it has learned from clips that would be judged now; evaluate an adapter trained on that split "
            "(of several folds each has its own, best-fold2 and so on), or every clip with --split all"
        )


def _leave_data(flat: dict[str, Any], other: str) -> None:
    """Take out what only the data set of the training has; a target stays where the other data set has it, too."""
    for key in ("data", "data.subset", "data.protocol", "data.fold", "data.shots", "data.draw", "data.lexicon"):
        flat.pop(key, None)
    if other not in DATASETS or flat.get("data.target") not in find(other).targets:
        flat.pop("data.target", None)
