"""Bottleneck adapters at the sub-layers or around the layer (published-code placements, PETL_AST and SURE).

With u the normalised input of a sub-layer F (attention or feed-forward) and X its residual:

* parallel: X + F(u) + A(u), with `residual` also + u (the published flag adds the *normalised* input);
* sequential: X + A(F(u)) + F(u). With `residual: false` the sub-layer's output is replaced by A's, as the
  published default does; with W_u = 0 this deletes the pretrained sub-layer at the start, which is why
  `residual` is on by default here.

`location: layer` acts on the whole layer L: sequential is L(X) + A(L(X)) (SURE's output adapter), parallel is
L(X) + A(X).
"""

from __future__ import annotations

import torch

from petl import plan
from petl.config import MethodConfig
from petl.methods.base import Addition, Parallel, Sequential, SiteMap
from petl.methods.bottleneck import Bottleneck


def build(config: MethodConfig, sites: SiteMap, generator: torch.Generator) -> list[Addition]:
    """One bottleneck per adapted layer and site, named `adapter`."""
    options = config.adapter
    wiring = Parallel if options.placement == "parallel" else Sequential
    width = plan.adapter_width(options, sites.hidden)
    additions = []
    for layer in sites.adapted(config):
        for site in plan.adapter_sites(options):
            block = Bottleneck(sites.hidden, width, options.activation, generator)
            hook = wiring(block, options.adds_input)
            additions.append(Addition(sites.family.path(layer, site), "adapter", block, hook))
    return additions
