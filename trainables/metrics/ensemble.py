"""The mean of the outputs of all epochs so far, judged in place of the last epoch's (B clips, C classes).

No option of a trial uses it: it is for whoever judges epochs one by one. AAT logs such a cumulative score beside that
of each epoch, from sigmoid outputs throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass
class EpochEnsemble:
    """Adds up one split's outputs, epoch by epoch; the clips come in the same order each time.

    `total_BC` and `epochs` are all there is to keep for resuming.
    """

    outputs: Literal["sigmoid", "softmax"] = "sigmoid"
    total_BC: Tensor | None = None  # float64
    epochs: int = 0

    def add(self, logits_BC: Tensor) -> Tensor:
        """Count one more epoch; returns `mean_BC` with it.

        Raises:
            ValueError: when the shape is not that of the epochs before.
        """
        logits = logits_BC.detach().double()
        outputs_BC = logits.sigmoid() if self.outputs == "sigmoid" else logits.softmax(dim=1)
        if self.total_BC is not None and self.total_BC.shape != outputs_BC.shape:
            raise ValueError(f"outputs are {tuple(outputs_BC.shape)}, earlier epochs' {tuple(self.total_BC.shape)}")
        self.total_BC = outputs_BC if self.total_BC is None else self.total_BC + outputs_BC
        self.epochs += 1
        return self.mean_BC

    @property
    def mean_BC(self) -> Tensor:
        """Mean output over the epochs so far, float64 in [0, 1]; its logarithm stands in for logits.

        Raises:
            ValueError: before the first epoch.
        """
        if self.total_BC is None:
            raise ValueError("no epoch has been added yet")
        return self.total_BC / self.epochs
