"""Tiny external attention: every token attends to U learned units (arXiv 2105.02358, in an early release of SURE).

M = softmax over tokens of W_k LayerNorm(x); then over units M ← M / Σ_u M; A(x) = W_v M. No biases; both matrices
start from N(0, 0.001). Padding takes no part in the softmax. B batch, N tokens, D model width, U units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petl.layout import Layout
from petl.methods.blocks.initial import linear, normal, zeroed

STD = 0.001


class TinyExternalAttention(nn.Module):
    """x_BND -> A(x)_BND, without a skip of its own."""

    def __init__(self, hidden: int, units: int, generator: torch.Generator, *, zero: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.keys = linear(normal((units, hidden), STD, generator), None)
        self.values = linear(normal((hidden, units), STD, generator), None)
        if zero:
            zeroed(self.values)

    def forward(self, x_BND: Tensor, layout: Layout) -> Tensor:
        logits_BNU = self.keys(self.norm(x_BND))
        mask_BN = layout.mask(x_BND)
        seen_BNU = logits_BNU
        if mask_BN is not None:
            lowest = torch.finfo(logits_BNU.dtype).min
            seen_BNU = logits_BNU.masked_fill(~mask_BN.unsqueeze(-1), lowest)
        # Both normalisations in logarithms: M itself underflows on long sequences, and 0 / 0 follows.
        log_BNU = logits_BNU - seen_BNU.logsumexp(dim=1, keepdim=True)
        return self.values(log_BNU.softmax(dim=-1))
