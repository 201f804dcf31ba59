"""How mixtures are wired: parallel to a sub-layer, X̂ = X + MHSA(u) + MoA(u), likewise at the feed-forward.

`moa.legacy_double_add` repeats what the published code does when the only site is the attention: the
mixture's output is added once more to the layer's output, X' = X̂ + FFN(v) + MoA(u).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from petl import plan
from petl.config import MethodConfig
from petl.layout import Layout
from petl.methods.adapter import Parallel
from petl.methods.base import Attachment, Join, SiteMap, joined


class _Remembering(Join):
    """`Parallel` that keeps the module's output until `_AddAgain` takes it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.kept: Tensor | None = None

    def forget(self) -> None:
        self.kept = None

    def after(self, u_BND: Tensor, y_BND: Tensor, layout: Layout) -> Tensor:
        self.kept = self.module(u_BND, layout)
        return y_BND + self.kept


class _AddAgain(Join):
    """Adds the remembered output to the feed-forward's, which the layer adds to its residual."""

    def __init__(self, memory: _Remembering) -> None:
        self.memory = memory

    def after(self, u_BND: Tensor, y_BND: Tensor, layout: Layout) -> Tensor:
        kept, self.memory.kept = self.memory.kept, None
        return y_BND if kept is None else y_BND + kept


def build_mixture(
    config: MethodConfig, sites: SiteMap, name: str, mixture: Callable[[], nn.Module]
) -> list[Attachment]:
    """One `mixture()` per adapted layer and site."""
    twice = config.moa.legacy_double_add and config.moa.location == "attention"
    attachments: list[Attachment] = []
    for layer in sites.adapted(config):
        for site in plan.moa_sites(config.moa):
            module = mixture()
            way = _Remembering(module) if twice else Parallel(module)
            attachments += joined(sites.block(layer, site), name, module, way, sites.tokens)
            if isinstance(way, _Remembering):
                attachments += joined(sites.block(layer, "ffn"), name, None, _AddAgain(way), sites.tokens)
    return attachments
