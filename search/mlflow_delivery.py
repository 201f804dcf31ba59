"""The thread that delivers events to MLflow, however MLflow behaves (torch-free)."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from petl.errors import UserError
from search.mlflow_address import shown, sqlite_path
from search.mlflow_probe import MlflowAway, is_away, reason
from search.mlflow_spool import SPOOL, Backlog
from search.mlflow_store import MlflowStore, is_local, is_permanent
from search.tracking_events import Event, apply, by_trial, describe, grouped, one_line

_LINGER_S = 0.2  # events that come within this time travel together
_LONGEST_LINGER_S = 5.0
_LINGER_FOR = 2.0  # times the processor time of the last delivery: it shares one with the search, and joins more
_LONGEST_PAUSE_S = 30.0
_LONG_DELIVERY_S = 5.0  # from then on what waits is on disk, too
_TRIES_AT_THE_END = 3
_TRIES_BEFORE_ASIDE = 4  # of one event, while the store answers other requests

_log = logging.getLogger(__name__)


class Delivery:
    """Takes events at once and delivers them in order when MLflow can be reached.

    Args:
        store: where they go; not open yet.
        open_store: opens it and returns what is to be delivered before all else; may be called again.
        directory: the search's run directory, for the spool.
        head: what the spool begins with.
        notify: takes one line for the person.
    """

    def __init__(
        self,
        store: MlflowStore,
        open_store: Callable[[], list[Event]],
        directory: Path,
        head: Event,
        notify: Callable[[str], None],
    ) -> None:
        self.backlog = Backlog(directory / SPOOL)
        self._store = store
        self._open_store = open_store
        self._directory = directory
        self._head = head
        self._notify = notify
        self._incoming: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._wake: queue.SimpleQueue[None] = (
            queue.SimpleQueue()
        )  # may be put to from a signal handler, unlike an Event
        self._aside: list[Event] = []  # refused by the store for good, with the reason
        self._opened = self._told = self._disk_told = False
        self._refused: UserError | None = None  # what the first attempt met
        self._tried = threading.Event()
        self._waiting = True  # for the first answer
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._progress = self._spent = 0.0
        self._taking = threading.RLock()  # a signal handler may abandon what its own thread is in the middle of
        self.thread = threading.Thread(target=self._work, daemon=True, name="mlflow-tracker")

    # -- what the tracker calls --------------------------------------------------------------------------

    def start(self, wait: float | None) -> None:
        """Begin to deliver; wait so many seconds (None: without limit) for the first answer of the store.

        Raises:
            UserError: what answers there cannot be used.
        """
        self._progress = time.monotonic()
        self.thread.start()
        self._tried.wait(wait)
        with self._taking:
            self._waiting = False
        if self._refused is not None:
            raise self._refused
        if not self._tried.is_set():
            self._say_away("")

    def put(self, event: Event) -> None:
        """Take an event; costs microseconds."""
        self._incoming.put(event)
        self._wake.put(None)

    def idle(self) -> bool:
        """Whether everything has been delivered."""
        with self._taking:
            return self._opened and self._incoming.empty() and not self.backlog

    def close(self, last: Event, patience: float, longest: float) -> None:
        """Deliver what is left and `last`; spool what cannot be delivered.

        Args:
            last: the last event.
            patience: seconds to wait without any progress.
            longest: seconds to wait in all.
        """
        self.put(last)
        began = self._progress = time.monotonic()
        self._closing.set()
        self._wake.put(None)
        try:
            while self.thread.is_alive() and time.monotonic() < min(self._progress + patience, began + longest):
                self.thread.join(0.05)
                if self._abandoned.is_set():
                    break
        finally:  # a second Ctrl-C ends the wait, not the spooling
            if not self._abandoned.is_set():
                self.abandon()

    def abandon(self) -> None:
        """Stop delivering and spool what is left."""
        self._abandoned.set()
        self._spool()

    def leave(self) -> None:
        """Stop delivering and keep nothing: the runs are another driver's. A request under way is the last one."""
        self._abandoned.set()
        self._store.leave()
        self.backlog.drop()

    # -- the thread --------------------------------------------------------------------------------------

    def _work(self) -> None:
        failures = 0
        while not self._abandoned.is_set():
            self._wait(failures)
            closing = self._closing.is_set()
            self._take()
            before = self._progress
            try:
                self._open()
                self._deliver()
            except Exception as error:
                _log.debug("MLflow did not take an entry", exc_info=True)
                failures = 1 if self._progress > before else failures + 1
                self._trouble(error, failures)
            else:
                if self._told and not self._abandoned.is_set():
                    self._say("MLflow answers again; what was kept has been delivered")
                failures, self._told = 0, False
            self._tried.set()
            if self._refused is not None:
                return
            if closing and (not self.backlog or failures >= _TRIES_AT_THE_END):
                return

    def _wait(self, failures: int) -> None:
        """Let events gather; after a failure, let the store come to itself."""
        if not self._tried.is_set():
            return
        if self._closing.is_set():
            time.sleep(0.3 if failures else 0.0)  # the last tries follow each other quickly
        elif failures:
            end = time.monotonic() + min(_LONGEST_PAUSE_S, 0.5 * 2**failures)
            while (left := end - time.monotonic()) > 0 and not self._closing.wait(min(1.0, left)):
                self._take()  # onto the disk
        else:
            if not self.backlog:
                self._wake.get()
            self._closing.wait(min(_LONGEST_LINGER_S, max(_LINGER_S, _LINGER_FOR * self._spent)))

    def _take(self) -> None:
        """Move what is in the queue to the backlog."""
        with self._taking:
            taken: list[Event] = []
            with contextlib.suppress(queue.Empty):
                while True:
                    self._wake.get_nowait()
            with contextlib.suppress(queue.Empty):
                while True:
                    taken.append(self._incoming.get_nowait())
            try:
                self.backlog.add(taken)
            except OSError as error:
                self._say_disk(error)

    def _open(self) -> None:
        if not self._opened:
            self.backlog.first(self._open_store())
            self._opened = True
            self._progress = time.monotonic()

    def _deliver(self) -> None:
        """Deliver what waits; raises at the first failure that may pass."""
        done: list[Event] = []
        began = looked = time.monotonic()
        spent = time.thread_time()
        try:
            for groups in by_trial(grouped(self.backlog.events)):
                self._carry_out(groups, done)
                if self._abandoned.is_set():
                    return
                self._progress = now = time.monotonic()
                if now > looked + 0.5:
                    looked = now
                    self.backlog.remove(done)
                    done = []
                    self._take()
                    if now > began + _LONG_DELIVERY_S and self.backlog:
                        self._keep()
        finally:
            self._spent = time.thread_time() - spent
            if not self._abandoned.is_set():
                self.backlog.remove(done)

    def _carry_out(self, groups: list[list[Event]], done: list[Event]) -> None:
        """Deliver what there is of a trial, in one go or else group by group; raises what may pass.

        `done` takes what need not be carried out again.
        """
        if len(groups) > 1:
            try:
                with self._store.together():
                    for group in groups:
                        apply(self._store, group)
                done += [event for group in groups for event in group]
                return
            except Exception as error:
                self._store.forget()
                if self._abandoned.is_set():
                    return
                if is_away(error):
                    raise
        for group in groups:  # to find the one that is not taken
            try:
                apply(self._store, group)
            except Exception as error:
                if self._abandoned.is_set():
                    return
                self._store.forget()
                if not self._give_up(group, error):
                    raise
            done += group

    def _give_up(self, group: list[Event], error: Exception) -> bool:
        """Put events aside that the store will never take, so that they do not block all others.

        Only a store that serves other requests is believed: whatever stands at its address for a while may answer
        "not found".
        """
        if not is_local(error):
            if is_away(error) or not self._store.answers():
                return False
            for event in group:
                event["tries"] = event.get("tries", 0) + 1
            if not is_permanent(error) and group[0]["tries"] < _TRIES_BEFORE_ASIDE:
                return False
        self._say(f"MLflow refused an entry ({describe(group[0])}): {one_line(error)}")
        self._aside += [{**event, "refused": one_line(error)} for event in group]
        return True

    def _trouble(self, error: Exception, failures: int) -> None:
        if self._abandoned.is_set():
            return
        wrong = isinstance(error, UserError) and not isinstance(error, MlflowAway)
        if wrong and not self._tried.is_set():
            with self._taking:
                if self._waiting:
                    self._refused = error  # type: ignore[assignment]
                    return
        if failures < 2 and self._opened:
            return  # may be a busy database
        self._keep()
        self._say_away(str(error) if wrong else reason(error))

    def _keep(self) -> None:
        try:
            self.backlog.keep(self._head)
        except OSError as error:
            self._say_disk(error)

    def _spool(self) -> None:
        """Leave undelivered events in the spool, or no spool."""
        self._take()
        path = self.backlog.path
        try:
            left = self.backlog.leave(self._head, list(self._aside))
        except OSError as error:
            self._say(f"entries for MLflow could not be kept: {path} cannot be written ({error}); the journal has all")
            left = 1
        if left:
            self._say(
                f"{left} entries could not be delivered to MLflow at {shown(self._store.uri)}; they are kept in "
                f"{path}. Deliver them with: petl-search sync {quote(str(self._directory))}"
            )

    def _say_away(self, why: str) -> None:
        if not self._told:
            self._told = True
            self._say(
                f"MLflow at {shown(self._store.uri)} does not answer; the search goes on, entries are kept in "
                f"{self.backlog.path}{f' ({why})' if why else ''}"
            )

    def _say_disk(self, error: OSError) -> None:
        if not self._disk_told:
            self._disk_told = True
            self._say(f"entries for MLflow are in memory only: {self.backlog.path} cannot be written ({error})")

    def _say(self, text: str) -> None:
        with contextlib.suppress(Exception):
            self._notify(text)


def first_wait(uri: str) -> float | None:
    """Seconds that a search waits at its start for the first answer; a file answers or fails."""
    return None if sqlite_path(uri) else 5.0
