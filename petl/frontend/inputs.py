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


def real_positions(lengths: list[int], size: int) -> Tensor | None:
    """The mask (B, size) of clips that fill their first `lengths` positions; None when all fill all of them."""
    import torch

    if min(lengths, default=size) >= size:
        return None
    return torch.arange(size) < torch.tensor(lengths)[:, None]
