"""Checkpoints that nobody needs any more are removed while a search runs, in a thread of their own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from search.records import EpochRecord, Incident, Status, TrialRecord

_log = logging.getLogger(__name__)


class Janitor:
    """Removes what an ended trial does not need: all but its best epoch, which can still be evaluated and exported.

    A listener of the search's events. A storage that is away is no reason to hold anything up: what could not be
    removed stays.

    Args:
        checkpoints: the root of the search's checkpoints.
        written: how many bytes of the journal there are.
        copied: how many of them outlive this machine. What an end is not known of elsewhere is kept: a driver that goes
            on there would have to train it again.
    """

    def __init__(self, checkpoints: str, written: Callable[[], int], copied: Callable[[], int] | None) -> None:
        self._root, self._written, self._copied = checkpoints, written, copied
        self._ended: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="janitor")
        self._thread.start()

    def trial_started(self, trial: TrialRecord) -> None:
        """Nothing to remove."""

    def epoch(self, trial: TrialRecord, epoch: EpochRecord) -> None:
        """Nothing to remove: workers prune what they replace."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """Called when the record says how; one that may be continued is left alone."""
        if trial.status is not Status.RUNNING:
            self._ended.put((trial.id, self._written()))

    def incident(self, trial: TrialRecord, incident: Incident) -> None:
        """Nothing to remove."""

    def close(self, patience: float = 5.0) -> None:
        """Finish what is under way, for at most `patience` seconds."""
        self._ended.put(None)
        self._closing.set()
        self._thread.join(patience)

    def _work(self) -> None:
        from trainables.checkpoints import CheckpointStore

        store: CheckpointStore | None = None
        while (ended := self._ended.get()) is not None:
            trial, known_at = ended
            while self._copied is not None and self._copied() < known_at:
                if self._closing.wait(1.0):
                    return
            try:
                store = store or CheckpointStore(self._root)
                store.prune(trial)
            except Exception:
                _log.debug("checkpoints of %s could not be pruned", trial, exc_info=True)
