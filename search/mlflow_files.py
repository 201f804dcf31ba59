"""Which files of a run directory may go to MLflow: a directory may be a stranger's (torch-free).

A spool or a link in it may name any file of whoever delivers it. Only what the directory itself holds is delivered.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from search.tracking_events import Event

_FILES = ("report.html", "trials.parquet", "leaderboard.csv", "space.yaml", "best.yaml")
_FOLDERS = ("figures", "tables", "best")
_SHOWN = 5


def is_own(path: Path, directory: Path) -> bool:
    """Whether a path is a regular file below a directory, links followed."""
    try:
        return path.is_file() and path.resolve(strict=True).is_relative_to(directory.resolve(strict=True))
    except (OSError, RuntimeError, ValueError):  # not there, a circle of links, a name that none can be
        return False


def only_own(events: Iterable[Event], directory: Path) -> tuple[list[Event], list[str]]:
    """Spooled events without files that are not the directory's own, and the names of those that were left out.

    A folder in a spool becomes its files.
    """
    kept: list[Event] = []
    foreign: list[str] = []
    for event in events:
        if event["event"] != "artifact":
            kept.append(event)
            continue
        path, folder = event.get("path"), event.get("folder")
        if not (isinstance(path, str) and isinstance(folder, str)):
            foreign.append("a file without a name")
            continue
        if not _below(Path(path), directory):
            foreign.append(path)
            continue
        for file, inside in _files(Path(path), folder):
            if is_own(file, directory):
                kept.append({"event": "artifact", "path": str(file), "folder": inside})
            else:
                foreign.append(str(file))
    return kept, foreign


def left_out(foreign: list[str], directory: Path) -> str:
    """A line for the person; names of strangers do not steer the terminal."""
    names = ", ".join(ascii(name)[1:-1][:200] for name in foreign[:_SHOWN])
    more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
    return f"not delivered to MLflow, since they are not regular files of {directory}: {names}{more}"


def results_of(directory: Path) -> Iterator[tuple[Path, str]]:
    """Where a search leaves its results, and the folders that they go to."""
    yield from ((directory / name, "") for name in _FILES)
    for folder in _FOLDERS:
        if (directory / folder).is_symlink():
            yield directory / folder, ""
        else:
            yield from ((path, folder) for path in sorted((directory / folder).glob("*")) if not path.is_dir())


def _below(path: Path, directory: Path) -> bool:
    """Whether a path, links followed, is inside a directory, whatever it is."""
    try:
        real, root = path.resolve(strict=True), directory.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        return False
    return path.is_absolute() and real != root and real.is_relative_to(root)


def _files(path: Path, folder: str) -> Iterator[tuple[Path, str]]:
    """A file and the folder it goes to, or all files below a folder and theirs; links to folders are not followed."""
    if not path.is_dir():
        yield path, folder
        return
    for here, _, names in os.walk(path):
        inside = "/".join(part for part in (folder, path.name, *Path(here).relative_to(path).parts) if part)
        for name in sorted(names):
            yield Path(here, name), inside
