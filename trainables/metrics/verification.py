"""Same speaker or not: equal error rate and minimum detection cost of scored pairs (N pairs).

A pair is accepted if its score reaches a threshold. FAR is the share of different pairs accepted, FRR the share of same
pairs refused. Values are NaN if one kind of pair is missing or a score is not finite.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def same_or_different(scores_N: ArrayLike, same_N: ArrayLike) -> dict[str, float]:
    """eer and min_dcf (at its defaults) of scores, larger for more alike, and labels, true for the same speaker."""
    return {"eer": eer(scores_N, same_N), "min_dcf": min_dcf(scores_N, same_N)}


def eer(scores_N: ArrayLike, same_N: ArrayLike) -> float:
    """The rate at which FAR and FRR are equal, in [0, 1].

    Between two neighbouring thresholds both rates are taken to change linearly (as when one of the two is thrown a
    coin for), so scores that are all equal give 0.5, and swapping the labels along with the order of the scores
    changes nothing.
    """
    rates = _rates(scores_N, same_N)
    if rates is None:
        return math.nan
    accepted, refused = rates
    gap = accepted - refused  # rises from -1, where nothing is accepted, to 1
    after = int(np.argmax(gap >= 0))
    step = -gap[after - 1] / (gap[after] - gap[after - 1])
    return float(accepted[after - 1] + step * (accepted[after] - accepted[after - 1]))


def min_dcf(
    scores_N: ArrayLike, same_N: ArrayLike, *, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """Least detection cost over all thresholds, over that of the better blind decision; in [0, 1].

    cost = c_miss FRR p_target + c_fa FAR (1 - p_target), divided by min(c_miss p_target, c_fa (1 - p_target)), as in
    the speaker recognition evaluations of NIST.
    """
    rates = _rates(scores_N, same_N)
    if rates is None:
        return math.nan
    accepted, refused = rates
    miss, false_alarm = c_miss * p_target, c_fa * (1 - p_target)
    return float(np.min(miss * refused + false_alarm * accepted) / min(miss, false_alarm))


def _rates(scores_N: ArrayLike, same_N: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """FAR and FRR at falling thresholds, from accepting nothing to accepting everything."""
    scores, same = np.asarray(scores_N), np.asarray(same_N).astype(bool)
    if scores.shape != same.shape or scores.ndim != 1:
        raise ValueError(f"one score and one label for each pair; found {scores.shape} and {same.shape}")
    if not same.any() or same.all() or not np.isfinite(scores).all():
        return None
    from sklearn.metrics import roc_curve

    accepted, found, _ = roc_curve(same, scores)
    return accepted, 1 - found
