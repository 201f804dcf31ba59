"""A run directory's state on shared storage, so that another machine can go on when the driver's is gone (torch-free).

While a search runs a thread copies what is new in `journal.jsonl` as segments named by their offset, and counts a
beat; at the end the result files follow. The search never waits for it: an outage only makes the mirror late.
Checkpoints are beside it: `<run root>/checkpoints`, the mirror itself is `<run root>/run`.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from search.mirror_fetch import ensure_free, fetch
from search.mirror_owner import Lost, Owner
from search.mirror_segments import Segments
from search.mirror_state import BEAT_S, SPACE, WATCH_S
from search.run_address import checkpoints_root, run_name, run_root
from trainables.storage import Storage

__all__ = ["RunMirror", "checkpoints_root", "ensure_free", "fetch", "run_name", "run_root"]

_RESULTS = ("report.html", "trials.parquet", "leaderboard.csv", "best.yaml", "tables/**/*", "best/**/*", "best-*/**/*")


class RunMirror:
    """Keeps a copy of a run directory up to date on shared storage.

    Args:
        storage_root: the run root (`run_root`).
        directory: the run directory; its journal may not exist yet.
        search_id: tells runs apart; the same for every session of a search.
        notify: is told, once each, that the storage is away, that it is back, or that another driver took the run.
        watch: for how many seconds `start` watches the beat of an unfinished run.
        every, beat: least seconds between uploads, and between beats.
    """

    def __init__(
        self,
        storage_root: str,
        directory: Path,
        search_id: str,
        notify: Callable[[str], None] = lambda _: None,
        *,
        watch: float = WATCH_S,
        every: float = 1.0,
        beat: float = BEAT_S,
    ) -> None:
        self._storage = Storage(storage_root, patience=0.0, full_patience=0.0)  # the thread itself tries again
        self.root = self._storage.root
        self._directory, self._notify = directory, notify
        self._watch, self._every = watch, every
        self._owner = Owner(self._storage, directory, search_id, beat)
        journal, session = directory / "journal.jsonl", self._owner.state.session
        self._segments = Segments(self._storage, journal, session, before=self._owner.ensure)
        self._news = threading.Condition()
        self._closing = self._done = False
        self._space = b""
        self._problem = ""  # why the last attempt failed
        self._thread = threading.Thread(target=self._run, daemon=True, name="mirror")

    @property
    def taken_over(self) -> str:
        """The driver that took the run, "" while it is ours. Nothing is written any more: stop the search."""
        return self._owner.taken_over

    def start(self) -> None:
        """Make the run on the storage ours, and begin to copy.

        Raises:
            UserError: another search's run is there, its driver is alive, its journal is not the beginning of this
                one's, or the storage does not answer.
        """
        self._segments.begin(self._owner.take(self._watch, self._tell))
        self._thread.start()

    @property
    def sent(self) -> int:
        """How many bytes of the journal are on the storage."""
        return self._segments.sent

    def poke(self) -> None:
        """The journal grew. Returns at once."""
        with self._news:
            self._news.notify_all()

    def behind(self) -> str:
        """What the storage lacks of the search, and why, in a sentence for people; "" when it has everything.

        While the search runs the last second's lines may be missing; after `close` nothing may.
        """
        if self.taken_over:
            return (
                f"{self.root} belongs to {self.taken_over} now: what was done here since is in {self._directory} only"
            )
        size = self._segments.complete() - self._segments.sent
        lacks = [f"the last {size} bytes of the journal"] if size else []
        lacks += ["the result files"] if self._closing and not self._owner.state.ended else []
        if not lacks:
            return ""
        why = f" ({self._problem})" if self._problem else ""
        return f"{self.root} lacks {' and '.join(lacks)}{why}; {self._directory} has them: continue from there"

    def close(self, timeout: float) -> bool:
        """Copy the rest and the result files, say that the driver ended; whether that was done in `timeout` seconds.

        Where it was not, `behind` says what is missing.
        """
        with self._news:
            self._closing = True
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        complete = self._done and self._owner.state.ended
        self._done = True  # a thread that is still trying gives up
        return complete

    def discard(self, timeout: float = 20.0) -> bool:
        """Take back all that this session wrote, if nothing was recorded there before; whether nothing is left of it.

        For a search that was refused after it had claimed its place. Also after `close`.
        """
        with self._news:
            self._done = self._closing = True
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive() and self._owner.discard(timeout)

    def _run(self) -> None:
        failures = 0
        while not self._done:
            ending = self._closing  # read first: what comes after it is part of this round
            try:
                self._round(ending)
            except Lost:
                self._tell(
                    f"this run is now searched by {self.taken_over}: its copy on shared storage is no longer ours"
                )
                self._done = True
                return
            except Exception as error:  # whatever it is: without this thread nothing would be copied any more
                failures += 1
                self._problem = str(error) or type(error).__name__
                if failures == 1:
                    self._tell(f"the copy on shared storage is behind, and will catch up: {self._problem}")
                pause = random.uniform(0.5, 1.0) * min(15.0, 2.0 ** min(failures, 10) / 4)
                time.sleep(min(pause, 0.5)) if self._closing else self._pause(pause)
                continue
            if failures:
                failures, self._problem = 0, ""
                self._tell("the copy on shared storage has caught up")
            self._done = self._done or ending
            self._pause(self._every)
            with self._news:
                if not self._closing and self._segments.sent >= self._segments.complete():
                    self._news.wait(max(0.01, self._owner.wait))

    def _round(self, ending: bool) -> None:
        if self._owner.due or ending:
            self._owner.ensure()
        grew = self._segments.complete() > self._segments.sent  # asked first: then its space is whole
        self._send_space()
        if grew and self._space:  # a journal without its space could not be continued
            self._segments.send()
        if ending:
            for name, path in self._results():
                self._owner.ensure()
                self._storage.write(f"run/{name}", path.read_bytes())
                self._owner.state.results = sorted({*self._owner.state.results, name})
            self._owner.end()

    def _send_space(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            data = (self._directory / "space.yaml").read_bytes()
            if data != self._space:
                self._owner.ensure()
                self._storage.write(SPACE, data)
                self._space = data

    def _results(self) -> Iterator[tuple[str, Path]]:
        for pattern in _RESULTS:
            for path in sorted(self._directory.glob(pattern)):
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(self._directory).as_posix(), path

    def _pause(self, seconds: float) -> None:
        with self._news:
            self._news.wait_for(lambda: self._closing, seconds)

    def _tell(self, message: str) -> None:
        with contextlib.suppress(Exception):  # whatever a listener does, the copy goes on
            self._notify(message)
