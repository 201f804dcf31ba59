"""What the charts draw, as plain numbers, so that the page and the pictures show the same (torch-free)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from search.metric_text import is_detail
from search.ranking import method_of, primary_objective
from search.records import SearchRecord, Status, TrialRecord
from search.report.pareto import pareto_front


@dataclass(frozen=True)
class Point:
    """A trial that reported the objective at least once."""

    trial: TrialRecord
    method: str
    value: float

    @property
    def complete(self) -> bool:
        return self.trial.status is Status.COMPLETE


@dataclass(frozen=True)
class Curve:
    """One metric of one trial over its epochs; epochs without a finite value are left out."""

    trial: TrialRecord
    method: str
    epochs: list[int]
    values: list[float]

    @property
    def stopped(self) -> bool:
        return self.trial.status is Status.STOPPED


def methods(record: SearchRecord) -> list[str]:
    """The methods that were tried, in the order of their first trial: the order in which they get colours."""
    ordered = sorted(record.trials, key=lambda t: t.number)
    return list(dict.fromkeys(method_of(t, record) for t in ordered))


def history(record: SearchRecord) -> list[Point]:
    """Trials with a finite value of the objective, by number."""
    objective = primary_objective(record)
    points = []
    for trial in sorted(record.trials, key=lambda t: t.number):
        value = trial.value(objective)
        if value is not None and math.isfinite(value):
            points.append(Point(trial, method_of(trial, record), value))
    return points


def best_so_far(points: list[Point], mode: str) -> list[float]:
    """The best value among the points up to and including each one."""
    pick = max if mode == "max" else min
    best: list[float] = []
    for point in points:
        best.append(point.value if not best else pick(best[-1], point.value))
    return best


def curves(record: SearchRecord, metric: str) -> list[Curve]:
    """One curve per trial that reported `metric`, by trial number."""
    found = []
    for trial in sorted(record.trials, key=lambda t: t.number):
        pairs = [(e.epoch, e.metrics[metric]) for e in trial.epochs if metric in e.metrics]
        pairs = [(epoch, value) for epoch, value in pairs if math.isfinite(value)]
        if pairs:
            epochs, values = zip(*pairs, strict=True)
            found.append(Curve(trial, method_of(trial, record), list(epochs), list(values)))
    return found


def curve_metrics(record: SearchRecord) -> list[str]:
    """Metrics that make a curve, the objective's first; the ones about time and memory come last.

    Of several repeats the means only.
    """
    first = primary_objective(record).metric
    names = dict.fromkeys(m for t in record.trials for e in t.epochs for m in e.metrics if not is_detail(m))
    return sorted(names, key=lambda m: (m != first, not m.startswith(("val/", "train/"))))


def front(record: SearchRecord, points: list[Point]) -> list[Point]:
    """The points no other trial beats in both value and trainable parameters, smallest first."""
    maximise = primary_objective(record).mode == "max"
    chosen = pareto_front([(p.trial.trainable_params, p.value) for p in points], maximise=maximise)
    return [points[i] for i in chosen]
