"""The convpass block: a convolution inside the bottleneck (arXiv 2207.07039).

A(x) = W_u Drop(φ(conv(φ(W_d x + b_d)))) + b_u with φ(z) = z σ(1.702 z) and a full convolution R -> R with bias.
W_d and the convolution are drawn Xavier-uniform, biases and W_u start at zero; `init: published` draws W_u from
N(0, 0.02), which is what the published code ends up with. That code also computes the convolution and drops it:
with `legacy_discard_conv` there is none, and A(x) = W_u Drop(φ(φ(W_d x + b_d))) + b_u.
B batch, N tokens, D model width, R bottleneck, E experts side by side (1 in an adapter).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from petl.layout import Layout
from petl.methods.blocks.axis import TokenConv, kernel_shape
from petl.methods.blocks.initial import linear, normal, xavier_uniform

DROPOUT = 0.1
PUBLISHED_STD = 0.02


class ConvpassCore(nn.Module):
    """What lies between W_d and W_u: (B, N, E·R) -> (B, N, E·R)."""

    def __init__(
        self,
        width: int,
        kernel: int,
        axis: str,
        generator: torch.Generator,
        *,
        experts: int = 1,
        dropout: float = DROPOUT,
        discard_conv: bool = False,
    ) -> None:
        super().__init__()
        self.conv: TokenConv | None = None
        if not discard_conv:
            channels, area = experts * width, kernel_shape(kernel, axis)
            weight = xavier_uniform((channels, width, *area), 2 * width * math.prod(area), generator)
            self.conv = TokenConv(weight, torch.zeros(channels), axis, groups=experts)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        hidden = quick_gelu(hidden)
        if self.conv is not None:
            hidden = self.conv(hidden, layout)
        return self.dropout(quick_gelu(hidden))


class Convpass(nn.Module):
    """x_BND -> A(x)_BND, without a skip of its own."""

    def __init__(
        self,
        hidden: int,
        width: int,
        kernel: int,
        axis: str,
        generator: torch.Generator,
        *,
        dropout: float = DROPOUT,
        zero: bool = True,
        discard_conv: bool = False,
    ) -> None:
        super().__init__()
        self.down = linear(xavier_uniform((width, hidden), width + hidden, generator), torch.zeros(width))
        self.core = ConvpassCore(width, kernel, axis, generator, dropout=dropout, discard_conv=discard_conv)
        shape = (hidden, width)
        up = torch.zeros(shape) if zero else normal(shape, PUBLISHED_STD, generator)
        self.up = linear(up, torch.zeros(hidden))

    def forward(self, x_BND: Tensor, layout: Layout) -> Tensor:
        return self.up(self.core(self.down(x_BND), layout))


def quick_gelu(x: Tensor) -> Tensor:
    """x σ(1.702 x)."""
    return x * torch.sigmoid(1.702 * x)
