"""The mean of the weights over several epochs, to be judged in the place of the last epoch's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainables.config import TrainOptions

_COUNT = "count"
_MEAN = "mean/"


class WeightAverage:
    """Running mean, by name, of a model's stored tensors at the ends of the epochs `first` to `last` (None: the end).

    Sums are kept in float32 (float64 for float64 tensors) on the device of the tensors. Whole numbers, such as the
    count of batches that a BatchNorm has seen, are not averaged: the latest counts.
    """

    def __init__(self, first: int, last: int | None = None) -> None:
        self.first = first
        self.last = last
        self.count = 0
        self._means: dict[str, Tensor] = {}
        self._dtypes: dict[str, torch.dtype] = {}

    @classmethod
    def of(cls, options: TrainOptions) -> Self | None:
        """The average that `train.average_first` and `train.average_last` ask for; None when they ask for none."""
        return None if options.average_first is None else cls(options.average_first, options.average_last)

    def update(self, epoch: int, tensors: Mapping[str, Tensor]) -> bool:
        """Take in the weights after `epoch`, if it is one of those averaged; whether it was."""
        if epoch < self.first or (self.last is not None and epoch > self.last):
            return False
        self.count += 1
        for name, tensor in tensors.items():
            self._dtypes[name] = tensor.dtype
            if not tensor.is_floating_point() or name not in self._means:
                self._means[name] = tensor.detach().to(_wide(tensor.dtype), copy=True)
            else:
                mean = self._means[name]
                mean.add_(tensor.detach().to(mean.dtype) - mean, alpha=1 / self.count)
        return True

    def averages(self) -> dict[str, Tensor]:
        """Copies of the means, in the tensors' own dtypes; empty before the first averaged epoch."""
        return {name: mean.to(self._dtypes.get(name, mean.dtype), copy=True) for name, mean in self._means.items()}

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold: the means themselves (no copies) and how many epochs they are of."""
        if not self.count:
            return {}
        return {_COUNT: torch.tensor(self.count), **{_MEAN + name: mean for name, mean in self._means.items()}}

    def restore(self, tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
        """Go on from `tensors()` of a checkpoint; devices and dtypes are those of the model's tensors, `like`."""
        self.count = int(tensors[_COUNT]) if _COUNT in tensors else 0
        self._means, self._dtypes = {}, {}
        for key, mean in tensors.items():
            if key.startswith(_MEAN):
                name = key.removeprefix(_MEAN)
                self._means[name] = mean.to(like[name].device, copy=True)
                self._dtypes[name] = like[name].dtype


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype that means of `dtype` are kept in."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
