"""Where a running search stands: what the views show, worked out from the events they hear (torch-free)."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from search.metric_text import deviation_of
from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord

_WINDOW_S = 120.0  # throughput is measured over this long
_ENOUGH_EPOCHS = 3  # before them an estimate of the time left is a guess


class Standing:
    """Keeps count. Times are seconds of `clock`; safe to read from another thread under `lock`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.lock = threading.RLock()
        self.record: SearchRecord | None = None
        self.total: int | None = None
        self.phase = ""
        self.phase_began = 0.0
        self.done_of: tuple[int, int] | None = None  # progress of the phase
        self.finished = False
        self.running: dict[str, TrialRecord] = {}
        self.best: TrialRecord | None = None
        self._clock = clock
        self._began = clock()
        self._first_trial: float | None = None
        self._budget: float | None = None
        self._trials: dict[str, TrialRecord] = {}
        self._epochs: dict[str, list[EpochRecord]] = {}
        self._settled: dict[str, Status] = {}  # of trials that do not run here
        self._counts: Counter[Status] = Counter()  # of `_settled`: counting thousands anew at every end takes long
        self._reports: deque[float] = deque(maxlen=2000)
        self._ended_here = 0

    # -- events ------------------------------------------------------------------------------------------

    def start(self, record: SearchRecord, total: int | None, budget: float | None) -> None:
        with self.lock:
            self.record, self.total = record, total
            self._began = self._clock()
            self._budget = None if budget is None else max(0.0, budget - record.seconds)
            for trial in record.trials:
                self._know(trial)
                self._settle(trial)

    def set_phase(self, text: str) -> None:
        with self.lock:
            if text != self.phase:
                self.phase, self.phase_began = text, self._clock()
            self.done_of = None

    def set_progress(self, done: int, total: int, text: str) -> None:
        with self.lock:
            if text and text != self.phase:
                self.set_phase(text)
            self.done_of = (done, total) if total > 0 else None

    def trial_started(self, trial: TrialRecord) -> None:
        with self.lock:
            self._first_trial = self._clock() if self._first_trial is None else self._first_trial
            self._know(trial)
            self._begin(trial)
            self.set_phase("")

    def epoch(self, trial: TrialRecord, epoch: EpochRecord) -> None:
        with self.lock:
            self._know(trial)
            self._begin(trial)
            if all(e.epoch != epoch.epoch for e in self._epochs[trial.id]):
                self._epochs[trial.id].append(epoch)
            if not self._reports and self._first_trial is not None:
                # The first trials wait for their workers to start; that is no measure of how long epochs take.
                self._first_trial = max(self._first_trial, self._clock() - epoch.seconds)
            self._reports.append(self._clock())
            self._compare(trial)

    def trial_ended(self, trial: TrialRecord) -> None:
        with self.lock:
            self._know(trial)
            self.running.pop(trial.id, None)
            self._settle(trial)
            self._ended_here += 1

    # -- what is shown -----------------------------------------------------------------------------------

    @property
    def objective(self) -> Objective | None:
        return self.record.objectives[0] if self.record is not None and self.record.objectives else None

    @property
    def max_epochs(self) -> int | None:
        found = self.record.info.get("epochs") if self.record is not None else None
        return found if isinstance(found, int) and found > 0 else None

    @property
    def elapsed(self) -> float:
        return self._clock() - self._began

    @property
    def in_phase(self) -> float:
        return self._clock() - self.phase_began

    @property
    def ended(self) -> int:
        return sum(self._counts[s] for s in (Status.COMPLETE, Status.STOPPED, Status.FAILED))

    def counts(self) -> dict[str, int]:
        """How many trials stand where: complete, stopped, failed, running, rejected."""
        # A trial has its final status a moment before its end is told; until then it is running.
        counts = {str(s): self._counts[s] for s in Status}
        counts["running"] = len(self.running)
        counts["rejected"] = len(self.record.rejected) if self.record is not None else 0
        return counts

    def epochs_of(self, trial: TrialRecord) -> list[EpochRecord]:
        return self._epochs.get(trial.id, [])

    def value(self, trial: TrialRecord) -> tuple[float, int] | None:
        """(value, epoch) of the trial's best epoch so far."""
        objective = self.objective
        if objective is None:
            return None
        found: tuple[float, int] | None = None
        for epoch in self.epochs_of(trial):
            value = epoch.metrics.get(objective.metric)
            if value is not None and value == value and (found is None or objective.better(value, found[0])):
                found = value, epoch.epoch
        return found

    def deviation(self, trial: TrialRecord) -> float | None:
        """Over the repeats, at the trial's best epoch so far; None of a single training."""
        objective, found = self.objective, self.value(trial)
        if objective is None or found is None:
            return None
        return next(
            (deviation_of(objective.metric, e.metrics) for e in self.epochs_of(trial) if e.epoch == found[1]), None
        )

    def epochs_a_minute(self) -> float | None:
        if self._first_trial is None or not self._reports:
            return None
        now = self._clock()
        span = min(_WINDOW_S, now - self._first_trial)
        return 60 * sum(t >= now - _WINDOW_S for t in self._reports) / span if span > 0 else None

    def trials_a_minute(self) -> float | None:
        if self._first_trial is None or not self._ended_here:
            return None
        span = self._clock() - self._first_trial
        return 60 * self._ended_here / span if span > 0 else None

    def left(self) -> float | None:
        """Estimate of the seconds left: epochs still to come at the present rate, at most the time budget."""
        ends = [] if self._budget is None else [max(0.0, self._budget - self.elapsed)]
        rate = self.epochs_a_minute()
        if rate and self.total is not None and len(self._reports) >= _ENOUGH_EPOCHS:
            lengths = [len(self._epochs[t.id]) for t in self._trials.values() if t.status is not Status.RUNNING]
            typical = sum(lengths) / len(lengths) if lengths else float(self.max_epochs or 1)
            waiting = max(0, self.total - self.ended - len(self.running))
            begun = sum(max(0.5, typical - len(self.epochs_of(t))) for t in self.running.values())
            ends.append(60 * (waiting * typical + begun) / rate)
        return min(ends, default=None)

    def _begin(self, trial: TrialRecord) -> None:
        self.running.setdefault(trial.id, trial)
        before = self._settled.pop(trial.id, None)
        if before is not None:
            self._counts[before] -= 1

    def _settle(self, trial: TrialRecord) -> None:
        self._begin(trial)
        del self.running[trial.id]
        self._settled[trial.id] = trial.status
        self._counts[trial.status] += 1

    def _know(self, trial: TrialRecord) -> None:
        self._trials[trial.id] = trial
        if trial.id not in self._epochs:
            self._epochs[trial.id] = list(trial.epochs)
            self._compare(trial)

    def _compare(self, trial: TrialRecord) -> None:
        """Make `trial` the best one if it is."""
        value = self.value(trial)
        champion = None if self.best is None else self.value(self.best)
        if value is None or self.objective is None:
            return
        if champion is None or self.objective.better(value[0], champion[0]):
            self.best = trial
