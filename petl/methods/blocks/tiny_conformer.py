"""Tiny conformer: a narrow conv block and tiny attention between two linear maps (an early release of SURE).

z = Drop(φ(W_1 LayerNorm(x) + b_1)), φ(z) = z σ(z); z ← z + ConvAdapter(z); z ← z + TinyAttention(z);
A(x) = Drop(φ(W_2 LayerNorm(z) + b_2)). The conv block has half the width R in its middle (one group where R is odd),
kernels 3, 5 and 3 and a gate. W_1 is drawn Xavier-uniform with b_1 = 0, W_2 as torch draws a linear map; `init: zero`
sets W_2 and b_2 to zero. Dropout 0.1. B batch, N tokens, D model width, R bottleneck.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl.layout import Layout
from petl.methods.blocks.conv import Conv
from petl.methods.blocks.initial import linear, torch_linear, xavier_uniform, zeroed
from petl.methods.blocks.tiny_attention import TinyAttention

DROPOUT = 0.1
KERNEL = 5


class TinyConformer(nn.Module):
    """x_BND -> A(x)_BND, without a skip of its own."""

    def __init__(
        self,
        hidden: int,
        width: int,
        axis: str,
        generator: torch.Generator,
        *,
        dropout: float = DROPOUT,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.down = linear(xavier_uniform((width, hidden), width + hidden, generator), torch.zeros(width))
        self.conv = Conv(width, width // 2 if width % 2 == 0 else 1, KERNEL, axis, generator)
        self.attention = TinyAttention(width, generator, dropout=dropout)
        self.last_norm = nn.LayerNorm(width)
        self.up = torch_linear(width, hidden, generator)
        self.dropout = nn.Dropout(dropout)
        if zero:
            zeroed(self.up)

    def forward(self, x_BND: Tensor, layout: Layout) -> Tensor:
        z_BNR = self.dropout(functional.silu(self.down(self.norm(x_BND))))
        z_BNR = z_BNR + self.conv(z_BNR, layout)
        z_BNR = z_BNR + self.attention(z_BNR, layout)
        return self.dropout(functional.silu(self.up(self.last_norm(z_BNR))))
