"""Several labels for each clip, one of each kind, such as action, object and location (B clips, K slots)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def multi_slot(predicted_BK: Tensor, targets_BK: Tensor) -> dict[str, float]:
    """exact_match (share of clips with every slot right) and accuracy (mean over the slots); NaN without clips."""
    right_BK = _right(predicted_BK, targets_BK)
    if not right_BK.numel():
        return {"exact_match": math.nan, "accuracy": math.nan}
    return {
        "exact_match": float(right_BK.all(dim=1).double().mean()),
        "accuracy": float(right_BK.double().mean()),
    }


def per_slot(predicted_BK: Tensor, targets_BK: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Name of each of the K slots -> share of clips in which it is right; NaN without clips."""
    return dict(zip(names, _right(predicted_BK, targets_BK).double().mean(dim=0).tolist(), strict=True))


def _right(predicted_BK: Tensor, targets_BK: Tensor) -> Tensor:
    if predicted_BK.shape != targets_BK.shape or predicted_BK.ndim != 2:
        found = f"{tuple(predicted_BK.shape)} and {tuple(targets_BK.shape)}"
        raise ValueError(f"predicted and true class numbers are both (clips, slots); found {found}")
    return predicted_BK == targets_BK
