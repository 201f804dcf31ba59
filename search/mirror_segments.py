"""The journal as objects of a store, which cannot be appended to: one segment per upload, merged as they grow many.

A segment is `run/journal-<offset of its first byte>-<session>.jsonl`: no session overwrites another's. A merged one
takes the name, and begins with the bytes, of the first of those it stands for, so a reader finds the whole journal at
any moment; a writer that dies in between leaves segments that repeat one another. (torch-free)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from search.mirror_state import segment
from trainables.storage import Storage

_MERGED = 32
_LARGEST = 8 * 2**20
_LARGEST_MERGED = 8 * 2**20  # no single upload may take longer than a beat is waited for


class Segments:
    """Sends what is new in a journal.

    Args:
        session: whose segments these are.
        before: called right before every upload; what it raises prevents it.

    Attributes:
        sent: how many bytes of the journal are on the storage.
    """

    def __init__(
        self, storage: Storage, journal: Path, session: str, before: Callable[[], None] = lambda: None
    ) -> None:
        self._storage, self._journal, self._session, self._before = storage, journal, session, before
        self.sent = 0
        self._tail: list[tuple[int, int]] = []  # offset and level of what may still be merged

    def begin(self, sent: int) -> None:
        """So many bytes are there already."""
        self.sent, self._tail = sent, []

    def complete(self) -> int:
        """Where the journal's last whole line ends."""
        try:
            with self._journal.open("rb") as file:
                size = end = file.seek(0, 2)
                while end > self.sent:
                    start = max(self.sent, end - 65536)
                    file.seek(start)
                    found = file.read(end - start).rfind(b"\n")
                    if found >= 0:
                        return start + found + 1
                    end = start
                return min(size, self.sent)
        except FileNotFoundError:
            return 0

    def send(self) -> None:
        """Upload the whole lines that are not there yet."""
        while (end := self.complete()) > self.sent:
            data = self._read(self.sent, min(end, self.sent + _LARGEST))
            if self.sent + len(data) < end:
                data = data[: data.rfind(b"\n") + 1] or self._read(self.sent, end)
            self._before()
            self._storage.write(segment(self.sent, self._session), data)
            self._tail.append((self.sent, 0))
            self.sent += len(data)
            self._merge()

    def _merge(self) -> None:
        """Of so many segments of one level make one of the next: their number grows like a logarithm."""
        while len(self._tail) >= _MERGED and len({level for _, level in self._tail[-_MERGED:]}) == 1:
            (first, level), *others = self._tail[-_MERGED:]
            if self.sent - first > _LARGEST_MERGED:
                return
            self._before()
            self._storage.write(segment(first, self._session), self._read(first, self.sent))
            for offset, _ in others:
                self._storage.delete(segment(offset, self._session))
            self._tail[-_MERGED:] = [(first, level + 1)]

    def _read(self, start: int, end: int) -> bytes:
        with self._journal.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
