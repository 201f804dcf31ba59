"""The data set formats by name (torch-free). A new format is a module with a `FORMAT` and a line here."""

from __future__ import annotations

from pathlib import Path

from petl.errors import UserError, nearest
from trainables.data.clips import Clip
from trainables.data.formats import embedded, esc50, folder, manifest
from trainables.data.formats.base import Format, LayoutError, existing

FORMATS: dict[str, Format] = {f.name: f for f in (embedded.FORMAT, esc50.FORMAT, folder.FORMAT, manifest.FORMAT)}
"""Name in `dataset:` -> how such data lie on disk."""

__all__ = ["FORMATS", "Format", "LayoutError", "datasets", "read_clips"]


def datasets() -> list[Format]:
    """Every format, in the order in which people should consider them."""
    return list(FORMATS.values())


def read_clips(name: str, path: Path) -> list[Clip]:
    """List the clips at `path` in a canonical order that no directory listing can change.

    Raises `LayoutError` naming what was looked for and, where another format or a folder below fits, that.
    """
    if name not in FORMATS:
        raise UserError(f"dataset '{name}' is not known{nearest(name, FORMATS)}; allowed: {', '.join(FORMATS)}")
    if name != embedded.FORMAT.name:
        existing(path, name)
    try:
        clips = FORMATS[name].read(path)
        if len({clip.label for clip in clips}) == 1 and _other(name, path):
            raise LayoutError(f"{path}: as '{name}' it has the one class '{clips[0].label}'")
    except LayoutError as error:
        hint = _hint(name, path)
        raise LayoutError(f"{error}{hint}\n'{name}' means:\n{_indented(FORMATS[name].layout)}") from None
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror})") from None
    return sorted(clips, key=lambda clip: clip.order)


def _hint(name: str, path: Path) -> str:
    """The format or the place that was probably meant."""
    other = _other(name, path)
    if other:
        return f". It looks like '{other}': use --dataset {other}"
    if path.is_dir():
        for below in sorted(path.iterdir()):
            if below.is_dir() and not below.name.startswith(".") and FORMATS[name].looks_like(below):
                return f". The folder {below} fits: use --data {below}"
    others = ", ".join(f for f in FORMATS if f not in (name, embedded.FORMAT.name))
    return f". Other layouts that are known: {others}"


def _other(name: str, path: Path) -> str | None:
    """Another format that `path` looks like; the pickiest first, for nearly anything looks like a folder."""
    for other in (esc50.FORMAT, manifest.FORMAT, folder.FORMAT):
        if other.name != name and other.looks_like(path):
            return other.name
    return None


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
