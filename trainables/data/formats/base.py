"""What every data set format says about itself, and the errors they share (torch-free)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from petl.errors import UserError
from trainables.data.clips import Clip

Reader = Callable[[Path], list[Clip]]


@dataclass(frozen=True)
class Format:
    """One way a labelled data set can lie on disk. `read` lists its clips without decoding anything."""

    name: str
    summary: str
    layout: str  # several lines, as shown to people
    protocols: tuple[str, ...]
    read: Reader
    looks_like: Callable[[Path], bool]  # cheap guess, used for suggestions only
    citation: str = ""
    licence: str = ""


class LayoutError(UserError):
    """The data at `path` are not laid out as the format says."""


def existing(path: Path, format_name: str) -> Path:
    """`path` if there is something, else an error that says which part of it exists."""
    if path.exists():
        return path
    parent = next((p for p in path.parents if p.exists()), Path("/"))
    raise LayoutError(
        f"data path {path} does not exist ('{parent}' does). "
        f"Give the place of a data set in '{format_name}' layout with --data"
    )
