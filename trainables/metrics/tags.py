"""Any number of labels for each clip: average precision, area under the ROC curve (B clips, C classes).

A class counts only where it can be measured: over the clips for which it is *observed* (annotated), and only if these
hold a positive and a negative. A class without both is left out of every mean: its average precision would be 0 or 1
whatever the model does, its AUC is not defined. AAT's code instead counts an unobserved label as a negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainables.metrics.intervals import Interval, bounded, draws

_MARGIN = 1e-12  # far below the step of any real mAUC, which is 1 / (C x positives x negatives)
_NAMES = ("map", "mauc", "d_prime", "mid_precision", "mid_recall")


class TagRow(NamedTuple):
    """How one label fares on the clips where it is observed. None: it lacks positives or negatives there."""

    label: str
    positives: int
    negatives: int
    average_precision: float | None
    auc: float | None


class _Measured(NamedTuple):
    average_precision: float
    auc: float
    mid_precision: float
    mid_recall: float


def multi_label(scores_BC: Tensor, targets_BC: Tensor, observed_BC: Tensor | None = None) -> dict[str, float]:
    """map, mauc, d_prime, mid_precision and mid_recall: means over the classes that can be measured.

    Args:
        scores_BC: larger means more likely. Only their order within a class counts; logits keep it where float32
            sigmoids have run into 1.
        targets_BC: 0 or 1 (or bool); ignored where not observed.
        observed_BC: bool; None: every label of every clip is known.

    mid_precision and mid_recall are those of AAT's log: of each class the entry in the middle of scikit-learn's
    `precision_recall_curve`, that is, at whatever threshold happens to lie there (with one distinct score it is the
    end point, precision 1 and recall 0). They depend on how many distinct scores there are; do not choose by them.
    The code of that lineage keeps every 1000th entry only, and so logs the share of positives and recall 1 for any
    split with fewer distinct scores.

    All values are NaN if no class can be measured or an observed score is not finite.
    """
    scores, targets, observed = _arrays(scores_BC, targets_BC, observed_BC)
    if not np.isfinite(scores[observed]).all():
        return dict.fromkeys(_NAMES, math.nan)
    every = [_one(scores[:, c][observed[:, c]], targets[:, c][observed[:, c]]) for c in range(scores.shape[1])]
    known = [measured for measured in every if measured is not None]
    if not known:
        return dict.fromkeys(_NAMES, math.nan)
    means = [float(mean) for mean in np.mean(known, axis=0)]
    mean = _Measured(*means)
    return {
        "map": mean.average_precision,
        "mauc": mean.auc,
        "d_prime": d_prime(mean.auc),
        "mid_precision": mean.mid_precision,
        "mid_recall": mean.mid_recall,
    }


def map_interval(
    scores_BC: Tensor,
    targets_BC: Tensor,
    observed_BC: Tensor | None = None,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The interval that `intervals.interval` finds of the map of `multi_label`, a hundred times as fast.

    Every class is sorted once; a resample counts how often each clip was drawn.
    """
    scores, targets, observed = _arrays(scores_BC, targets_BC, observed_BC)
    value = multi_label(scores_BC, targets_BC, observed_BC)["map"]
    clips, classes = scores.shape
    if clips == 0 or math.isnan(value):
        return Interval(value, math.nan, math.nan)
    found = []
    for rows in draws(clips, resamples, seed):
        places = rows + clips * np.arange(len(rows))[:, None]
        times_RB = np.bincount(places.ravel(), minlength=len(rows) * clips).reshape(len(rows), clips)
        each = [
            _weighted_precision(scores[:, c], targets[:, c], np.where(observed[:, c], times_RB, 0))
            for c in range(classes)
        ]
        known = ~np.isnan(each)
        sums, many = np.where(known, each, 0.0).sum(axis=0), known.sum(axis=0)
        found.append(np.divide(sums, many, out=np.full(len(rows), np.nan), where=many > 0))
    return bounded(value, np.concatenate(found), level)


def tag_table(
    scores_BC: Tensor, targets_BC: Tensor, labels: Sequence[str], observed_BC: Tensor | None = None
) -> list[TagRow]:
    """One row for each of the C `labels`, in their order."""
    scores, targets, observed = _arrays(scores_BC, targets_BC, observed_BC)
    rows: list[TagRow] = []
    for label, scores_B, targets_B, observed_B in zip(labels, scores.T, targets.T, observed.T, strict=True):
        seen, positive = scores_B[observed_B], targets_B[observed_B]
        measured = _one(seen, positive) if np.isfinite(seen).all() else None
        count = int(positive.sum())
        rows.append(
            TagRow(
                label,
                count,
                len(positive) - count,
                measured.average_precision if measured else None,
                measured.auc if measured else None,
            )
        )
    return rows


def d_prime(auc: float) -> float:
    """sqrt(2) times the standard normal quantile of an area under the ROC curve (0.5 gives 0).

    The areas 0 and 1 would give minus and plus infinity; they are taken as 1e-12 inside, which gives about 9.9, so
    that a perfect epoch can be compared and stored.
    """
    if math.isnan(auc):
        return math.nan
    return math.sqrt(2) * NormalDist().inv_cdf(min(max(auc, _MARGIN), 1 - _MARGIN))


def _one(scores: NDArray[Any], positive: NDArray[np.bool_]) -> _Measured | None:
    """One class on the clips where it is observed."""
    if not positive.any() or positive.all():
        return None
    from sklearn.metrics import auc, precision_recall_curve, roc_curve

    precision, recall, _ = precision_recall_curve(positive, scores)
    false_rate, true_rate, _ = roc_curve(positive, scores)
    middle = len(precision) // 2
    # The sum that `average_precision_score` takes, of the curve that is needed anyway: half the time on 527 classes.
    average = float(-np.sum(np.diff(recall) * precision[:-1]))
    return _Measured(average, float(auc(false_rate, true_rate)), float(precision[middle]), float(recall[middle]))


def _weighted_precision(
    scores: NDArray[Any], positive: NDArray[np.bool_], times_RB: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(R,): average precision of one class on R resamples, clip b being there `times_RB[r, b]` times; NaN: unknown."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # of every run of equal scores
    times_RB = times_RB[:, order]
    taken = np.cumsum(times_RB, axis=1)[:, last]
    right = np.cumsum(times_RB * positive[order], axis=1)[:, last]
    precision = np.divide(right, taken, out=np.zeros(taken.shape), where=taken > 0)
    average = np.sum(np.diff(right, axis=1, prepend=0) * precision, axis=1)
    all_right, everything = right[:, -1], taken[:, -1]
    measured = (all_right > 0) & (all_right < everything)
    return np.divide(average, all_right, out=np.full(len(average), np.nan), where=measured)


def _arrays(
    scores_BC: Tensor, targets_BC: Tensor, observed_BC: Tensor | None
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    scores = scores_BC.detach().float().cpu().numpy()
    targets = targets_BC.detach().cpu().numpy() > 0.5
    observed = np.ones_like(targets) if observed_BC is None else observed_BC.detach().cpu().numpy().astype(bool)
    if not scores.shape == targets.shape == observed.shape:
        raise ValueError(f"scores {scores.shape}, targets {targets.shape} and observed {observed.shape} differ")
    return scores, targets, observed
