"""Where Ray Tune's events become ours: journal, tracker and live view hear of every trial from here (torch-free)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from ray import tune
from ray.tune.execution.tune_controller import TuneController

from search.journal import Journal
from search.records import EpochRecord, Incident, Status, TrialRecord
from search.scheduler import AshaScheduler
from search.sealed import report_of


class Stays:
    """Stays in the driver. Tune pickles all it is given in case somebody restores its run; nobody does."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Stays, ()


@contextmanager
def no_snapshots() -> Iterator[None]:
    """Have Tune write no trial into its snapshot while it runs here: the journal is the state.

    It writes one at the end whatever `TUNE_GLOBAL_CHECKPOINT_S` says, a page for every trial of the search.
    """
    mark = TuneController._mark_trial_to_checkpoint
    TuneController._mark_trial_to_checkpoint = lambda self, trial: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        TuneController._mark_trial_to_checkpoint = mark  # type: ignore[method-assign]


class Listener(Protocol):
    """Anyone who wants to hear of trials: the tracker, the live view."""

    def trial_started(self, trial: TrialRecord) -> None: ...
    def epoch(self, trial: TrialRecord, epoch: EpochRecord) -> None: ...
    def trial_ended(self, trial: TrialRecord) -> None: ...
    def incident(self, trial: TrialRecord, incident: Incident) -> None: ...


class Live:
    """Counts the trials that were handed out and have not ended: of a resumed search fewer than its record says."""

    def __init__(self) -> None:
        self._trials: set[str] = set()

    @property
    def count(self) -> int:
        return len(self._trials)

    def trial_started(self, trial: TrialRecord) -> None:
        self._trials.add(trial.id)

    def epoch(self, trial: TrialRecord, epoch: EpochRecord) -> None:
        """Nothing changes."""

    def trial_ended(self, trial: TrialRecord) -> None:
        self._trials.discard(trial.id)

    def incident(self, trial: TrialRecord, incident: Incident) -> None:
        """Nothing changes."""


class Stop:
    """Why a search ends before its sampler runs dry: asked by a person, out of time, or nothing can train."""

    def __init__(self, interrupted: threading.Event, deadline: float | None) -> None:
        self.interrupted = interrupted
        self.dead = ""
        self._deadline = deadline

    @property
    def out_of_time(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    @property
    def now(self) -> bool:
        return self.interrupted.is_set() or self.out_of_time or bool(self.dead)


class Stopper(Stays, tune.Stopper):
    """Ends the Tune run when `stop` says so."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stop.now


class Events(Stays, tune.Callback):
    """Writes what Tune reports into the journal and passes it on.

    The order matters: the journal first (it is what survives), then whoever listens: the sampler, which learns
    from here and not from Tune how a trial ended, the tracker, the live view.

    Args:
        abandon: frees the worker group of a trial whose proxy died.
        alive: whether the process that keeps the worker groups is there.
    """

    def __init__(
        self,
        journal: Journal,
        scheduler: AshaScheduler,
        stop: Stop,
        listeners: list[Listener],
        abandon: Callable[[str], None],
        alive: Callable[[], bool],
    ) -> None:
        self._journal, self._scheduler, self._stop = journal, scheduler, stop
        self.listeners, self._abandon, self._alive = listeners, abandon, alive

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        record, report = self._journal.trial(trial.config["trial"]), report_of(result)
        if "halt" in report:  # the trial goes on when somebody has mended it
            self._stop.dead = self._stop.dead or str(report["halt"])
            return
        for word, meaning in (("diverged", "diverged: "), ("refused", ""), ("failed", "")):
            if word in report:
                self._end(record, Status.FAILED, f"{meaning}{report[word]}")
                return
        for note in report.get("notes", ()):
            self.incident(record.id, "checkpoint", str(note))
        for past in report.get("past", ()):  # the driver that heard of them could not write them down any more
            epoch = EpochRecord(int(past["epoch"]), _metrics(past["metrics"]), float(past["seconds"]))
            self._epoch(record, epoch)
            self._scheduler.remember(record.id, epoch.epoch, epoch.metrics)
        self._epoch(record, EpochRecord(int(report["epoch"]), _metrics(report), float(report["seconds"])))
        stopped_at = self._scheduler.stopped.get(record.id)
        if stopped_at is not None:
            self._end(record, Status.STOPPED, f"among the worse at epoch {stopped_at}")
        elif report.get("done"):
            self._end(record, Status.COMPLETE)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._abandon(trial.config["trial"])
        if not self._stop.now:
            self.incident(trial.config["trial"], "proxy", _reason(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._abandon(trial.config["trial"])
        if not self._alive():
            self._stop.dead = "the process that keeps the worker groups died"  # no fault of the trial
        record = self._journal.trial(trial.config["trial"])
        if record.status is Status.RUNNING and not self._stop.now:
            self._end(record, Status.FAILED, _reason(trial))

    def incident(self, trial: str, kind: str, reason: str, stack: str = "") -> None:
        """Something went wrong with a trial and was dealt with. Also called by the thread that watches the groups."""
        record = self._journal.trial(trial)
        self._journal.incident(record, kind, reason, stack)
        for listener in self.listeners:
            listener.incident(record, record.incidents[-1])

    def on_start(self, record: TrialRecord) -> None:
        """Told by the sampler when it hands out a trial."""
        for listener in self.listeners:
            listener.trial_started(record)

    def _epoch(self, record: TrialRecord, epoch: EpochRecord) -> bool:
        new = self._journal.epoch(record, epoch)
        if new:
            for listener in self.listeners:
                listener.epoch(record, epoch)
        return new

    def _end(self, record: TrialRecord, status: Status, reason: str = "") -> None:
        self._journal.ended(record, status, reason)
        for listener in self.listeners:
            listener.trial_ended(record)


def _metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Every metric has a slash in its name; the other numbers of a report are none."""
    return {k: float(v) for k, v in report.items() if "/" in k and isinstance(v, (int, float))}


def _reason(trial: Any) -> str:
    """The last line that says something of the error Tune kept for a trial."""
    for kept in (trial.get_pickled_error, trial.get_error):  # the error itself, or what was written of it
        try:
            error = kept()
        except Exception:  # its file may be on a node that is gone, or not to be unpickled here
            continue
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] if error else []
        if lines:
            return lines[-1][:500]
    return "the worker died without a message"
