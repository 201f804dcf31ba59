"""Taking a run's mirror on shared storage, and making sure before every write that it is still ours (torch-free)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from petl.errors import UserError
from search.mirror_state import (
    SPACE,
    STATE,
    RunState,
    ahead,
    ensure_dead,
    mirrored_journal,
    read_state,
    segments,
    unreachable,
)
from trainables.storage import Storage, StorageError

_CLAIM_S = 20.0


class Lost(Exception):
    """Another driver has the run."""


class Owner:
    """One session's claim to a run on the storage.

    Args:
        storage: of the run root.
        directory: the run directory; its journal may not exist yet.
        search_id: tells runs apart; the same for every session of a search.
        beat: seconds between beats.

    Attributes:
        state: what we say of the run.
        taken_over: the driver that took the run, "" while it is ours.
    """

    def __init__(self, storage: Storage, directory: Path, search_id: str, beat: float) -> None:
        self._storage, self._directory, self._beat = storage, directory, beat
        self.state = RunState(search_id, directory.name)
        self.taken_over = ""
        self._said = float("-inf")  # when our beat was last written
        self._began = False  # nothing was recorded there before us

    def take(self, watch: float, notify: Callable[[str], None]) -> int:
        """Make the run ours; how many bytes of the journal are there already.

        Args:
            watch: for how many seconds the beat of an unfinished run is watched.
            notify: is told why this takes a while.

        Raises:
            UserError: another search's run is there, its driver is alive, its journal is not the beginning of this
                one's, or the storage does not answer.
        """
        patient = Storage(self._storage.root, patience=_CLAIM_S, full_patience=0.0)
        try:
            return self._take(patient, watch, notify)
        except Lost:
            self._began = False
            raise UserError(
                f"{self._storage.root} is being searched by {self.taken_over}; wait for it or stop it first"
            ) from None
        except StorageError as error:
            raise unreachable(error) from None

    def _take(self, storage: Storage, watch: float, notify: Callable[[str], None]) -> int:
        before, root = read_state(storage), storage.root
        if before is None:
            if segments(storage):
                raise UserError(
                    f"{root} holds a journal, but no {STATE}: it is damaged; choose another name (--output)"
                )
            self._began, self.state.sessions = True, [(self.state.session, 0)]
            self._say(storage)
            self._look(storage)
            return 0
        if before.search_id != self.state.search_id and segments(storage, before.sessions):
            raise UserError(
                f"{root} holds the run of another search ({before.name}, last driven by {before.driver}); "
                f"choose another name (--output), or continue that one: --resume {quote(root)}"
            )
        before = ensure_dead(storage, before, watch, notify)
        mirrored = mirrored_journal(storage, before.sessions)
        if ahead(self._directory, mirrored) < 0:
            raise UserError(
                f"{root} knows more of this search than {self._directory}: it was continued elsewhere. "
                f"Continue from there: --resume {quote(root)}"
            )
        self._began = not mirrored
        self.state.beat, self.state.results = before.beat, before.results
        self.state.sessions = [*before.sessions, (self.state.session, len(mirrored))]
        self._say(storage)
        time.sleep(min(1.0, watch / 10))  # two may have watched the same silence
        self._look(storage)
        return len(mirrored)

    def ensure(self) -> None:
        """Before every write: the run is still ours, and is seen to be driven however long the writing takes.

        Raises:
            Lost: another driver has it.
            OSError, UserError: the storage does not answer, or not with what can be read.
        """
        self._look(self._storage)
        if self.due:
            self._say(self._storage)

    def end(self) -> None:
        """Say that the driver left in order. Raises as `ensure`."""
        self._look(self._storage)
        self.state.ended = True
        try:
            self._say(self._storage)
        except BaseException:
            self.state.ended = False
            raise

    @property
    def due(self) -> bool:
        """Whether it is time for a beat."""
        return self.wait <= 0

    @property
    def wait(self) -> float:
        """Seconds until the next beat."""
        return self._said + self._beat - _clock()

    def discard(self, patience: float) -> bool:
        """Delete what this session wrote, if nothing was recorded there before; whether nothing is left of it."""
        if not self._began:
            return False
        storage = Storage(self._storage.root, patience=patience, full_patience=0.0)
        try:
            found = read_state(storage)
            if found is None or found.session != self.state.session:
                return found is None
            mine = [name for session, _, name in segments(storage) if session == self.state.session]
            for name in [*(f"run/{name}" for name in self.state.results), *mine, SPACE, STATE]:  # whose it is: last
                storage.delete(name)
        except (OSError, UserError):
            return False
        return True

    def _say(self, storage: Storage) -> None:
        self.state.beat += 1
        storage.write(STATE, self.state.encoded())
        self._said = _clock()

    def _look(self, storage: Storage) -> None:
        """Whose run is it? One that a late write of an earlier session claims is taken back."""
        found = read_state(storage)
        if found is not None and found.session == self.state.session:
            return
        if found is not None and found.session not in {session for session, _ in self.state.sessions}:
            self.taken_over = found.driver
            raise Lost
        self._say(storage)


def _clock() -> float:
    """Seconds that go on while the machine is suspended, where the system counts them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
