"""Dense-MoA: every expert on every token, weighted by a softmax router (arXiv 2402.00828).

p = softmax(W_r x + b_r) over experts, per token; Y = Σ_i p_i A_i(x). No load-balancing loss and no top-k.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petl import plan
from petl.config import MethodConfig
from petl.methods.base import Addition, SiteMap, kaiming_uniform
from petl.methods.experts import Experts
from petl.methods.mixture import build_mixture


class DenseMoa(nn.Module):
    """x_BND -> Σ_i p_i(x) A_i(x), (B, N, D)."""

    def __init__(self, hidden: int, width: int, experts: int, generator: torch.Generator) -> None:
        super().__init__()
        self.router = nn.utils.skip_init(nn.Linear, hidden, experts)
        with torch.no_grad():
            self.router.weight.copy_(kaiming_uniform((experts, hidden), hidden, generator))
            self.router.bias.zero_()
        self.experts = Experts(hidden, width, experts, generator)

    def forward(self, x_BND: Tensor) -> Tensor:
        return self.experts.mixed(x_BND, self.router)


def build(config: MethodConfig, sites: SiteMap, generator: torch.Generator) -> list[Addition]:
    """One mixture per adapted layer and site, named `dense_moa`."""
    width = plan.expert_width(config.moa, sites.hidden)

    def mixture() -> DenseMoa:
        return DenseMoa(sites.hidden, width, config.moa.experts, generator)

    return build_mixture(config, sites, "dense_moa", mixture)
