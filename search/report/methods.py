"""One row per method: how far it came, beside the linear probe (torch-free)."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from search.metric_text import deviation_of, is_percentage
from search.ranking import BASELINE_METHOD, method_of, primary_objective
from search.records import SearchRecord, Status, TrialRecord
from search.report import series


@dataclass(frozen=True)
class MethodRow:
    """What one method reached; `gap` is its best value minus the linear probe's, signed so that more is better."""

    method: str
    trials: int
    stopped: int
    best: float | None
    deviation: float | None  # of the best trial's best epoch over the repeats
    median: float | None
    gap: float | None
    best_trial: TrialRecord | None
    bar: float
    """The best value as a share of the axis, 0 to 1; the axis starts at zero unless a value is negative."""


def method_rows(record: SearchRecord) -> list[MethodRow]:
    """One row per method, best first; methods without a result last."""
    objective = primary_objective(record)
    points = series.history(record)
    sign = 1.0 if objective.mode == "max" else -1.0
    ordered = sorted(points, key=lambda p: (-sign * p.value, p.trial.number))
    tops = {m: next((p for p in ordered if p.method == m), None) for m in series.methods(record)}
    low, high = _axis(record, [p.value for p in tops.values() if p is not None])
    base = tops.get(BASELINE_METHOD)
    rows = []
    for method, top in tops.items():
        own = [t for t in record.trials if method_of(t, record) == method]
        best = None if top is None else top.trial.best(objective)
        gap = None
        if top is not None and base is not None and method != BASELINE_METHOD:
            gap = sign * (top.value - base.value)
        rows.append(
            MethodRow(
                method=method,
                trials=len(own),
                stopped=sum(t.status is Status.STOPPED for t in own),
                best=None if top is None else top.value,
                deviation=None if best is None else deviation_of(objective.metric, best.metrics),
                median=statistics.median([p.value for p in points if p.method == method]) if top else None,
                gap=gap,
                best_trial=None if top is None else top.trial,
                bar=0.0 if top is None or high == low else (top.value - low) / (high - low),
            )
        )
    return sorted(rows, key=lambda r: (r.best is None, -sign * (r.best or 0.0)))


def _axis(record: SearchRecord, values: list[float]) -> tuple[float, float]:
    """Where bars start and end: at zero, because a bar that starts elsewhere exaggerates."""
    if not values:
        return 0.0, 0.0
    objective = primary_objective(record)
    low, high = min(0.0, *values), max(values)
    if is_percentage(objective.metric) and objective.mode == "max":
        high = max(1.0, high)
    return low, high
