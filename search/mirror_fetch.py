"""A run directory again, from its mirror on shared storage (torch-free)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from petl.errors import UserError
from search.mirror_state import (
    SPACE,
    STATE,
    WATCH_S,
    RunState,
    ahead,
    ensure_dead,
    mirrored_journal,
    read_state,
    segments,
    unreachable,
)
from trainables.storage import Storage, StorageError
from trainables.storage_address import checked

_RESULTS = ("report.html", "trials.parquet", "leaderboard.csv", "best.yaml", "tables", "best")
_UNFINISHED = ".fetching"  # is there while a directory is being brought up to date
_BEGUN = {".lock", "space.yaml"}  # what a search leaves that ended before its first line


def fetch(uri: str, into: Path, *, watch: float = WATCH_S, notify: Callable[[str], None] = lambda _: None) -> Path:
    """Rebuild the run directory `into` from the run at `uri` (`s3://bucket/petl/<run>`).

    A directory of the same run may be there already: it is brought up to date, and kept where it knows more. What was
    cut off can be done again.

    Args:
        watch: for how many seconds an unfinished run is watched for signs of a living driver.
        notify: is told why this takes a while.

    Raises:
        UserError: there is no run, its driver is alive, its journal has a gap, another version made it, `into` is
            something else, or the storage does not answer.
    """
    try:
        storage = _open(uri)
        state = read_state(storage)
        if state is None:
            raise UserError(
                f"{storage.root} is not a run: there is no {STATE} below it. Give the address that the search printed "
                "when it started (<--storage>/<name of the run>)."
            )
        state = ensure_dead(storage, state, watch, notify)
        journal, space = mirrored_journal(storage, state.sessions), storage.read(SPACE)
        if not journal or space is None:
            raise UserError(f"{storage.root}: nothing of the search was recorded there yet; start it anew")
        results = [_harmless(storage, name) for name in state.results] if state.ended else []  # else: made again
        unfinished = (into / _UNFINISHED).is_file()
        if not (unfinished or _is_run(into)):
            raise UserError(f"{into} exists and is no run directory; choose another --output")
        known = ahead(into, journal)
        behind = known < 0 or (known == 0 and unfinished)
        if behind:
            _put(into, _UNFINISHED, b"")
        for name in results:
            if behind or not (into / name).is_file():
                data = storage.read(f"run/{name}")
                if data is not None:
                    _put(into, name, data)
        if behind:
            _put(into, "space.yaml", space)
            _put(into, "journal.jsonl", journal)
        (into / _UNFINISHED).unlink(missing_ok=True)
        return into
    except StorageError as error:
        raise unreachable(error) from None
    except OSError as error:
        raise UserError(f"{into} cannot be written: {error.strerror or error}; choose another --output") from None


def who(uri: str) -> RunState | None:
    """Who searches, or searched, the run at a run root; None where there is none.

    Raises:
        UserError: the storage does not answer, or the state cannot be read.
    """
    try:
        return read_state(_open(uri))
    except StorageError as error:
        raise unreachable(error) from None


def recorded(uri: str) -> bool:
    """Whether the run at a run root can be continued from there: a driver may have died before its first line.

    Raises:
        UserError: the storage does not answer, or the state cannot be read.
    """
    try:
        storage = _open(uri)
        state = read_state(storage)
        return state is not None and bool(segments(storage, state.sessions))
    except StorageError as error:
        raise unreachable(error) from None


def ensure_free(uri: str, notify: Callable[[str], None] = lambda _: None, *, watch: float = WATCH_S) -> None:
    """Nobody searches the run at a run root, or there is none.

    One read where its driver ended in order, or ran on this machine; else its beat is watched, once per process:
    `fetch` and `RunMirror.start` then do not watch again.

    Args:
        notify: is told why this takes a while.
        watch: for how many seconds an unfinished run's beat is watched.

    Raises:
        UserError: its driver is alive, the storage does not answer, or the state cannot be read.
    """
    try:
        storage = _open(uri)
        state = read_state(storage)
        if state is not None:
            ensure_dead(storage, state, watch, notify)
    except StorageError as error:
        raise unreachable(error) from None


def _open(uri: str) -> Storage:
    return Storage(uri, patience=20.0, full_patience=0.0)


def _is_run(into: Path) -> bool:
    """Whether a run may be put there: nothing, or a run, is there."""
    if not into.exists():
        return True
    if not into.is_dir():
        return False
    names = {one.name for one in into.iterdir() if not one.name.startswith(".tmp-")}
    return "journal.jsonl" in names or names <= _BEGUN


def _harmless(storage: Storage, name: object) -> str:
    """A result's name, when it is one of those that a search writes."""
    if isinstance(name, str) and "\\" not in name:
        first, *rest = name.split("/")
        if (first in _RESULTS or first.startswith("best-")) and len(rest) < 4:
            try:
                return checked(name)
            except ValueError:
                pass
    raise UserError(f"{storage.root}: {STATE} names {name!r:.80} among the results, which no search writes")


def _put(into: Path, name: str, data: bytes) -> None:
    """Write a file whole."""
    try:
        Storage(str(into.absolute()), patience=0.0).write(name, data)
    except StorageError as error:
        raise UserError(f"{into} cannot be written: {error}; choose another --output") from None
