"""Which part of a long search its sampler is shown (torch-free).

TPE goes through all it was ever told whenever it is asked, so in a search of thousands of trials asking becomes the
dearest thing the driver does. It reads only two things off its history: the best tenth (at most 25 of one
objective), and how everything else is spread, recent trials weighing more. So a long history is cut to the best, and
the newest of each kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from search.records import SearchRecord, Status, TrialRecord
from search.space import Space
from search.studies import intermediate, told_values

_BEST_SHARE = 1 / 8
"""Above the tenth that TPE models as good, so that it has those also when a quarter more was told."""

Rejected = dict[str, Any]
Entry = TrialRecord | Rejected


def history(space: Space, record: SearchRecord, most: int) -> list[Entry]:
    """Ended trials and rejected configurations to tell a new study, oldest first: all, or `most` of them.

    Of more than `most` it takes the best eighth (complete trials by their values, then stopped ones by how far they
    came), and otherwise the newest complete, stopped and rejected ones, so that each kind keeps its share of the
    whole. Failed trials say nothing to the sampler and are left out then. The record alone decides.

    The record does not say when a configuration was rejected: they are put evenly between the trials.
    """
    ended = [trial for trial in record.trials if trial.status is not Status.RUNNING]
    if len(ended) + len(record.rejected) <= most:
        return _woven(ended, record.rejected)
    values = [(trial, told_values(space, trial)) for trial in ended if trial.status is Status.COMPLETE]
    complete = [(trial, found) for trial, found in values if found is not None]
    stopped = [trial for trial in ended if trial.status is Status.STOPPED]
    best = _best(space, complete, stopped, int(most * _BEST_SHARE))
    chosen = set(best)
    kinds = ([trial for trial, _ in complete], stopped)
    taken = [sum(trial.id in chosen for trial in kind) for kind in kinds]
    quotas = _quotas([len(complete), len(stopped), len(record.rejected)], [*taken, 0], most)
    for kind, have, quota in zip(kinds, taken, quotas, strict=False):
        others = [trial.id for trial in kind if trial.id not in chosen]
        chosen.update(others[len(others) - min(quota - have, len(others)) :])
    rejected = record.rejected[len(record.rejected) - quotas[2] :]
    return _woven([trial for trial in ended if trial.id in chosen], rejected)


def _best(
    space: Space, complete: list[tuple[TrialRecord, list[float]]], stopped: list[TrialRecord], count: int
) -> list[str]:
    """Ids of the `count` trials that TPE would count as the best."""
    signs = [-1.0 if objective.mode == "max" else 1.0 for objective in space.objectives]
    losses = np.array([values for _, values in complete], dtype=float).reshape(-1, len(signs)) * signs
    found = [complete[i][0].id for i in _by_rank(losses, count)]

    def score(trial: TrialRecord) -> tuple[float, float]:
        reports = intermediate(space, trial)
        last = max(reports, default=0)
        return -last, signs[0] * reports.get(last, 0.0)

    return found + [trial.id for trial in sorted(stopped, key=score)[: count - len(found)]]


def _by_rank(losses: np.ndarray, count: int) -> list[int]:
    """At least the first `count` rows by rank of dominance, whole ranks but for the last, which is cut by its order."""
    left = np.lexsort(losses.T[::-1])
    found: list[int] = []
    while len(found) < count and len(left):
        front, others = [], left
        while len(others):
            first, others = others[0], others[1:]  # in this order nothing that comes later dominates it
            front.append(int(first))
            worse = (losses[first] <= losses[others]).all(axis=1) & (losses[first] < losses[others]).any(axis=1)
            others = others[~worse]
        found += front
        left = left[~np.isin(left, front)]
    return found[:count]


def _quotas(counts: Sequence[int], least: Sequence[int], most: int) -> list[int]:
    """At most `most`, shared out in proportion to `counts`, rounded down, but no share below its `least`."""
    total = sum(counts)
    if total <= most:
        return list(counts)
    short = [i for i, count in enumerate(counts) if count * most < least[i] * total]
    if not short:
        return [count * most // total for count in counts]
    quotas = _quotas(
        [0 if i in short else count for i, count in enumerate(counts)],
        [0 if i in short else floor for i, floor in enumerate(least)],
        most - sum(least[i] for i in short),
    )
    return [least[i] if i in short else quota for i, quota in enumerate(quotas)]


def _woven(trials: list[TrialRecord], rejected: list[Rejected]) -> list[Entry]:
    places: list[tuple[float, int, Entry]] = [((i + 1) / (len(trials) + 1), 0, t) for i, t in enumerate(trials)]
    places += [((i + 1) / (len(rejected) + 1), 1, r) for i, r in enumerate(rejected)]
    return [entry for *_, entry in sorted(places, key=lambda place: place[:2])]
