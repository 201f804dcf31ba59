"""Splits by a published protocol, whatever it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainables.config import DataOptions
from trainables.data.clips import Clip
from trainables.data.datasets import chosen, dataset, read_clips
from trainables.data.splits import Splits, split_clips


def split_as(name: str, root: Path, **options: Any) -> tuple[list[Clip], Splits]:
    """The clips, and the splits that the protocol makes of them."""
    asked = DataOptions.model_validate({"dataset": name, "path": str(root), **options})
    clips, choice, known = read_clips(asked, root), chosen(asked), dataset(name)
    rule = known.protocols[choice.protocol]
    splits = split_clips(clips, asked, task=known.targets[choice.target].task, split=rule.split)
    assert splits.reads_test == rule.reads_test
    return clips, splits
