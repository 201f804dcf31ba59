"""What methods are made of: modules with a place in the backbone, and hooks that bring them into its forward.

Hooks are small objects rather than closures, so that a deep copy of an adapted model is wired to its own
modules. B batch, N tokens, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from petl import plan
from petl.config import MethodConfig
from petl.families import Block, Family, UnknownBackbone
from petl.layout import Layout, Tokens
from petl.shape import BackboneShape

Undo = Callable[[], None]
"""A bound method that takes back one change to the backbone (no closure: deep copies must undo their own)."""


class Attachment(Protocol):
    """One thing a method does to the backbone: `attach` does it and returns what undoes it.

    `module` (may be None) holds the trained tensors; they are called `path.name.<tensor>`, or `path.<tensor>` when
    `name` is empty. Modules are moved to the backbone's device and dtype before anything is attached.
    """

    @property
    def path(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def module(self) -> nn.Module | None: ...

    def attach(self, backbone: nn.Module) -> Undo: ...


@dataclass(frozen=True)
class AfterModule:
    """`hook(host, args, kwargs, output)` runs after the backbone module at `path`; what it returns is the output."""

    path: str
    name: str
    module: nn.Module | None
    hook: Callable[..., Any]

    def attach(self, backbone: nn.Module) -> Undo:
        host = backbone.get_submodule(self.path)
        # Prepended, so that hooks that record activations see the adapted ones.
        return host.register_forward_hook(self.hook, prepend=True, with_kwargs=True).remove


@dataclass(frozen=True)
class BeforeModule:
    """`hook(host, args, kwargs)` runs before the module at `path`; it returns None or new (args, kwargs).

    `first`: it runs before those that may change the arguments.
    """

    path: str
    name: str
    module: nn.Module | None
    hook: Callable[..., Any]
    first: bool = False

    def attach(self, backbone: nn.Module) -> Undo:
        host = backbone.get_submodule(self.path)
        return host.register_forward_pre_hook(self.hook, prepend=self.first, with_kwargs=True).remove


class SiteMap:
    """Sites of one backbone: paths by name, sizes, the modules behind the paths, and the layout of its tokens."""

    def __init__(self, backbone: nn.Module, config: MethodConfig) -> None:
        settings: Any = getattr(backbone, "config", None)
        if settings is None:
            raise UnknownBackbone(f"a {type(backbone).__name__} has no transformers configuration, so no known sites")
        self.backbone = backbone
        self.shape = BackboneShape.from_config(settings.to_dict())
        self.family: Family = plan.check(config, self.shape)
        self.hidden, self.layers = self.shape.hidden, self.shape.layers
        if len(self.module(self.family.layers)) != self.layers:  # type: ignore[arg-type]
            raise UnknownBackbone(f"the backbone's '{self.family.layers}' does not hold {self.layers} layers")
        prompts, special = 0, self.family.special
        if "prompt" in config.methods and config.prompt.insertion != "overwrite":
            prompts = config.prompt.length
            special -= config.prompt.insertion == "replace_dist"
        self.tokens = Tokens(special, prompts)
        options = config.adapter
        self.tokens.inputs_change = (
            "adapter" in config.methods and options.placement == "sequential" and options.where == "before"
        )
        self.tokens.together = config.frozen_eval or not _skips_layers(settings)

    def module(self, path: str) -> nn.Module:
        """The backbone's module at `path`; `UnknownBackbone` names what is missing."""
        try:
            return self.backbone.get_submodule(path)
        except AttributeError:
            raise UnknownBackbone(
                f"the backbone ({type(self.backbone).__name__}) has no module '{path}', which its family "
                f"'{self.family.name}' needs; petl.load_backbone gives the bare {self.family.model} that it should be"
            ) from None

    def linear(self, path: str) -> nn.Linear:
        module = self.module(path)
        if not isinstance(module, nn.Linear):
            raise UnknownBackbone(f"the backbone's '{path}' is a {type(module).__name__}, not a linear map")
        return module

    def block(self, layer: int, site: str) -> Block:
        """Paths of the block "attention" or "ffn" of a layer, all of them there."""
        block = self.family.block(layer, site)
        for path in (block.entry, block.exit, block.norm):
            self.module(path)
        return block

    def adapted(self, config: MethodConfig) -> range:
        return plan.adapted_layers(config, self.layers)


def _skips_layers(settings: Any) -> bool:
    return bool(getattr(settings, "layerdrop", 0) or getattr(settings, "encoder_layerdrop", 0))


Builder = Callable[[MethodConfig, SiteMap, torch.Generator], list[Attachment]]
"""Makes the modules of one method for a backbone, initialised from the generator."""


class Join:
    """How a module takes part in a block F of the backbone: what F sees, and what leaves.

    u is the block's input, y its output; `module` is what trains.
    """

    def before(self, u_BND: Tensor, layout: Layout) -> Tensor:
        """What F sees in place of u; called once, before F."""
        return u_BND

    def after(self, u_BND: Tensor, y_BND: Tensor, layout: Layout) -> Tensor:
        """What leaves in place of y = F(before(u))."""
        return y_BND

    def forget(self) -> None:
        """Let go of what is kept between two hooks."""


def joined(block: Block, name: str, module: nn.Module | None, way: Join, tokens: Tokens) -> list[Attachment]:
    """The attachments that put a join around a block of the backbone; tensors are named after its exit."""
    tokens.hold(way)
    changes = type(way).before is not Join.before
    if block.entry == block.exit and not changes and not tokens.inputs_change:
        return [AfterModule(block.exit, name, module, _Beside(way, tokens))]
    entering = _Entering(way, tokens)
    tokens.hold(entering)
    return [
        BeforeModule(block.entry, name, None, entering, first=not changes),
        AfterModule(block.exit, name, module, _Leaving(entering)),
    ]


class _Beside:
    """A join that leaves the input of a one-module block as it is: nothing has to be remembered."""

    def __init__(self, way: Join, tokens: Tokens) -> None:
        self.way, self.tokens = way, tokens

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        y_BND, rest = split(output)
        return join(self.way.after(first(args, kwargs), y_BND, self.tokens.layout), rest)


class _Entering:
    """Remembers the input of a block until `_Leaving` takes it, and changes it where the join says so."""

    def __init__(self, way: Join, tokens: Tokens) -> None:
        self.way, self.tokens = way, tokens
        self.input: Tensor | None = None

    def forget(self) -> None:
        self.input = None

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        u_BND = first(args, kwargs)
        self.input = u_BND
        changed_BND = self.way.before(u_BND, self.tokens.layout)
        return None if changed_BND is u_BND else replaced(args, kwargs, changed_BND)


class _Leaving:
    def __init__(self, entering: _Entering) -> None:
        self.entering = entering

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        u_BND, self.entering.input = self.entering.input, None
        assert u_BND is not None
        y_BND, rest = split(output)
        return join(self.entering.way.after(u_BND, y_BND, self.entering.tokens.layout), rest)


def first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states a module was called with, by position or by name."""
    return args[0] if args else kwargs["hidden_states"]


def replaced(args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with other hidden states."""
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


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
