"""The conformer block: the convolution module of a Conformer as an adapter (arXiv 2312.03694).

A(x) = W_u SiLU(BatchNorm(conv(GLU(W_d LayerNorm(x) + b_d)))) + b_u, with W_d (2R, D), a depthwise convolution with
bias, and dropout (0) at the end. All maps start as torch draws them, so the block is no zero function at the start
unless `init: zero` sets W_u and b_u to zero. `layernorm: false` leaves the LayerNorm out, which is what the published
code computes on an AST. B batch, N tokens, D model width, R bottleneck, E experts side by side (1 in an adapter).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl.layout import Layout, Tokens
from petl.methods.base import kaiming_uniform
from petl.methods.blocks.axis import TokenConv, kernel_shape
from petl.methods.blocks.batchnorm import TokenBatchNorm
from petl.methods.blocks.initial import torch_linear, zeroed


class ConformerCore(nn.Module):
    """What lies between W_d and W_u: (B, N, E·2R) -> (B, N, E·R)."""

    def __init__(
        self, width: int, kernel: int, axis: str, tokens: Tokens, generator: torch.Generator, experts: int = 1
    ) -> None:
        super().__init__()
        self.experts = experts
        channels, area = experts * width, kernel_shape(kernel, axis)
        weight = kaiming_uniform((channels, 1, *area), math.prod(area), generator)
        bias = kaiming_uniform((channels,), math.prod(area), generator)
        self.conv = TokenConv(weight, bias, axis, groups=channels)
        self.batch_norm = TokenBatchNorm(channels, tokens)

    def forward(self, hidden: Tensor, layout: Layout) -> Tensor:
        gated = functional.glu(hidden.unflatten(-1, (self.experts, -1)), dim=-1).flatten(-2)
        return functional.silu(self.batch_norm(self.conv(gated, layout), layout))


class Conformer(nn.Module):
    """x_BND -> A(x)_BND, without a skip of its own."""

    def __init__(
        self,
        hidden: int,
        width: int,
        kernel: int,
        axis: str,
        tokens: Tokens,
        generator: torch.Generator,
        *,
        layernorm: bool = True,
        dropout: float = 0.0,
        zero: bool = False,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden) if layernorm else None
        self.down = torch_linear(hidden, 2 * width, generator)
        self.core = ConformerCore(width, kernel, axis, tokens, generator)
        self.up = torch_linear(width, hidden, generator)
        self.dropout = nn.Dropout(dropout)
        if zero:
            zeroed(self.up)

    def forward(self, x_BND: Tensor, layout: Layout) -> Tensor:
        if self.norm is not None:
            x_BND = self.norm(x_BND)
        return self.dropout(self.up(self.core(self.down(x_BND), layout)))
