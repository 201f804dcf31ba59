"""The blocks an adapter or an expert can be: one file each, called with x_BND and the layout of its tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from petl import plan
from petl.config import AdapterOptions
from petl.layout import Tokens
from petl.methods.blocks import convpass, tiny_attention, tiny_conformer
from petl.methods.blocks.bottleneck import Bottleneck
from petl.methods.blocks.conformer import Conformer
from petl.methods.blocks.conv import Conv
from petl.methods.blocks.convpass import Convpass
from petl.methods.blocks.tiny_attention import TinyAttention
from petl.methods.blocks.tiny_conformer import TinyConformer
from petl.methods.blocks.tiny_external_attention import TinyExternalAttention


def adapter_block(options: AdapterOptions, hidden: int, tokens: Tokens, generator: torch.Generator) -> nn.Module:
    """A block of the kind and size that the options ask for: (x_BND, layout) -> (B, N, D), without a skip."""
    return _BLOCKS[options.block](options, hidden, tokens, generator)


def _bottleneck(options: AdapterOptions, hidden: int, tokens: Tokens, generator: torch.Generator) -> nn.Module:
    return Bottleneck(
        hidden,
        plan.adapter_width(options, hidden),
        generator,
        activation=options.activation,
        dropout=_dropout(options, 0.0),
        zero=options.init != "published",
    )


def _conformer(options: AdapterOptions, hidden: int, tokens: Tokens, generator: torch.Generator) -> nn.Module:
    return Conformer(
        hidden,
        plan.adapter_width(options, hidden),
        plan.adapter_kernel(options),
        options.axis,
        tokens,
        generator,
        layernorm=options.layernorm,
        dropout=_dropout(options, 0.0),
        zero=options.init == "zero",
    )


def _convpass(options: AdapterOptions, hidden: int, tokens: Tokens, generator: torch.Generator) -> nn.Module:
    return Convpass(
        hidden,
        plan.adapter_width(options, hidden),
        plan.adapter_kernel(options),
        options.axis,
        generator,
        dropout=_dropout(options, convpass.DROPOUT),
        zero=options.init != "published",
        discard_conv=options.legacy_discard_conv,
    )


def _conv(options: AdapterOptions, hidden: int, tokens: Tokens, generator: torch.Generator) -> nn.Module:
    return Conv(
        hidden,
        plan.adapter_width(options, hidden),
        plan.adapter_kernel(options),
        options.axis,
        generator,
        gate=options.gate,
        dropout=_dropout(options, 0.0),
        zero=options.init == "zero",
    )


def _tiny_attention(options: AdapterOptions, hidden: int, tokens: Tokens, generator: torch.Generator) -> nn.Module:
    dropout = _dropout(options, tiny_attention.DROPOUT)
    return TinyAttention(hidden, generator, dropout=dropout, zero=options.init == "zero")


def _tiny_external_attention(
    options: AdapterOptions, hidden: int, tokens: Tokens, generator: torch.Generator
) -> nn.Module:
    units = plan.adapter_width(options, hidden)
    return TinyExternalAttention(hidden, units, generator, zero=options.init == "zero")


def _tiny_conformer(options: AdapterOptions, hidden: int, tokens: Tokens, generator: torch.Generator) -> nn.Module:
    return TinyConformer(
        hidden,
        plan.adapter_width(options, hidden),
        options.axis,
        generator,
        dropout=_dropout(options, tiny_conformer.DROPOUT),
        zero=options.init == "zero",
    )


def _dropout(options: AdapterOptions, published: float) -> float:
    return published if options.dropout is None else options.dropout


_BLOCKS: dict[str, Callable[[AdapterOptions, int, Tokens, torch.Generator], nn.Module]] = {
    "bottleneck": _bottleneck,
    "conformer": _conformer,
    "convpass": _convpass,
    "conv": _conv,
    "tiny_attention": _tiny_attention,
    "tiny_external_attention": _tiny_external_attention,
    "tiny_conformer": _tiny_conformer,
}
