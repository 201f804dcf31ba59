"""Prompt tuning: learned tokens among the sequence, at one layer's input or at every layer's (arXiv 2203.12119).

Tokens lie as special ones, prompts, body. Shallow prompts come in at layer `layers.first`; with `deep` each following
adapted layer replaces what came out at the prompts' positions by prompts of its own. Behind the last adapted layer
the prompts stay where they are, so the backbone's output is longer (see `Adapted.layout`). Initial values are
U(-v, v) with v² = 6 / (3 p² + D), p the side of a patch: 16 for every published backbone, those without patches too.

`insertion: replace_dist` puts them behind CLS and drops the distillation token there; an AST's `pooler_output`, the
mean of the first two tokens, is then no longer one of CLS and distillation token. `insertion: overwrite` writes them
over the first tokens of the body, padded ones too (which stay hidden), and as far as there is a body.

On WavLM, whose attention knows how far two frames lie apart, prompts have no place in time: the position bias between
them and any token is 0, at whatever layer they come in.

Where LayerDrop skips the layer at which prompts come in, they come in at the next layer that runs (deep ones with
that layer's own values), and before the end in any case; a skipped layer's `overwrite` is left out in that step.

B batch, N tokens, n prompts, D model width, T tokens of the body, H heads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl.attention import extended_mask
from petl.config import MethodConfig
from petl.layout import Tokens
from petl.methods.base import AfterModule, Attachment, BeforeModule, SiteMap, Undo, first, replaced
from petl.shape import BackboneShape


class Prompts(nn.Module):
    """Prompts for a batch: x (B, N, D) -> (B, n, D), the same for every clip but for dropout."""

    def __init__(self, tokens_nD: Tensor, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens_nD)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        prompts_BnD: Tensor = self.dropout(self.tokens.expand(x_BND.shape[0], -1, -1))
        return prompts_BnD.to(x_BND.dtype)


def drawn_tokens(count: int, shape: BackboneShape, generator: torch.Generator) -> Tensor:
    """(n, D) from U(-v, v), v² = 6 / (3 p² + D)."""
    v = math.sqrt(6 / (3 * shape.patch**2 + shape.hidden))
    return torch.empty(count, shape.hidden).uniform_(-v, v, generator=generator)


class Insertion:
    """How prompts get into a sequence: behind its first `keep` tokens, where `drop` tokens are left out."""

    def __init__(self, tokens: Tokens, special: int, length: int, replace_dist: bool) -> None:
        self.tokens, self.special, self.length = tokens, special, length
        self.keep, self.drop = (special - 1, 1) if replace_dist else (special, 0)

    def missing(self, x_BND: Tensor) -> bool:
        """Whether x has no prompts yet (asked only where nothing is dropped, so that the length tells)."""
        return self.tokens.layout.lead(x_BND) == self.special

    def into(self, x_BND: Tensor, prompts: Prompts) -> Tensor:
        return torch.cat([x_BND[:, : self.keep], prompts(x_BND), x_BND[:, self.keep + self.drop :]], dim=1)

    def over(self, x_BND: Tensor, prompts: Prompts) -> Tensor:
        """x with fresh prompts where the old ones are."""
        return torch.cat([x_BND[:, : self.keep], prompts(x_BND), x_BND[:, self.keep + self.length :]], dim=1)

    def mask(self, mask: Any) -> Any:
        return extended_mask(mask, self.length, at=self.keep, drop=self.drop, queries=True)


class EnterLayer:
    """Before a transformer layer: prompts come in or are replaced, and the mask grows with them.

    `enters`: this is the layer where they come in. `fresh`: they are replaced where they are there already.
    """

    def __init__(self, way: Insertion, prompts: Prompts, *, enters: bool, fresh: bool) -> None:
        self.way, self.prompts, self.enters, self.fresh = way, prompts, enters, fresh

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x_BND = first(args, kwargs)
        if self.enters or (not self.way.drop and self.way.missing(x_BND)):
            x_BND = self.way.into(x_BND, self.prompts)
        elif self.fresh:
            x_BND = self.way.over(x_BND, self.prompts)
        args, kwargs = replaced(args, kwargs, x_BND)
        if len(args) > 1:
            args = (args[0], self.way.mask(args[1]), *args[2:])
        elif kwargs.get("attention_mask") is not None:
            kwargs = {**kwargs, "attention_mask": self.way.mask(kwargs["attention_mask"])}
        return args, kwargs


class EnterWavLMLayer(EnterLayer):
    """The same where layers hand a position bias (B·H, N, N) on to each other, which the first one makes."""

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = super().__call__(host, args, kwargs)
        frames, batch = self.way.tokens.layout.body, first(args, kwargs).shape[0]
        bias = kwargs.get("position_bias")
        if bias is None:
            attention: Any = host.attention
            bias_HTT = attention.compute_bias(frames, frames)
            bias = bias_HTT.unsqueeze(0).repeat(batch, 1, 1, 1).view(-1, frames, frames)
        if bias.shape[-1] == frames:
            bias = functional.pad(bias, (self.way.length, 0, self.way.length, 0))
        return args, {**kwargs, "position_bias": bias}


class Overwrite:
    """Before a transformer layer: prompts are written over the first tokens of the body."""

    def __init__(self, tokens: Tokens, prompts: Prompts) -> None:
        self.tokens, self.prompts = tokens, prompts

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x_BND = first(args, kwargs)
        front_BLD, body_BTD = self.tokens.layout.split(x_BND)
        prompts_BnD = self.prompts(x_BND)[:, : body_BTD.shape[1]]
        x_BND = torch.cat([front_BLD, prompts_BnD, body_BTD[:, prompts_BnD.shape[1] :]], dim=1)
        return replaced(args, kwargs, x_BND)


class AtTheEnd:
    """Behind the last layer, when LayerDrop skipped every layer that would have brought the prompts in."""

    def __init__(self, way: Insertion, prompts: Prompts) -> None:
        self.way, self.prompts = way, prompts

    def before(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """In front of the LayerNorm that ends a pre-norm encoder."""
        x_BND = args[0]
        return ((self.way.into(x_BND, self.prompts), *args[1:]), kwargs) if self.way.missing(x_BND) else None

    def after(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """On the output of a post-norm encoder."""
        if self.way.missing(output.last_hidden_state):
            output.last_hidden_state = self.way.into(output.last_hidden_state, self.prompts)
        return output


class _FirstOfAll(BeforeModule):
    """Runs before the hooks of other methods on the same layer: they see the prompts, wherever they are named."""

    def attach(self, backbone: nn.Module) -> Undo:
        host = backbone.get_submodule(self.path)
        return host.register_forward_pre_hook(self.hook, prepend=True, with_kwargs=True).remove


def build(config: MethodConfig, sites: SiteMap, generator: torch.Generator) -> list[Attachment]:
    """Prompts `<layer>.prompt.tokens` (n, D): of layer `layers.first` alone, or with `deep` of every adapted layer."""
    options, adapted, family = config.prompt, sites.adapted(config), sites.family
    owners = adapted if options.deep else adapted[:1]
    prompts = {
        layer: Prompts(drawn_tokens(options.length, sites.shape, generator), options.dropout) for layer in owners
    }
    if options.insertion == "overwrite":
        return [_FirstOfAll(family.layer(i), "prompt", own, Overwrite(sites.tokens, own)) for i, own in prompts.items()]

    way = Insertion(sites.tokens, family.special, options.length, options.insertion == "replace_dist")
    enter = EnterWavLMLayer if family.attention == "wavlm" else EnterLayer
    attachments: list[Attachment] = []
    latest = prompts[adapted.start]
    for layer in range(adapted.start, sites.layers):
        own = prompts.get(layer)
        latest = own or latest
        hook = enter(way, latest, enters=layer == adapted.start, fresh=own is not None)
        attachments.append(_FirstOfAll(family.layer(layer), "prompt", own, hook))
    if family.layout == "frames":
        end = AtTheEnd(way, latest)
        if sites.shape.pre_norm:
            attachments.append(BeforeModule(family.final_norm, "prompt", None, end.before))
        else:
            attachments.append(AfterModule(family.watched, "prompt", None, end.after))
    return attachments
