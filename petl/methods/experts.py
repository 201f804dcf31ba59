"""The experts of a mixture as stacked tensors, so that no expert is computed in a loop.

Every expert i is a block A_i(x) = W_u,i f_i(W_d,i x + b_d,i) + b_u,i of `petl.methods.blocks`: the bottleneck with
f = gelu, the convpass or the conformer. Stacked, f is one block of E times the width whose groups are the experts.
The down-projections are drawn apart from one another. Bottleneck and convpass have up-projections that start at
zero, so the mixture starts as the zero function, and the different W_d,i pull the W_u,i apart from the first step on;
the conformer starts as published, with all maps drawn. B batch, N tokens, D model width, R bottleneck, E experts,
S slots.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl import plan
from petl.config import MoaOptions
from petl.layout import Layout, Tokens
from petl.methods.base import kaiming_uniform
from petl.methods.blocks.conformer import ConformerCore
from petl.methods.blocks.convpass import ConvpassCore
from petl.methods.blocks.initial import xavier_uniform


class _Stack(nn.Module):
    """Weights (E, R, D) and biases of one side of all experts.

    The biases are one vector, so that a rule by dimension (vectors are not decayed) takes them for biases.
    """

    def __init__(self, weight_ERD: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight_ERD)
        self.bias = nn.Parameter(bias)


class Experts(nn.Module):
    """E blocks of width R side by side; `down.bias` is (E·R,), or (E·2R,) for the conformer, `up.bias` (E·D,).

    `core` is f for all experts at once, absent for the bottleneck; `norm` holds the LayerNorms of conformers, E·D
    scales and shifts. `axis` is that of convolutions over tokens, "time" for those over slots.
    """

    def __init__(self, options: MoaOptions, hidden: int, axis: str, tokens: Tokens, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden, self.experts = hidden, options.experts
        self.width = width = plan.expert_width(options, hidden)
        experts, kernel = options.experts, plan.expert_kernel(options)
        shape = (experts, width, hidden)
        self.norm: _Stack | None = None
        self.core: nn.Module | None = None
        if options.expert == "conformer":
            self.norm = _Stack(torch.ones(experts * hidden), torch.zeros(experts * hidden))
            down = kaiming_uniform((experts, 2 * width, hidden), hidden, generator)
            self.down = _Stack(down, kaiming_uniform((experts * 2 * width,), hidden, generator))
            self.core = ConformerCore(width, kernel, axis, tokens, generator, experts)
            up = kaiming_uniform(shape, width, generator)
            self.up = _Stack(up, kaiming_uniform((experts * hidden,), width, generator))
            return
        if options.expert == "convpass":
            self.down = _Stack(xavier_uniform(shape, width + hidden, generator), torch.zeros(experts * width))
            discard = options.legacy_discard_conv
            self.core = ConvpassCore(width, kernel, axis, generator, experts=experts, discard_conv=discard)
        else:
            self.down = _Stack(kaiming_uniform(shape, hidden, generator), torch.zeros(experts * width))
        self.up = _Stack(torch.zeros(shape), torch.zeros(experts * hidden))

    def mixed(self, x_BND: Tensor, layout: Layout, router: nn.Linear) -> Tensor:
        """Σ_i p_i A_i(x) with p = softmax(router(x)) over experts: (B, N, D), every expert on every token.

        All experts are one block of width E·R whose hidden units are weighted by their expert's gate, and
        the biases b_u enter as p @ b_u. Router and down-projections share one matrix product, up-projections and
        biases another: on few hidden units it is the passes over the tokens that cost, not the arithmetic.
        """
        weight_ERD, bias = self._down()
        if self.norm is None:
            down = torch.cat([weight_ERD.flatten(0, 1), router.weight])
            joint = functional.linear(x_BND, down, torch.cat([bias, router.bias]))
            hidden, logits_BNE = joint.split([bias.numel(), self.experts], dim=-1)
        else:
            normed_BND = functional.layer_norm(x_BND, (self.hidden,))
            hidden, logits_BNE = functional.linear(normed_BND, weight_ERD.flatten(0, 1), bias), router(x_BND)
        gates_BNE = logits_BNE.softmax(dim=-1)
        active = functional.gelu(hidden) if self.core is None else self.core(hidden, layout)
        weighted = active.unflatten(-1, (self.experts, self.width)) * gates_BNE.unsqueeze(-1)
        up = torch.cat([self.up.weight.flatten(0, 1), self.up.bias.view(self.experts, -1)])
        return torch.cat([weighted.flatten(-2), gates_BNE], dim=-1) @ up

    def each(self, slots_BESD: Tensor) -> Tensor:
        """A_i on the slots of expert i, which are a sequence to it: (B, E, S, D) -> (B, E, S, D)."""
        batch, _, count, _ = slots_BESD.shape
        if self.norm is not None:
            slots_BESD = functional.layer_norm(slots_BESD, (self.hidden,))
        weight_ERD, bias = self._down()
        slots = slots_BESD.transpose(0, 1).flatten(1, 2)  # (E, B·S, D)
        hidden = torch.baddbmm(bias.view(self.experts, 1, -1), slots, weight_ERD.transpose(1, 2))
        if self.core is None:
            active = functional.gelu(hidden)
        else:
            side_by_side = hidden.unflatten(1, (batch, count)).permute(1, 2, 0, 3).flatten(2)  # (B, S, E·R)
            active = self.core(side_by_side, Layout.sequence(count))
            active = active.unflatten(2, (self.experts, self.width)).permute(2, 0, 1, 3).flatten(1, 2)
        out = torch.baddbmm(self.up.bias.view(self.experts, 1, -1), active, self.up.weight)
        return out.unflatten(1, (batch, -1)).transpose(0, 1)

    def _down(self) -> tuple[Tensor, Tensor]:
        """W_d (E, R, D) and b_d (E·R,), with the scale and shift of the LayerNorms in them where there are any.

        W (γ x̂ + β) + b = (W γ) x̂ + (W β + b): normalising is the same for all experts and is done once.
        """
        weight_ERD, bias = self.down.weight, self.down.bias
        if self.norm is None:
            return weight_ERD, bias
        scale_E1D = self.norm.weight.view(self.experts, 1, self.hidden)
        shift_ED1 = self.norm.bias.view(self.experts, self.hidden, 1)
        return weight_ERD * scale_E1D, bias + (weight_ERD @ shift_ED1).flatten()
