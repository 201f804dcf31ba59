"""The experts of a mixture as stacked tensors, so that no expert is computed in a loop.

Every expert i is a bottleneck A_i(x) = W_u,i gelu(W_d,i x + b_d,i) + b_u,i. The down-projections are drawn
apart from one another and the up-projections start at zero: the mixture starts as the zero function, and the
different W_d,i pull the W_u,i apart from the first step on. B batch, N tokens, D model width, R bottleneck,
E experts, S slots.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl.methods.base import kaiming_uniform


class _Stack(nn.Module):
    """Weights (E, R, D) and biases of one side of all experts.

    The biases are one vector, so that a rule by dimension (vectors are not decayed) takes them for biases.
    """

    def __init__(self, weight_ERD: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_ERD)
        self.bias = nn.Parameter(bias)


class Experts(nn.Module):
    """E bottlenecks of width R side by side; `down.bias` is (E·R,), `up.bias` (E·D,)."""

    def __init__(self, hidden: int, width: int, experts: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden, self.width, self.experts = hidden, width, experts
        shape = (experts, width, hidden)
        self.down = _Stack(kaiming_uniform(shape, hidden, generator), torch.zeros(experts * width))
        self.up = _Stack(torch.zeros(shape), torch.zeros(experts * hidden))

    def mixed(self, x_BND: Tensor, router: nn.Linear) -> Tensor:
        """Σ_i p_i A_i(x) with p = softmax(router(x)) over experts: (B, N, D), every expert on every token.

        All experts are one bottleneck of width E·R whose hidden units are weighted by their expert's gate, and
        the biases b_u enter as p @ b_u. Router and down-projections share one matrix product, up-projections and
        biases another: on few hidden units it is the passes over the tokens that cost, not the arithmetic.
        """
        down = torch.cat([self.down.weight.flatten(0, 1), router.weight])
        bias = torch.cat([self.down.bias, router.bias])
        joint = functional.linear(x_BND, down, bias)
        hidden, logits_BNE = joint.split([self.experts * self.width, self.experts], dim=-1)
        gates_BNE = logits_BNE.softmax(dim=-1)
        weighted = functional.gelu(hidden).unflatten(-1, (self.experts, self.width)) * gates_BNE.unsqueeze(-1)
        up = torch.cat([self.up.weight.flatten(0, 1), self.up.bias.view(self.experts, -1)])
        return torch.cat([weighted.flatten(-2), gates_BNE], dim=-1) @ up

    def each(self, slots_BESD: Tensor) -> Tensor:
        """A_i on the slots of expert i: (B, E, S, D) -> (B, E, S, D)."""
        batch = slots_BESD.shape[0]
        slots = slots_BESD.transpose(0, 1).flatten(1, 2)  # (E, B·S, D)
        hidden = torch.baddbmm(self.down.bias.view(self.experts, 1, -1), slots, self.down.weight.transpose(1, 2))
        out = torch.baddbmm(self.up.bias.view(self.experts, 1, -1), functional.gelu(hidden), self.up.weight)
        return out.unflatten(1, (batch, -1)).transpose(0, 1)
