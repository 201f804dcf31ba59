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

    import torch

    import petl
    from trainables import metrics
    from trainables.data import open_data
    from trainables.loop import predict_split

    model = petl.load_adapter(adapter, backbone=backbone)
    config = _config(adapter, data_path, dataset, parse_assignments(assignments))
    # The features come out of the cache raw; the adapter's own front end makes inputs of them.
    own = {"normalize": "backbone", "frames": model.front_end.frames, "padding": "checkpoint"}
    options = config.data.model_copy(update=own)
    data = open_data(options, model.front_end, whole=split == "all")
    part = "test" if split == "all" else split
    unknown = sorted(set(data.labels) - set(model.labels))
    if unknown:
        raise UserError(
            f"{data_path or 'the data'} has labels the adapter does not know: {', '.join(unknown[:10])}; "
            f"it knows {', '.join(model.labels)}"
        )
    number = torch.tensor([model.labels.index(label) for label in data.labels])
    if data.size(part) == 0:
        raise UserError(f"the split '{split}' of {data.name} is empty")
    logits_BC, y_B = predict_split(config, model, data, part)
    y_B = number[y_B]
    measured = metrics.classification(logits_BC, y_B)
    matrix = metrics.confusion(logits_BC, y_B)
    if as_json:
        result = {"split": split, "clips": len(y_B), **measured, "labels": list(model.labels), "confusion": matrix}
        print(jsonlib.dumps(result, ensure_ascii=False))
        return
    table = Table(title=f"{escape(str(adapter))} on {escape(data.name)}, {split}: {len(y_B)} clips")
    table.add_column("label")
    table.add_column("clips", justify="right")
    table.add_column("right", justify="right")
    for i, label in enumerate(model.labels):
        count = sum(matrix[i])
        table.add_row(escape(label), str(count), f"{matrix[i][i] / count:.3f}" if count else "-")
    out.print(table)
    out.print("  ".join(f"{name} {value:.4f}" for name, value in measured.items()))


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
