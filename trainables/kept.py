"""What a trial left behind: its checkpoints, as far as they are its own, and what they say of its epochs.

All workers of a trial call `read` and `write` together: they read the same, and none goes on before it is written.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from trainables.answering import past_of
from trainables.checkpoints import Checkpoint, CheckpointStore, Kind
from trainables.collective import of_all, rank
from trainables.config import WHEREABOUTS, TrialConfig
from trainables.loop import Monitor, Report
from trainables.stopping import EarlyStopping
from trainables.storage import StorageError


class Kept:
    """The checkpoints of trials in `store`; without one nothing is kept, and nothing is found.

    `waiting` is a context for what waits for the storage.
    """

    def __init__(
        self, store: CheckpointStore | None, waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self.store, self._waiting = store, waiting
        self._notes: dict[tuple[str, str], bool] = {}  # trial and text, and whether it was given away

    def read(self, trial: str, kind: Kind, digest: str) -> Checkpoint | None:
        """The newest checkpoint that is whole and of the configuration with this digest.

        A driver whose machine died may have lost the last second of its journal, and give a trial's id to another
        configuration. Raises `StorageError`, on all workers, when the storage cannot be read for long.
        """
        if self.store is None:
            return None
        foreign: list[int] = []

        def own(meta: dict[str, Any]) -> bool:
            if _is_of(digest, meta):
                return True
            foreign.append(meta["epoch"])
            return False

        found, failed = None, ""
        with self._waiting():
            try:
                found = self.store.read(trial, kind, own)
            except StorageError as error:
                failed = str(error)
            told = of_all((failed, None if found is None else found.meta["epoch"]))
        for text, _ in told:
            if text:
                raise StorageError(text)
        if len({epoch for _, epoch in told}) > 1:
            raise RuntimeError(f"the workers of trial {trial} read checkpoints of different epochs: {told}")
        instead = f"the {kind} one of epoch {found.meta['epoch']} is used" if found else f"there is no other {kind} one"
        for name in self.store.skipped:
            self.note(trial, f"checkpoint {name} is not whole; {instead}")
        if foreign:
            self.note(trial, f"a {kind} checkpoint of another configuration lay where this trial's belong; {instead}")
        return found

    def claim(self, trial: str, digest: str) -> None:
        """Remove what another configuration left under this trial's id, before the trial leaves anything of its own.

        Otherwise it would count among the newest, and the trial's own be dropped in its favour. Done by rank 0; raises
        `StorageError` on all workers.
        """
        if self.store is None:
            return
        failed = ""
        with self._waiting():
            try:
                if rank() == 0:
                    self.store.disown(trial, lambda meta: _is_of(digest, meta))
            except StorageError as error:
                failed = str(error)
            failed = of_all(failed)[0]
        if failed:
            raise StorageError(failed)

    def best(self, trial: str, digest: str, monitor: Monitor) -> tuple[Checkpoint, str]:
        """The checkpoint with the weights to judge; if they are not those of the best epoch, a sentence on that, too.

        Raises RuntimeError when there is none, and what `read` raises.
        """
        best, last = self.read(trial, "best", digest), self.read(trial, "last", digest)
        newest = best or last
        if newest is None:
            where = self.store.root if self.store is not None else "memory"
            raise RuntimeError(f"trial {trial} has no readable checkpoint in {where}")
        used, wanted = newest.meta["epoch"], best_epoch(past_of(last or newest), monitor)
        # A best epoch later than `last`'s best: it is `last` whose newest one cannot be read.
        if wanted is None or (best is not None and used >= wanted):
            return newest, ""
        return (
            newest,
            f"the weights of the best epoch, {wanted}, cannot be read; these are of epoch {used}",
        )

    def write(self, trial: str, report: Report, known: Mapping[str, Any]) -> None:
        """Keep an epoch; `known` goes into its `meta`. Done by rank 0; raises `StorageError` on all workers."""
        if self.store is None:
            return
        meta, failed = {**report.checkpoint.meta, **known}, ""
        with self._waiting():
            try:
                if rank() == 0 and report.is_best:  # before `last`: who goes on from that finds the best weights, too
                    self.store.write(trial, "best", Checkpoint(report.judged, meta))
                if rank() == 0:
                    self.store.write(trial, "last", Checkpoint(report.checkpoint.tensors, meta))
            except StorageError as error:
                failed = str(error)
            failed = of_all(failed)[0]
        if failed:
            raise StorageError(failed)

    def note(self, trial: str, text: str) -> None:
        """Remember something that had to be worked around."""
        self._notes.setdefault((trial, text), False)

    def notes(self, trial: str) -> list[str]:
        """What was noted of the trial, for people; everything is said once."""
        found = [(trial, text) for (whose, text), said in self._notes.items() if whose == trial and not said]
        self._notes.update(dict.fromkeys(found, True))
        return [text for _, text in found]


def _is_of(digest: str, meta: Mapping[str, Any]) -> bool:
    return bool(meta.get("config", digest) == digest)


def digest_of(config: TrialConfig) -> str:
    """Names a configuration, whatever order its keys came in and wherever its data lie."""
    flat = {key: value for key, value in config.to_flat().items() if key not in WHEREABOUTS}
    return hashlib.sha256(json.dumps(flat, sort_keys=True, default=str).encode()).hexdigest()[:32]


def best_epoch(history: Sequence[Mapping[str, Any]], monitor: Monitor) -> int | None:
    """The epoch that counts as the best; None when no value of the metric is finite."""
    metric, mode = monitor
    best, following = None, EarlyStopping(mode)
    for epoch in history:
        if following.update(epoch["metrics"].get(metric, math.nan)):
            best = int(epoch["epoch"])
    return best
