"""ASHA, the stopping variant: at epochs grace, grace*eta, grace*eta^2, ... only the best 1/eta go on.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (algorithm 2, as the stopping
rule of asynchronous schedulers: a trial is judged the moment it reaches a rung, against everything that reached
it before). `Asha` is the rule alone; `AshaScheduler` lends it to Ray Tune.

Written here rather than taken from Ray Tune because a resumed search must rebuild its rungs from the journal,
because rung epochs must be exact integers (a logarithm of 81/3 to base 3 is not 3 in floating point), and
because the sampler has to know which trials were stopped.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.sealed import report_of


class Asha:
    """The stopping rule.

    Args:
        mode: "max" or "min", the direction of the metric.
        rungs: the epochs at which trials are compared (`SchedulerOptions.rungs`); nothing is stopped elsewhere.
        eta: the share that survives a rung is 1/eta. Nothing is stopped at a rung before `eta` trials have reached
            it: a share of fewer says little, and the first trials are the published settings.
    """

    def __init__(self, mode: str, rungs: tuple[int, ...], eta: int) -> None:
        self._sign = 1.0 if mode == "max" else -1.0
        self._eta = eta
        self._seen: dict[int, set[str]] = {epoch: set() for epoch in rungs}
        self._losses: dict[int, list[float]] = {epoch: [] for epoch in rungs}  # sorted, the best first

    def report(self, trial: str, epoch: int, value: float) -> bool:
        """Record a value; True when the trial has to stop. A trial is judged once per rung."""
        if epoch not in self._seen or trial in self._seen[epoch]:
            return False
        loss = math.inf if math.isnan(value) else -self._sign * value
        losses = self._losses[epoch]
        self._seen[epoch].add(trial)
        insort(losses, loss)
        survivors = len(losses) // self._eta
        return survivors > 0 and loss > losses[survivors - 1]


class AshaScheduler(FIFOScheduler):
    """Lets `Asha` decide in a Ray Tune run. Without rungs nothing is ever stopped."""

    def __init__(self, rule: Asha, metric: str) -> None:
        super().__init__()
        self._rule = rule
        self._value_of = metric
        self.stopped: dict[str, int] = {}
        """Our trial id -> epoch at which the rule stopped it."""

    def remember(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch that was trained without being heard of: others are compared with it, it stops nothing itself."""
        self._rule.report(trial, epoch, metrics.get(self._value_of, float("nan")))

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: Tune starts what waits without being told which.

        Tune's own rule names the first that waits, at every event, after going through all trials there ever were. A
        trial that is named takes the process which another one has left, and Tune ends the one that is starting for
        it. So the next trial needs a new process, the one after it is named meanwhile, and processes start for ever.
        (Where nothing new waits a starting trial still takes one that is free; then none is started in its place.)
        """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        report = report_of(result)
        if "epoch" not in report or self._value_of not in report:
            return TrialScheduler.CONTINUE
        name, epoch = trial.config["trial"], int(report["epoch"])
        if self._rule.report(name, epoch, float(report[self._value_of])):
            self.stopped[name] = epoch
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE
