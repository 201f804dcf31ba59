"""Adapters at the sub-layers or around the layer: how the blocks of `petl.methods.blocks` are joined to the backbone.

The joins are those of `petl.config.AdapterOptions`. Two of the published placements are one function: with the
adapter after the sub-layer and its residual on, parallel is F(u) + A(F(u)) and so is sequential. With W_u = 0 a
sequential adapter without residual deletes the pretrained sub-layer at the start, which is why `residual` is on by
default where the published default is off.

`location: layer` acts on the whole layer L: sequential is L(X) + A(L(X)) (SURE's output adapter), parallel is
L(X) + A(X).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petl import plan
from petl.config import AdapterOptions, MethodConfig
from petl.families import Block
from petl.layout import Layout
from petl.methods.base import Attachment, Join, SiteMap, joined
from petl.methods.blocks import adapter_block


class Parallel(Join):
    """F(u) + A(u) (+ u): the module runs beside the block and sees its input."""

    def __init__(self, module: nn.Module, adds_input: bool = False) -> None:
        self.module, self.adds_input = module, adds_input

    def after(self, u_BND: Tensor, y_BND: Tensor, layout: Layout) -> Tensor:
        y_BND = y_BND + self.module(u_BND, layout)
        return y_BND + u_BND if self.adds_input else y_BND


class Sequential(Join):
    """A(F(u)) (+ F(u)): the module runs on the block's output."""

    def __init__(self, module: nn.Module, adds_input: bool = True) -> None:
        self.module, self.adds_input = module, adds_input

    def after(self, u_BND: Tensor, y_BND: Tensor, layout: Layout) -> Tensor:
        added_BND = self.module(y_BND, layout)
        return y_BND + added_BND if self.adds_input else added_BND


class SequentialBefore(Join):
    """F(v) + A(u) with v = A(u) (+ u): the module runs on the block's input, and its output is added again."""

    def __init__(self, module: nn.Module, adds_input: bool = True) -> None:
        self.module, self.adds_input = module, adds_input
        self._added: Tensor | None = None

    def before(self, u_BND: Tensor, layout: Layout) -> Tensor:
        self._added = self.module(u_BND, layout)
        return self._added + u_BND if self.adds_input else self._added

    def forget(self) -> None:
        self._added = None

    def after(self, u_BND: Tensor, y_BND: Tensor, layout: Layout) -> Tensor:
        added_BND, self._added = self._added, None
        assert added_BND is not None
        return y_BND + added_BND


class Hydra(Join):
    """F(u) + A_s(F(u)) + A_p(u)."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def after(self, u_BND: Tensor, y_BND: Tensor, layout: Layout) -> Tensor:
        return y_BND + self.pair.sequential(y_BND, layout) + self.pair.parallel(u_BND, layout)


class Pair(nn.Module):
    """The two adapters of a hydra placement."""

    def __init__(self, sequential: nn.Module, parallel: nn.Module) -> None:
        super().__init__()
        self.sequential, self.parallel = sequential, parallel


def build(config: MethodConfig, sites: SiteMap, generator: torch.Generator) -> list[Attachment]:
    """One adapter (two for hydra) per adapted layer and site, named `adapter`."""
    options = config.adapter
    attachments: list[Attachment] = []
    for layer in sites.adapted(config):
        for site in plan.adapter_sites(options):
            way = _join(options, site, sites, generator)
            if site == "layer":
                path = sites.family.layer(layer)
                block = Block(path, path, "")
            else:
                block = sites.block(layer, site)
            module = way.pair if isinstance(way, Hydra) else way.module  # type: ignore[attr-defined]
            attachments += joined(block, "adapter", module, way, sites.tokens)
    return attachments


def _join(options: AdapterOptions, site: str, sites: SiteMap, generator: torch.Generator) -> Join:
    def block() -> nn.Module:
        return adapter_block(options, sites.hidden, sites.tokens, generator)

    if options.placement == "hydra":
        return Hydra(Pair(block(), block()))
    if options.placement == "mixed":
        return Sequential(block(), options.adds_input) if site == "attention" else Parallel(block())
    if options.placement == "parallel":
        # After the sub-layer its own output is kept: F(u) + A(F(u)).
        return Parallel(block(), options.adds_input) if options.where == "before" else Sequential(block(), True)
    if options.where == "before":
        return SequentialBefore(block(), options.adds_input)
    return Sequential(block(), options.adds_input)
