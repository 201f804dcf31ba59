"""What the tests of the data sets ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petl.errors import UserError
from trainables.config import DataOptions
from trainables.data.clips import SPLITS, Clip
from trainables.data.datasets import Listing, chosen, dataset, list_clips, read_clips
from trainables.data.splits import split_clips


def _asked(name: str, root: Path, options: dict[str, Any]) -> DataOptions:
    return DataOptions.model_validate({"dataset": name, "path": str(root), **options})


def clips_of(name: str, root: Path, **options: Any) -> list[Clip]:
    return read_clips(_asked(name, root, options), root)


def listing_of(name: str, root: Path, **options: Any) -> Listing:
    return list_clips(_asked(name, root, options), root)


def splits_of(name: str, root: Path, **options: Any) -> dict[str, list[Clip]]:
    """{split: clips} by the rules of the protocol."""
    asked = _asked(name, root, options)
    clips, choice, known = read_clips(asked, root), chosen(asked), dataset(name)
    task = known.targets[choice.target].task
    splits = split_clips(clips, asked, task=task, split=known.protocols[choice.protocol].split)
    assert not splits.reads_test
    return {split: [clips[i] for i in splits.of(split)] for split in SPLITS}


def sizes(parts: dict[str, list[Clip]]) -> tuple[int, int, int]:
    return len(parts["train"]), len(parts["val"]), len(parts["test"])


def complaint(name: str, root: Path, **options: Any) -> str:
    """The message of the error that reading ends with."""
    with pytest.raises(UserError) as caught:
        clips_of(name, root, **options)
    return str(caught.value)


def edit(path: Path, old: str, new: str, encoding: str = "utf-8") -> None:
    """Replace text that has to be there."""
    held = path.read_bytes().decode(encoding)
    assert old in held
    path.write_bytes(held.replace(old, new, 1).encode(encoding))


def published(name: str, target: str = "", subset: str = "") -> Any:
    """The figures that the data set declares for a whole copy."""
    return next(e for e in dataset(name).expected if (e.target, e.subset) == (target, subset))
