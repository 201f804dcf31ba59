"""The Pareto front of a cost to keep small against a score (torch-free)."""

from __future__ import annotations

import math
from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]], *, maximise: bool = True) -> list[int]:
    """Indices of the `(cost, score)` points that no other point dominates, cheapest first.

    A point dominates another when it costs no more, scores no worse and is better in one of the two. Equal
    points stay together. Points with a value that is not finite are left out.
    """
    sign = -1.0 if maximise else 1.0
    loss = [(cost, sign * score) for cost, score in points]
    order = sorted((i for i, p in enumerate(loss) if all(map(math.isfinite, p))), key=lambda i: loss[i])
    front: list[int] = []
    for i in order:
        # Sorted by cost, then by loss: whatever dominates i has been seen, and the last of the front is the
        # lowest loss so far.
        if not front or loss[i][1] < loss[front[-1]][1] or loss[i] == loss[front[-1]]:
            front.append(i)
    return front
