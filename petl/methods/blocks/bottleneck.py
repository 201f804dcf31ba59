"""The bottleneck block: A(x) = W_u act(W_d x + b_d) + b_u (Houlsby et al. 2019, arXiv 1902.00751).

W_d is drawn as torch draws a linear map; W_u and both biases start at zero, so the block starts as the zero
function and all its parameters but W_d and b_d receive a gradient at the first step (those follow at the
second). `adapter.init: published` draws both matrices from N(0, 0.02), which is what the code of SURE does and what
the other published code ends up with. B batch, N tokens, D model width, R bottleneck.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl.layout import Layout
from petl.methods.base import kaiming_uniform

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": functional.gelu, "relu": functional.relu}
PUBLISHED_STD = 0.02


class Bottleneck(nn.Module):
    """x_BND -> A(x)_BND, without a skip of its own."""

    def __init__(
        self,
        hidden: int,
        width: int,
        generator: torch.Generator,
        *,
        activation: str = "gelu",
        dropout: float = 0.0,
        zero: bool = True,
    ) -> None:
        super().__init__()
        self.down = nn.utils.skip_init(nn.Linear, hidden, width)
        self.up = nn.utils.skip_init(nn.Linear, width, hidden)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        with torch.no_grad():
            if zero:
                self.down.weight.copy_(kaiming_uniform((width, hidden), hidden, generator))
                self.up.weight.zero_()
            else:
                for linear in (self.down, self.up):
                    shape = linear.weight.shape
                    linear.weight.copy_(torch.empty(shape).normal_(0, PUBLISHED_STD, generator=generator))
            self.down.bias.zero_()
            self.up.bias.zero_()

    def forward(self, x_BND: Tensor, layout: Layout) -> Tensor:
        return self.up(self.dropout(ACTIVATIONS[self.activation](self.down(x_BND))))
