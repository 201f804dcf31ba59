"""Who is best: the trials of a search in the order of their values (torch-free and Ray-free)."""

from __future__ import annotations

from dataclasses import dataclass

from search.metric_text import deviation_of
from search.records import Objective, SearchRecord, Status, TrialRecord
from search.texts import configuration_text

BASELINE_METHOD = "linear"
"""The method that every other one has to beat: a linear probe on frozen features."""


@dataclass(frozen=True)
class LeaderboardRow:
    """One trial's place. `rank` counts from 1 and is None for a trial that never reported the metric."""

    rank: int | None
    trial: TrialRecord
    method: str
    value: float | None
    deviation: float | None  # over the repeats; None where there is one only
    best_epoch: int | None
    epochs: int
    configuration: str
    is_winner: bool
    is_baseline: bool

    @property
    def seconds(self) -> float:
        """Seconds spent in this trial's epochs."""
        return sum(e.seconds for e in self.trial.epochs)


def primary_objective(record: SearchRecord) -> Objective:
    """The objective trials are ranked by: the first one that has to be trained for to be known."""
    trained = [o for o in record.objectives if o.metric != "trainable_params"]
    return (trained or record.objectives)[0]


def method_of(trial: TrialRecord, record: SearchRecord) -> str:
    """The trial's method: sampled, or fixed by the space (`info["method"]`), or "(fixed)" when unknown."""
    return str(trial.params.get("method") or record.info.get("method") or "(fixed)")


def status_counts(record: SearchRecord) -> dict[str, int]:
    """How many trials ended each way, "rejected" (over a bound, never trained) included."""
    counts = {str(s): sum(t.status is s for t in record.trials) for s in Status}
    return {**counts, "rejected": len(record.rejected)}


def leaderboard(record: SearchRecord) -> list[LeaderboardRow]:
    """Every trial, best value first; those without a value follow unranked, in the order they were started."""
    objective = primary_objective(record)
    valued = [(t.value(objective), t) for t in record.trials]
    # Equal values keep the order of their numbers: the earlier trial found it first.
    sign = -1.0 if objective.mode == "max" else 1.0
    ranked = sorted(((v, t) for v, t in valued if v is not None and v == v), key=lambda p: (sign * p[0], p[1].number))
    rest = sorted((t for v, t in valued if v is None or v != v), key=lambda t: t.number)
    rows = [_row(record, objective, t, v, rank) for rank, (v, t) in enumerate(ranked, start=1)]
    return rows + [_row(record, objective, t, None, None) for t in rest]


def _row(
    record: SearchRecord, objective: Objective, trial: TrialRecord, value: float | None, rank: int | None
) -> LeaderboardRow:
    best = trial.best(objective)
    method = method_of(trial, record)
    return LeaderboardRow(
        rank=rank,
        trial=trial,
        method=method,
        value=value,
        deviation=None if best is None else deviation_of(objective.metric, best.metrics),
        best_epoch=None if best is None else best.epoch,
        epochs=len(trial.epochs),
        configuration=configuration_text(trial.params),
        is_winner=trial.id == record.winner,
        is_baseline=method == BASELINE_METHOD,
    )


def winner_of(record: SearchRecord) -> TrialRecord | None:
    """The trial that was chosen, or while none was chosen the first of the leaderboard."""
    for trial in record.trials:
        if trial.id == record.winner:
            return trial
    rows = leaderboard(record)
    return rows[0].trial if rows and rows[0].rank is not None else None
