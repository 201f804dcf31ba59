"""Entries that wait for MLflow: in memory, and in a file of the run directory while MLflow is away (torch-free).

The file holds a head that says which search it is, then one event a line, in order. It may hold events that were
delivered meanwhile: delivering twice changes nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from petl.errors import UserError
from search.tracking_events import Event, one_line

SPOOL = "mlflow-spool.jsonl"
SPOOL_FORMAT = "petl.mlflow-spool/1"
_IN_MEMORY = 20_000  # events of about a kilobyte each


class Backlog:
    """A queue of events. From `keep` on they are in the file, too, and what is too much for the memory is only there.

    Safe for several threads.

    Args:
        path: the file.
        in_memory: about how many events are held in memory while there is a file.
    """

    def __init__(self, path: Path, in_memory: int = _IN_MEMORY) -> None:
        self.path = path
        self.events: list[Event] = []
        self.kept = False  # whether the file is in use
        self._left = False  # the file is as it is to be found after the search
        self._limit = in_memory
        self._rest: int | None = None  # where in the file the events begin that are not in memory
        self._lock = threading.RLock()

    def __bool__(self) -> bool:
        return bool(self.events) or self._rest is not None

    def add(self, events: list[Event]) -> None:
        """Put events at the end.

        Raises:
            OSError: the file could not be written; the events are in memory.
        """
        with self._lock:
            if not self.kept or not events:
                self.events += events
                return
            try:
                at = self._append(events)
            except OSError:
                self._read_rest()
                self.kept = False
                self.events += events
                raise
            if self._rest is None and len(self.events) + len(events) <= self._limit:
                self.events += events
            elif self._rest is None:
                self._rest = at

    def first(self, events: list[Event]) -> None:
        """Put events before all others; they are in memory only."""
        with self._lock:
            self.events = events + self.events

    def remove(self, events: Iterable[Event]) -> None:
        """Take events out that were delivered or put aside; the file goes with the last one."""
        done = {id(event) for event in events}
        with self._lock:
            self.events = [event for event in self.events if id(event) not in done]
            if not self.events and self._rest is not None:
                self._refill()
            if not self and self.kept and not self._left:
                self.path.unlink(missing_ok=True)
                self.kept = False

    def keep(self, head: Event) -> None:
        """Have everything in the file from now on; nothing changes after `leave` or `drop`.

        Raises:
            OSError: it cannot be written.
        """
        with self._lock:
            if not (self.kept or self._left):
                write_spool(self.path, head, self.events)
                self.kept = True

    def leave(self, head: Event, aside: list[Event]) -> int:
        """Write the file as it is to be found after the search; returns how many events it has, none: no file.

        Raises:
            OSError: it cannot be written.
        """
        with self._lock:
            self._left = True
            self._read_rest()
            left = [*aside, *self.events]
            if left:
                write_spool(self.path, head, left)
            else:
                self.path.unlink(missing_ok=True)
            return len(left)

    def drop(self) -> None:
        """Forget everything; no file is left, unless one was there that this never used."""
        with self._lock:
            self.events, self._rest = [], None
            if self.kept:
                self.path.unlink(missing_ok=True)
            self.kept, self._left = False, True

    def _append(self, events: list[Event]) -> int:
        """Write lines at the end of the file; returns where they begin."""
        with self.path.open("ab", buffering=0) as file:
            at = os.fstat(file.fileno()).st_size
            data = "".join(_line(event) for event in events).encode()
            try:
                if file.write(data) != len(data):
                    raise OSError("only a part could be written")
            except OSError:
                os.ftruncate(file.fileno(), at)  # half a line would make the rest unreadable
                raise
        return at

    def _refill(self) -> None:
        assert self._rest is not None
        with self.path.open("rb") as file:
            file.seek(self._rest)
            lines = list(islice(file, max(1, self._limit // 2)))
            self._rest = file.tell() if file.peek(1) else None
        self.events += [json.loads(line) for line in lines]

    def _read_rest(self) -> None:
        if self._rest is not None:
            with self.path.open("rb") as file:
                file.seek(self._rest)
                self.events += [json.loads(line) for line in file]
            self._rest = None


def write_spool(path: Path, head: Event, events: Iterable[Event]) -> None:
    """Write head and events, in one step: there is the old file or the whole new one."""
    new = path.with_suffix(".new")
    try:
        with new.open("w", encoding="utf-8") as file:
            file.write(_line(head))
            file.writelines(_line(event) for event in events)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def read_spool(path: Path) -> tuple[Event, list[Event]]:
    """Head and events of a file; a last line that was torn by the end of its process does not count.

    Raises:
        UserError: the file is not one of ours.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        head, *events = (json.loads(line) for line in lines[:-1])  # without its line feed the last line is torn
        if head["format"] != SPOOL_FORMAT or not all(isinstance(e["event"], str) for e in events):
            raise ValueError(head["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a spool of this version ({one_line(error)}). Move it away to go on; the search's own "
            "results are not in it, only what was meant for MLflow."
        ) from error
    return head, events


def _line(event: Event) -> str:
    return json.dumps({k: v for k, v in event.items() if k != "tries"}, default=str) + "\n"
