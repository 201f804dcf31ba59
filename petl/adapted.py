"""Attaching a method to an unmodified transformers model, from outside, and taking it off again.

Methods come in through hooks; tensors of the backbone that train (LayerNorms, biases, whole layers) are copies put
in the place of the backbone's own. The backbone's tensors are never written to, so `detach` gives back the very
same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from petl.checkpointing import checkpoint_layers
from petl.config import MethodConfig
from petl.errors import ConfigError, UserError
from petl.families import Family
from petl.layout import Layout
from petl.methods import BUILDERS
from petl.methods.base import Attachment, SiteMap, Undo
from petl.methods.lora import AddUpdate
from petl.padding import guard_padding
from petl.state import copy_state
from petl.trained_copies import TrainedCopies, trained_paths

_MARK = "_petl_attached"


class AlreadyAttached(UserError):
    """The backbone carries a method already."""


class Adapted(nn.Module):
    """A frozen backbone with a method on it; calls and returns what the backbone calls and returns.

    `method` is the configuration, `backbone` the model inside, `added` the tree of added modules. Made by
    `attach`. With method `prompt` the returned sequence is longer by the prompts (see `layout`).
    """

    backbone: Any  # a transformers model

    def __init__(self, backbone: nn.Module, method: MethodConfig, generator: torch.Generator) -> None:
        super().__init__()
        self._updates: dict[str, AddUpdate] = {}
        if getattr(backbone, _MARK, False):
            raise AlreadyAttached(
                "this backbone carries a method already; call detach() on what attach() returned, then attach again"
            )
        sites = SiteMap(backbone, method)
        self.method = method
        self.family, self.shape, self._tokens = sites.family, sites.shape, sites.tokens
        attachments: list[Attachment] = []
        for name in method.methods:
            attachments += BUILDERS[name](method, sites, generator)
        copied = trained_paths(method, sites)

        # Everything that can be refused has been checked: only now is the backbone touched.
        reference = next(backbone.parameters())
        self.added = nn.Module()
        for attachment in attachments:
            if attachment.module is not None:
                attachment.module.to(device=reference.device, dtype=reference.dtype)
                _place(self.added, f"{attachment.path}.{attachment.name}".strip("."), attachment.module)
            if isinstance(hook := getattr(attachment, "hook", None), AddUpdate):
                self._updates[attachment.path] = hook
        self._before = _Before(backbone, sites.family)
        self._copies = TrainedCopies(backbone, copied)
        self._undo: list[Undo] = []
        self._attached = True
        self.backbone = backbone
        setattr(backbone, _MARK, True)
        try:
            self._put_on(attachments)
        except BaseException:
            self.detach()
            raise
        self.train(self.training)

    def _put_on(self, attachments: list[Attachment]) -> None:
        backbone = self.backbone
        backbone.requires_grad_(False)
        for parameter in self._copies.parameters(backbone).values():
            parameter.requires_grad_(True)
        self._before.keep_gradients_out(backbone)
        self._undo += guard_padding(backbone, self.family, self.shape, self._tokens)
        # Updates of projections belong to what a block computes, so they run first. The rest is reversed, because
        # hooks are prepended: methods on one module run in the order they are written in.
        ordered = sorted(attachments, key=lambda a: not isinstance(getattr(a, "hook", None), AddUpdate))
        for attachment in reversed(ordered):
            self._undo.append(attachment.attach(backbone))
        self._undo.append(self._tokens.watch(backbone, self.family, self.shape))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The backbone's own call: `adapted(input_values).last_hidden_state` is (B, N, D)."""
        if not self._attached:
            raise RuntimeError("the method was detached; call the backbone, or attach again")
        return self.backbone(*args, **kwargs)

    def train(self, mode: bool = True) -> Adapted:
        """Switch the added modules; a frozen backbone stays in evaluation mode unless `backbone_mode` says train.

        Training takes merged LoRA updates out of the weights again.
        """
        if mode:
            self.unmerge()
        super().train(mode)
        if not self._attached:
            return self
        if self.method.frozen_eval:
            self.backbone.eval()
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # its statistics belong to the backbone, which stays as it is
        return self

    def __getstate__(self) -> dict[str, Any]:
        self._tokens.forget()  # a copy is not of a forward pass that was left in the middle
        return self.__dict__

    @property
    def layout(self) -> Layout:
        """What the tokens of the last forward pass's output are."""
        return self._tokens.layout

    def counts(self, counted: bool) -> None:
        """Whether the next batches count for statistics over a batch (BatchNorm's).

        Say no for a worker that has no clips in a step and runs the model on any clip to take part in it.
        """
        self._tokens.counted = counted

    @property
    def config(self) -> Any:
        """The backbone's transformers configuration."""
        return self.backbone.config

    def trainable(self) -> dict[str, nn.Parameter]:
        """Exactly what trains (the head is not part of it): name -> parameter, in a fixed order."""
        copies = self._copies.parameters(self.backbone)
        for path, update in self._updates.items():
            if update.original is not None and f"{path}.weight" in copies:
                copies[f"{path}.weight"] = update.original  # a merged weight stands in its place for now
        return {**dict(self.added.named_parameters()), **copies}

    def stored(self) -> dict[str, Tensor]:
        """What an adapter consists of: `trainable()`, and statistics that training gathers (BatchNorm's)."""
        return {**self.trainable(), **dict(self.added.named_buffers())}

    def adapter_state(self) -> dict[str, Tensor]:
        """Copies of the stored tensors, on their device."""
        return {name: t.detach().clone() for name, t in self.stored().items()}

    def load_adapter_state(self, state: Mapping[str, Tensor]) -> None:
        """Copy stored tensors in; `UserError` when names, shapes or values are not those of this method."""
        merged = self.merged
        self.unmerge()
        copy_state(state, self.stored(), "the adapter state")
        if merged:
            self.merge()

    def original_state(self) -> dict[str, Tensor]:
        """The backbone's own tensors, as if nothing were attached (not copies)."""
        merged = {f"{p}.weight": u.original for p, u in self._updates.items() if u.original is not None}
        return {**self.backbone.state_dict(), **merged, **self._copies.originals()}

    def gradient_checkpointing(self, on: bool = True) -> None:
        """Keep only the input of each transformer layer for the backward pass, and compute the layer again there.

        Less memory for about a third more time; the numbers stay the same.
        """
        checkpoint_layers(self.backbone.get_submodule(self.family.layers), self._tokens, on)

    @property
    def merged(self) -> bool:
        """Whether the LoRA updates are in the backbone's weights (see `merge`)."""
        return any(update.original is not None for update in self._updates.values())

    def merge(self) -> Adapted:
        """Add the LoRA updates into the weights they belong to, so that inference costs what the backbone costs.

        The results are equal up to rounding. Switches to evaluation mode; other methods of a combination stay as
        they are. `unmerge` (and `detach`) restore the weights bit for bit. Raises `UserError` without method `lora`.
        """
        if not self._updates:
            raise UserError(f"method '{self.method.method}' has no LoRA updates to merge")
        self.eval()
        for path, update in self._updates.items():
            update.merge(self.backbone.get_submodule(path))
        return self

    def unmerge(self) -> Adapted:
        """Take merged LoRA updates out of the weights again; harmless when nothing is merged."""
        for path, update in self._updates.items():
            update.unmerge(self.backbone.get_submodule(path))
        return self

    def detach(self) -> nn.Module:
        """Take the method off and return the backbone as it was: bits, hooks, `requires_grad` and modes.

        The trained tensors stay in `trainable()`; calling the adapted model afterwards is an error.
        """
        if not self._attached:
            raise RuntimeError("the method was detached already")
        backbone = self.backbone
        self.unmerge()
        self.gradient_checkpointing(False)
        self._tokens.forget()
        for undo in reversed(self._undo):
            undo()
        self._undo = []
        self._copies.take_out(backbone)
        self._before.restore(backbone)
        delattr(backbone, _MARK)
        self._attached = False
        return backbone


def attach(backbone: nn.Module, config: Mapping[str, Any] | MethodConfig, *, seed: int | None = None) -> Adapted:
    """Put a method on a transformers model and freeze everything else.

    `config` is a `MethodConfig` or dotted keys (`{"method": "soft_moa", "moa.experts": 7}`). With `seed` the
    added tensors depend on it alone; without, it is drawn from torch's global generator. Raises `ConfigError`
    for options that are wrong or do not fit the backbone, `UnknownBackbone` for models without a table of
    sites, `AlreadyAttached` when the backbone carries a method already.
    """
    if not isinstance(backbone, nn.Module):
        raise UserError(f"attach() takes a model, found {backbone!r}; petl.load_backbone({backbone!r}) loads one")
    if not isinstance(config, (MethodConfig, Mapping)):
        raise ConfigError(f'a method is a mapping such as {{"method": "lora", "lora.rank": 8}}, found {config!r}')
    method = config if isinstance(config, MethodConfig) else MethodConfig.from_flat(config)
    return Adapted(backbone, method, seeded_generator(seed))


def seeded_generator(seed: int | None) -> torch.Generator:
    """A CPU generator for initial values: the same numbers whatever device the model is on."""
    if seed is None:
        seed = int(torch.randint(0, 2**31, ()).item())
    return torch.Generator().manual_seed(seed)


class _Before:
    """What attaching changes about a backbone besides hooks and parameters, and how it was."""

    def __init__(self, backbone: nn.Module, family: Family) -> None:
        self._flags = {name: p.requires_grad for name, p in backbone.named_parameters()}
        self._modes = {name: m.training for name, m in backbone.named_modules()}
        self._encoder = family.feature_encoder
        encoder = None if self._encoder is None else backbone.get_submodule(self._encoder)
        self._wants: bool | None = getattr(encoder, "_requires_grad", None)

    def keep_gradients_out(self, backbone: nn.Module) -> None:
        """transformers would carry a gradient through a frozen feature encoder, down to the waveform."""
        if self._encoder is not None and self._wants is not None:
            cast(Any, backbone.get_submodule(self._encoder))._requires_grad = False

    def restore(self, backbone: nn.Module) -> None:
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(self._flags[name])
        for name, module in backbone.named_modules():
            module.training = self._modes[name]
        if self._encoder is not None and self._wants is not None:
            cast(Any, backbone.get_submodule(self._encoder))._requires_grad = self._wants


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Register `module` under a dotted path, so that tensors carry the backbone's names.

    Where another module's parts hang already (an adapter at a projection that LoRA updates), they hang on.
    """
    *parents, name = path.split(".")
    for part in parents:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    there = root._modules.get(name)
    for child, kept in there.named_children() if there is not None else ():
        if hasattr(module, child):
            raise RuntimeError(f"two modules at '{path}' both have a '{child}'")
        module.add_module(child, kept)
    root.add_module(name, module)
