"""The conv block: SURE's ConvAdapter (arXiv 2303.03267).

h = C_3(C_2(ReLU(C_1(LayerNorm(x))))) with three convolutions without bias: C_1 D -> M with kernel 3 in M groups, C_2
depthwise with kernel k (0 leaves it out), C_3 M -> D with kernel 3 in M groups. With the squeeze-excite gate
A(x) = h · σ(W_2 ReLU(W_1 s)), s the mean of h over the patches or frames that are no padding, W_1 (D/16, D).
Convolutions are drawn Kaiming-normal and the gate's maps from N(0, 0.02), so the block is no zero function at the
start unless `init: zero` sets C_3 to zero. B batch, N tokens, D model width, M middle width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl import plan
from petl.layout import Layout
from petl.methods.blocks.axis import TokenConv, kernel_shape, mean_of_body
from petl.methods.blocks.initial import kaiming_normal, linear, normal, zeroed

OUTER_KERNEL = 3
GATE_STD = 0.02


class Gate(nn.Module):
    """Squeeze and excite: x · σ(W_2 ReLU(W_1 mean(x))), one factor per clip and channel."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        squeezed = max(1, channels // plan.GATE_REDUCTION)
        self.squeeze = linear(normal((squeezed, channels), GATE_STD, generator), None)
        self.excite = linear(normal((channels, squeezed), GATE_STD, generator), None)

    def forward(self, x_BND: Tensor, layout: Layout) -> Tensor:
        mean_BD = mean_of_body(x_BND, layout)
        gate_BD = torch.sigmoid(self.excite(functional.relu(self.squeeze(mean_BD))))
        return x_BND * gate_BD.unsqueeze(1)


class Conv(nn.Module):
    """x_BND -> A(x)_BND, without a skip of its own; `width` M divides `hidden` D."""

    def __init__(
        self,
        hidden: int,
        width: int,
        kernel: int,
        axis: str,
        generator: torch.Generator,
        *,
        gate: bool = True,
        dropout: float = 0.0,
        zero: bool = False,
    ) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, size: int) -> TokenConv:
            weight = kaiming_normal((outputs, inputs // width, *kernel_shape(size, axis)), generator)
            return TokenConv(weight, None, axis, groups=width)

        self.norm = nn.LayerNorm(hidden)
        self.down = conv(hidden, width, OUTER_KERNEL)
        self.middle = conv(width, width, kernel) if kernel else None
        self.up = conv(width, hidden, OUTER_KERNEL)
        self.gate = Gate(hidden, generator) if gate else None
        self.dropout = nn.Dropout(dropout)
        if zero:
            zeroed(self.up)

    def forward(self, x_BND: Tensor, layout: Layout) -> Tensor:
        h_BNM = functional.relu(self.down(self.norm(x_BND), layout))
        if self.middle is not None:
            h_BNM = self.middle(h_BNM, layout)
        h_BND = self.up(h_BNM, layout)
        if self.gate is not None:
            h_BND = self.gate(h_BND, layout)
        return self.dropout(h_BND)
