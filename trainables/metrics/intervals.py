"""How sure a number is: bootstrap intervals over clips, mean and deviation over folds.

The interval is the percentile bootstrap (Efron 1979): the metric of resamples of the clips, drawn with replacement, as
many as there are. It says how the metric would vary with other clips of the same kind, not with another training. Where
clips belong together (speakers, recordings, or pairs that share clips) it is too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_AT_ONCE = 1_000_000  # drawn positions held in memory


class Interval(NamedTuple):
    """A metric on all clips and the bounds that `level` of its resamples lie within."""

    value: float
    low: float
    high: float


def interval(
    statistic: Callable[[NDArray[np.int64]], float],
    clips: int,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of any metric. `statistic` is given positions of clips, (B,) with repeats, and measures those clips.

    Resamples for which it is NaN (a class lost its last positive) are left out; the bounds are NaN if all are.

        interval(lambda b: multi_label(scores_BC[b], targets_BC[b])["map"], len(scores_BC))
    """
    if clips == 0:
        return Interval(math.nan, math.nan, math.nan)
    values = [statistic(row) for rows in draws(clips, resamples, seed) for row in rows]
    return bounded(statistic(np.arange(clips)), np.array(values), level)


def interval_of_mean(values_B: ArrayLike, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
    """The same for metrics that are means over the clips: accuracy from right or wrong, exact match, slot_type_f1."""
    values = np.asarray(values_B, dtype=np.float64)
    return interval_of_ratio(values, np.ones_like(values), resamples=resamples, level=level, seed=seed)


def interval_of_ratio(
    parts_B: ArrayLike, wholes_B: ArrayLike, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """The same for sum(parts) / sum(wholes): error rates from the edits and lengths that `words.edits` gives."""
    parts, wholes = np.asarray(parts_B, dtype=np.float64), np.asarray(wholes_B, dtype=np.float64)
    if parts.shape != wholes.shape or parts.ndim != 1:
        raise ValueError(f"one part and one whole for each clip; found {parts.shape} and {wholes.shape}")
    if len(parts) == 0:
        return Interval(math.nan, math.nan, math.nan)
    values = [_ratio(parts[rows].sum(axis=1), wholes[rows].sum(axis=1)) for rows in draws(len(parts), resamples, seed)]
    value = float(_ratio(parts.sum(), wholes.sum()))
    return bounded(value, np.concatenate(values), level)


def over_folds(folds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of each fold -> {name: mean, name_std: standard deviation} over the folds.

    The deviation divides by the number of folds (ddof 0), as numpy and with it the published tables do; the estimate
    for folds not seen (ddof 1) is sqrt(n / (n - 1)) times as large, 12 % more for five folds. Of one fold it is 0.

    Raises:
        ValueError: when there are no folds, or they do not report the same metrics.
    """
    if not folds:
        raise ValueError("there are no folds to take the mean of")
    for number, fold in enumerate(folds, 1):
        if fold.keys() != folds[0].keys():
            differ = ", ".join(sorted(fold.keys() ^ folds[0].keys()))
            raise ValueError(f"result {number} of {len(folds)} and the first do not both report {differ}")
    joined: dict[str, float] = {}
    for name in folds[0]:
        values = [fold[name] for fold in folds]
        joined[name], joined[f"{name}_std"] = float(np.mean(values)), float(np.std(values, ddof=0))
    return joined


def draws(clips: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Positions of the resampled clips, (some resamples, clips) at a time; how many does not change what is drawn."""
    random = np.random.default_rng(seed)
    rows = max(_AT_ONCE // clips, 1)
    for first in range(0, resamples, rows):
        yield random.integers(0, clips, (min(rows, resamples - first), clips))


def _ratio(parts: NDArray[Any], wholes: NDArray[Any]) -> NDArray[Any]:
    return np.divide(parts, wholes, out=np.full(np.shape(parts), np.nan), where=wholes != 0)


def bounded(value: float, values: NDArray[Any], level: float) -> Interval:
    """The interval of the values of the resamples, those that are NaN left out."""
    if not 0 < level < 1:
        raise ValueError(f"level is a share between 0 and 1, found {level}")
    known = values[~np.isnan(values)]
    if not len(known):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
