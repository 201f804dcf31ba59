"""The small synthetic task that comes with the project, made on first use (torch-free to import)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.datasets import manifest
from trainables.data.datasets.base import Choice, Dataset, Protocol, Target


def read(root: Path, choice: Choice) -> list[Clip]:
    """Make the task below `root` unless it is there already, and list its clips."""
    from trainables.embedded.task import prepare

    return manifest.read(prepare(root), replace(choice, target="label"))


DATASET = Dataset(
    name="embedded",
    summary="small synthetic listening task, made on first use: no download, no account",
    layout="(none: leave out --data)",
    targets={"sound": Target("classification", "one of nine synthetic sounds")},
    protocols={"standard": Protocol("its own train, val and test splits")},
    read=read,
    looks_like=lambda _: False,
    citation="part of this project",
    licence="the project's own",
)
