"""Soft-MoA: experts work on soft slots, weighted averages of all tokens (arXiv 2402.00828, after 2308.00951).

With Φ (D, E, S): logits L = x Φ; dispatch = softmax of L over tokens; combine = softmax of L over all slots.
Slots X̃ = dispatchᵀ x; Ỹ_i = A_i(X̃_i); Y = combine Ỹ. The experts see E·S slots in place of N tokens; one that
convolves does so along its own S slots. Slots take nothing from padding. B batch, N tokens, D model width, E experts,
S slots, K = E·S.

`moa.normalize` bounds the logits:

* `none`: as above;
* `soft_moe`: the Soft-MoE paper. L = (x / ‖x‖) · g Φ / ‖Φ‖_D with a learned scale g (1 at the start); the
  slots average the x that is not normalised;
* `published`: what the Soft-MoA code does. Φ is normalised over the *experts* axis instead of D, and the
  slots average the *normalised* x, which makes them tiny beside those of the other two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from petl.config import MethodConfig, MoaOptions
from petl.layout import Layout, Tokens
from petl.methods.base import Attachment, SiteMap
from petl.methods.experts import Experts
from petl.methods.mixture import build_mixture

EPS = 1e-6


class SoftMoa(nn.Module):
    """x_BND -> combine · experts(dispatchᵀ x), (B, N, D)."""

    def __init__(self, options: MoaOptions, hidden: int, tokens: Tokens, generator: torch.Generator) -> None:
        super().__init__()
        self.normalize, experts, slots = options.normalize, options.experts, options.slots
        # Xavier-normal as torch counts the fans of a (D, E, S) tensor: E·S in, D·S out.
        deviation = math.sqrt(2 / (slots * (experts + hidden)))
        self.phi = nn.Parameter(torch.empty(hidden, experts, slots).normal_(0, deviation, generator=generator))
        self.scale = nn.Parameter(torch.ones(1)) if self.normalize != "none" else None
        self.experts = Experts(options, hidden, "time", tokens, generator)

    def forward(self, x_BND: Tensor, layout: Layout) -> Tensor:
        phi_DES: Tensor = self.phi
        routed_BND = x_BND
        if self.scale is not None:
            routed_BND = _unit(x_BND, -1)
            phi_DES = self.scale * _unit(self.phi, 0 if self.normalize == "soft_moe" else 1)
        slotted_BND = routed_BND if self.normalize == "published" else x_BND
        logits_BNK = routed_BND @ phi_DES.flatten(1)
        dispatch_BNK = _seen(logits_BNK, layout.mask(x_BND)).softmax(dim=1)
        combine_BNK = logits_BNK.softmax(dim=2)
        slots_BKD = dispatch_BNK.transpose(1, 2) @ slotted_BND
        out_BESD = self.experts.each(slots_BKD.unflatten(1, phi_DES.shape[1:]))
        return combine_BNK @ out_BESD.flatten(1, 2)


def build(config: MethodConfig, sites: SiteMap, generator: torch.Generator) -> list[Attachment]:
    """One mixture per adapted layer and site, named `soft_moa`."""

    def mixture() -> SoftMoa:
        return SoftMoa(config.moa, sites.hidden, sites.tokens, generator)

    return build_mixture(config, sites, "soft_moa", mixture)


def _unit(x: Tensor, dim: int) -> Tensor:
    return x / (x.norm(dim=dim, keepdim=True) + EPS)


def _seen(logits_BNK: Tensor, mask_BN: Tensor | None) -> Tensor:
    """Logits that give padding no weight in a softmax over tokens."""
    if mask_BN is None:
        return logits_BNK
    # Not -inf: a clip that is padding alone would become NaN.
    return logits_BNK.masked_fill(~mask_BN.unsqueeze(-1), torch.finfo(logits_BNK.dtype).min)
