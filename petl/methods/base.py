"""What methods are made of: modules with a place in the backbone, and hooks that bring them into its forward.

Hooks are small objects rather than closures, so that a deep copy of an adapted model is wired to its own
modules. B batch, N tokens, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from petl import plan
from petl.config import MethodConfig
from petl.sites import Family, UnknownBackbone, family_of

Hook = Callable[[nn.Module, tuple[Any, ...], Any], Any]


@dataclass(frozen=True)
class Addition:
    """One added module: `hook` runs after the backbone module at `path`.

    Its tensors are called `path.name.<tensor>`, or `path.<tensor>` when `name` is empty. Two additions of one
    method may share a module (a hook that needs a second place gives `module` None there).
    """

    path: str
    name: str
    module: nn.Module | None
    hook: Hook


class SiteMap:
    """Sites of one backbone: paths by name, sizes, and the modules behind the paths."""

    def __init__(self, backbone: nn.Module) -> None:
        config = getattr(backbone, "config", None)
        self.backbone = backbone
        self.family: Family = family_of(getattr(config, "model_type", None) or type(backbone).__name__)
        self.hidden: int = config.hidden_size  # type: ignore[union-attr]
        stack = self.module(self.family.layers)
        self.layers = len(stack)  # type: ignore[arg-type]

    def module(self, path: str) -> nn.Module:
        """The backbone's module at `path`; `UnknownBackbone` names what is missing."""
        try:
            return self.backbone.get_submodule(path)
        except AttributeError:
            raise UnknownBackbone(
                f"the backbone ({type(self.backbone).__name__}) has no module '{path}', which its family "
                f"'{self.family.name}' needs; pass the bare transformers model (for example ASTModel)"
            ) from None

    def linear(self, path: str) -> nn.Linear:
        module = self.module(path)
        if not isinstance(module, nn.Linear):
            raise UnknownBackbone(f"the backbone's '{path}' is a {type(module).__name__}, not a linear map")
        return module

    def adapted(self, config: MethodConfig) -> range:
        return plan.adapted_layers(config, self.layers)


Builder = Callable[[MethodConfig, SiteMap, torch.Generator], list[Addition]]


class Parallel:
    """y -> y + module(x) (+ x): the module runs beside its host and sees the host's input x_BND."""

    def __init__(self, module: nn.Module, adds_input: bool = False) -> None:
        self.module = module
        self.adds_input = adds_input

    def __call__(self, host: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        x = args[0]
        y, rest = split(output)
        y = y + self.module(x)
        return join(y + x if self.adds_input else y, rest)


class Sequential:
    """y -> module(y) (+ y): the module runs after its host, on the host's output y_BND."""

    def __init__(self, module: nn.Module, adds_input: bool = True) -> None:
        self.module = module
        self.adds_input = adds_input

    def __call__(self, host: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        y, rest = split(output)
        added = self.module(y)
        return join(y + added if self.adds_input else added, rest)


def split(output: Any) -> tuple[Tensor, tuple[Any, ...] | None]:
    """A host's output as (hidden states, whatever follows them in its tuple or None)."""
    return (output[0], tuple(output[1:])) if isinstance(output, tuple) else (output, None)


def join(hidden: Tensor, rest: tuple[Any, ...] | None) -> Any:
    """The reverse of `split`."""
    return hidden if rest is None else (hidden, *rest)


def kaiming_uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    """U(-1/√fan_in, 1/√fan_in): what torch gives a linear map's weight, drawn from `generator`."""
    bound = 1 / math.sqrt(fan_in)
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
