"""Attaching a method to an unmodified transformers model, from outside, and taking it off again.

Methods come in through forward hooks; trained LayerNorms are copies put in the place of the backbone's own.
The backbone's tensors are never written to, so `detach` gives back the very same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from petl import plan
from petl.config import MethodConfig
from petl.errors import UserError
from petl.methods import BUILDERS, Addition, SiteMap
from petl.state import checked_state

_MARK = "_petl_attached"


class AlreadyAttached(UserError):
    """The backbone carries a method already."""


class Adapted(nn.Module):
    """A frozen backbone with a method on it; calls and returns what the backbone calls and returns.

    `method` is the configuration, `backbone` the model inside, `added` the tree of trained modules. Made by
    `attach`.
    """

    backbone: Any  # a transformers model

    def __init__(self, backbone: nn.Module, method: MethodConfig, generator: torch.Generator) -> None:
        super().__init__()
        if getattr(backbone, _MARK, False):
            raise AlreadyAttached(
                "this backbone carries a method already; call detach() on what attach() returned, then attach again"
            )
        sites = SiteMap(backbone)
        self.method = method
        additions: list[Addition] = []
        for name in method.methods:
            additions += BUILDERS[name](method, sites, generator)
        norms = _norm_paths(method, sites)

        # Everything that can be refused has been checked: only now is the backbone touched.
        reference = next(backbone.parameters())
        self._flags = {name: p.requires_grad for name, p in backbone.named_parameters()}
        self._modes = {name: m.training for name, m in backbone.named_modules()}
        backbone.requires_grad_(False)
        self.added = nn.Module()
        for addition in additions:
            if addition.module is not None:
                addition.module.to(device=reference.device, dtype=reference.dtype)
                _place(self.added, f"{addition.path}.{addition.name}".rstrip("."), addition.module)
        self._originals: dict[str, nn.Module] = {}
        for path in norms:
            self._originals[path] = backbone.get_submodule(path)
            trained = copy.deepcopy(self._originals[path]).requires_grad_(True)
            _replace(backbone, path, trained)
            _place(self.added, path, trained)
        # Prepended, so that hooks that record activations see the adapted ones; reversed, so that methods on
        # one module run in the order they are written in.
        self._handles: list[RemovableHandle] = [
            backbone.get_submodule(a.path).register_forward_hook(a.hook, prepend=True) for a in reversed(additions)
        ]
        setattr(backbone, _MARK, True)
        self._attached = True
        self.backbone = backbone
        self.train(self.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The backbone's own call: `adapted(input_values_BTM).last_hidden_state` is (B, N, D)."""
        if not self._attached:
            raise RuntimeError("the method was detached; call the backbone, or attach again")
        return self.backbone(*args, **kwargs)

    def train(self, mode: bool = True) -> Adapted:
        """Switch the added modules; the frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self._attached:
            self.backbone.eval()
            self.added.train(mode)  # again: trained LayerNorms sit in both trees
        return self

    @property
    def config(self) -> Any:
        """The backbone's transformers configuration."""
        return self.backbone.config

    def trainable(self) -> dict[str, nn.Parameter]:
        """Exactly what trains (the head is not part of it): name -> parameter, in a fixed order."""
        return dict(self.added.named_parameters())

    def adapter_state(self) -> dict[str, Tensor]:
        """Copies of the trained tensors, on their device."""
        return {name: p.detach().clone() for name, p in self.trainable().items()}

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy trained tensors in; `UserError` when names, shapes or values are not those of this method."""
        own = self.trainable()
        checked = checked_state(state, {name: tuple(p.shape) for name, p in own.items()}, "the adapter state")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(checked[name])

    def original_state(self) -> dict[str, Tensor]:
        """The backbone's own tensors, as if nothing were attached (not copies)."""
        state = dict(self.backbone.state_dict())
        for path, module in self._originals.items():
            state.update({f"{path}.{name}": tensor for name, tensor in module.state_dict().items()})
        return state

    def detach(self) -> nn.Module:
        """Take the method off and return the backbone as it was: bits, hooks, `requires_grad` and modes.

        The trained tensors stay in `trainable()`; calling the adapted model afterwards is an error.
        """
        if not self._attached:
            raise RuntimeError("the method was detached already")
        backbone = self.backbone
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for path, original in self._originals.items():
            copied = next(backbone.get_submodule(path).parameters())
            _replace(backbone, path, original.to(device=copied.device, dtype=copied.dtype))
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(self._flags[name])
        for name, module in backbone.named_modules():
            module.training = self._modes[name]
        delattr(backbone, _MARK)
        self._originals = {}
        self._attached = False
        return backbone


def attach(backbone: nn.Module, config: Mapping[str, Any] | MethodConfig, *, seed: int | None = None) -> Adapted:
    """Put a method on a transformers model (an `ASTModel`) and freeze everything else.

    `config` is a `MethodConfig` or dotted keys (`{"method": "soft_moa", "moa.experts": 7}`). With `seed` the
    added tensors depend on it alone; without, it is drawn from torch's global generator. Raises `ConfigError`
    for options that are wrong or do not fit the backbone, `UnknownBackbone` for models without a table of
    sites, `AlreadyAttached` when the backbone carries a method already.
    """
    method = config if isinstance(config, MethodConfig) else MethodConfig.from_flat(config)
    return Adapted(backbone, method, seeded_generator(seed))


def seeded_generator(seed: int | None) -> torch.Generator:
    """A CPU generator for initial values: the same numbers whatever device the model is on."""
    if seed is None:
        seed = int(torch.randint(0, 2**31, ()).item())
    return torch.Generator().manual_seed(seed)


def _norm_paths(method: MethodConfig, sites: SiteMap) -> list[str]:
    paths = [sites.family.norm_path(layer, site) for layer in sites.adapted(method) for site in plan.norm_sites(method)]
    if plan.final_norm(method):
        paths.append(sites.family.final_norm)
    for path in paths:
        sites.module(path)
    return paths


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Register `module` under a dotted path, so that tensors carry the backbone's names."""
    *parents, name = path.split(".")
    for part in parents:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(name, module)


def _replace(backbone: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(backbone.get_submodule(parent), name, module)
