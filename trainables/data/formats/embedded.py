"""The small synthetic task that comes with the project, made on first use (torch-free to import)."""

from __future__ import annotations

from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.formats import manifest
from trainables.data.formats.base import Format


def read(root: Path) -> list[Clip]:
    """Make the task below `root` unless it is there already, and list its clips."""
    from trainables.embedded.task import prepare

    return manifest.read(prepare(root))


FORMAT = Format(
    name="embedded",
    summary="small synthetic listening task, made on first use: no download, no account",
    layout="(none: leave out --data)",
    protocols=("its own train, val and test splits",),
    read=read,
    looks_like=lambda _: False,
    citation="part of this project",
    licence="the project's own",
)
