"""`petl-search evaluate`: how good an adapter is on labelled recordings."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from petl.errors import UserError, nearest
from search.space import parse_assignments
from trainables.config import TrialConfig

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
) -> None:
    """Measure the adapter on a split of the data it was trained on, or of other data with the same labels."""
    if split not in _SPLITS:
        raise UserError(f"--split {split}{nearest(split, _SPLITS)}; allowed: {', '.join(_SPLITS)}")

    import petl
    from trainables.data import AudioData, open_data
    from trainables.evaluation import answers_on

    model = petl.load_adapter(adapter, backbone=backbone)
    config = _config(adapter, data_path, dataset, parse_assignments(assignments))
    # The features come out of the cache raw; the adapter's own front end makes inputs of them.
    own = {"normalize": "backbone", "frames": model.front_end.frames, "padding": "checkpoint"}
    options = config.data.model_copy(update=own)
    data: AudioData = open_data(options, model.front_end, whole=split == "all").answered_with(model.output)
    part = "test" if split == "all" else split
    if data.size(part) == 0:
        raise UserError(f"the split '{split}' of {data.name} is empty")
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
        print(jsonlib.dumps(result, ensure_ascii=False))
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


def _config(adapter: Path, data_path: str | None, dataset: str | None, changed: dict[str, Any]) -> TrialConfig:
    """The configuration the adapter was trained with, on the data asked for."""
    try:
        recorded = jsonlib.loads((adapter / "petl_config.json").read_text(encoding="utf-8"))
        flat = dict(recorded["metadata"]["trial"])
    except (OSError, KeyError, TypeError, ValueError):
        raise UserError(f"{adapter}: its petl_config.json does not say on what it was trained") from None
    if dataset is not None and dataset != flat.get("dataset"):
        flat.pop("data", None)
    for key, value in (("dataset", dataset), ("data", data_path)):
        if value is not None:
            flat[key] = value
    return TrialConfig.from_flat({**flat, **changed})
