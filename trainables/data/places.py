"""Where cached things live, and whether there is room for them (torch-free)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from petl.errors import UserError

CACHE_VARIABLE = "PETL_CACHE"
_RESERVE = 64 << 20  # bytes that stay free for everybody else


class CacheError(UserError):
    """The cache cannot be kept where it should be."""


def default_cache_root() -> Path:
    """`$PETL_CACHE`, or the user's cache folder of the platform."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("petl-search"))


def make_folder(folder: Path) -> Path:
    """Create `folder` for the cache; `CacheError` where that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(
            f"the cache folder {folder} cannot be made ({error.strerror}); "
            f"set {CACHE_VARIABLE} to a folder that can be written"
        ) from None
    if not os.access(folder, os.W_OK):
        raise CacheError(f"the cache folder {folder} cannot be written; set {CACHE_VARIABLE} to a folder that can")
    return folder


def check_room(folder: Path, needed: int) -> None:
    """`CacheError` when fewer than `needed` bytes (and a small reserve) are free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if free < needed + _RESERVE:
        raise CacheError(
            f"the feature cache needs {_size(needed)} in {folder}, but only {_size(free)} are free; "
            f"make room, or set {CACHE_VARIABLE} to a folder on another disk"
        )


def no_room(folder: Path, error: OSError) -> CacheError:
    """What to say when writing failed although there seemed to be room."""
    return CacheError(
        f"writing the feature cache in {folder} failed: {error.strerror or error}. What was finished stays there, and "
        f"the next run goes on from it; make room, or set {CACHE_VARIABLE} to a folder on another disk"
    )


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
