"""A batch as a backbone takes it. B clips, S input positions (frames or samples)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class ModelInput:
    """`values` (B, ...) for the backbone; `mask` (B, S) is True for what is recording and False for padding.

    `mask` is None where nothing is padded. What is done with it is up to the classifier: some backbones take it,
    others are only pooled with it.
    """

    values: Tensor
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> ModelInput:
        """The same batch on another device, its values in another number format."""
        values: Any = self.values.to(device=device, dtype=dtype)
        return ModelInput(values, None if self.mask is None else self.mask.to(device))


def real_positions(lengths: list[int], size: int, device: torch.device | str = "cpu") -> Tensor | None:
    """The mask (B, size) of clips that fill their first `lengths` positions; None when all fill all of them."""
    if min(lengths, default=size) >= size:
        return None
    return first_positions(lengths, size, device)


CLIPS_AT_ONCE_ON_CPU = 1
"""More than one clip does not stay in a processor's caches, and the padding of shorter ones is computed for nothing."""


def together(lengths: list[int], device: torch.device) -> list[slice]:
    """Which clips to compute at once: on a GPU all."""
    step = CLIPS_AT_ONCE_ON_CPU if device.type == "cpu" else max(1, len(lengths))
    return [slice(first, min(first + step, len(lengths))) for first in range(0, len(lengths), step)]


def first_positions(lengths: list[int], size: int, device: torch.device | str) -> Tensor:
    """Bool (B, size), True for the first `lengths` positions of each clip."""
    import torch

    return torch.arange(size, device=device) < torch.tensor(lengths, device=device)[:, None]
