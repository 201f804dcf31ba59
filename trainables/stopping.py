"""Which epoch is the best one, and when to stop waiting for a better one (torch-free)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class EarlyStopping:
    """Follows the monitored metric over the epochs.

    An epoch is better when its value is finite and strictly above (mode "max") or below ("min") the best so far: of
    equal epochs the first one counts. After `patience` epochs in a row that are not better, `stop` is true; with
    patience None it never is.
    """

    def __init__(self, mode: str, patience: int | None = None) -> None:
        self.mode = mode
        self.patience = patience
        self.best: float | None = None
        self.waited = 0

    def update(self, value: float) -> bool:
        """Take in the next epoch's value; whether it is the best so far."""
        better = math.isfinite(value) and (
            self.best is None or (value > self.best if self.mode == "max" else value < self.best)
        )
        self.best = value if better else self.best
        self.waited = 0 if better else self.waited + 1
        return better

    @property
    def stop(self) -> bool:
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """What a checkpoint's `meta` must hold: plain numbers."""
        return {"best": self.best, "waited": self.waited}

    def restore(self, meta: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's `meta`; one from before there was a patience has no `waited`."""
        self.best = meta["best"]
        self.waited = int(meta.get("waited", 0))
