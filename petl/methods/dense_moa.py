"""Dense-MoA: every expert on every token, weighted by a softmax router (arXiv 2402.00828).

p = softmax(W_r x + b_r) over experts, per token; Y = Σ_i p_i A_i(x). No load-balancing loss and no top-k. Experts
that convolve do so over all tokens, along `moa.axis`, before they are weighted. B batch, N tokens, D model width,
E experts.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petl.config import MethodConfig, MoaOptions
from petl.layout import Layout, Tokens
from petl.methods.base import Attachment, SiteMap, kaiming_uniform
from petl.methods.blocks.initial import linear
from petl.methods.experts import Experts
from petl.methods.mixture import build_mixture


class DenseMoa(nn.Module):
    """x_BND -> Σ_i p_i(x) A_i(x), (B, N, D)."""

    def __init__(self, options: MoaOptions, hidden: int, tokens: Tokens, generator: torch.Generator) -> None:
        super().__init__()
        experts = options.experts
        self.router = linear(kaiming_uniform((experts, hidden), hidden, generator), torch.zeros(experts))
        self.experts = Experts(options, hidden, options.axis, tokens, generator)

    def forward(self, x_BND: Tensor, layout: Layout) -> Tensor:
        return self.experts.mixed(x_BND, layout, self.router)


def build(config: MethodConfig, sites: SiteMap, generator: torch.Generator) -> list[Attachment]:
    """One mixture per adapted layer and site, named `dense_moa`."""

    def mixture() -> DenseMoa:
        return DenseMoa(config.moa, sites.hidden, sites.tokens, generator)

    return build_mixture(config, sites, "dense_moa", mixture)
