"""How mixtures are wired: parallel to a sub-layer, X̂ = X + MHSA(u) + MoA(u), likewise at the feed-forward.

`moa.legacy_double_add` repeats what the published code does when the only site is the attention: the
mixture's output is added once more to the layer's output, X' = X̂ + FFN(v) + MoA(u). At other sites it
changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from petl import plan
from petl.config import MethodConfig
from petl.methods.base import Addition, Parallel, SiteMap, join, split


class _Remembering:
    """`Parallel` that keeps the module's output until `_AddAgain` takes it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.kept: Tensor | None = None

    def __call__(self, host: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        y, rest = split(output)
        self.kept = self.module(args[0])
        return join(y + self.kept, rest)


class _AddAgain:
    """Adds the remembered output to the feed-forward's, which the layer adds to its residual."""

    def __init__(self, memory: _Remembering) -> None:
        self.memory = memory

    def __call__(self, host: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        kept, self.memory.kept = self.memory.kept, None
        y, rest = split(output)
        return output if kept is None else join(y + kept, rest)


def build_mixture(config: MethodConfig, sites: SiteMap, name: str, mixture: Callable[[], nn.Module]) -> list[Addition]:
    """One `mixture()` per adapted layer and site."""
    twice = config.moa.legacy_double_add and config.moa.location == "attention"
    additions = []
    for layer in sites.adapted(config):
        for site in plan.moa_sites(config.moa):
            module = mixture()
            hook = _Remembering(module) if twice else Parallel(module)
            additions.append(Addition(sites.family.path(layer, site), name, module, hook))
            if isinstance(hook, _Remembering):
                additions.append(Addition(sites.family.path(layer, "ffn"), name, None, _AddAgain(hook)))
    return additions
