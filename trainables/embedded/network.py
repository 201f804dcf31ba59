"""The embedded backbone's architecture, and a forward pass on any length with part of the patches left out.

Token names: B batch, T frames, M mel bands, N tokens (2 + frequency bands * time columns), D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import ASTConfig, ASTModel

from petl.positions import resized_positions

PATCH = 16


def configuration(width: int = 128, layers: int = 5, heads: int = 4, frames: int = 128) -> ASTConfig:
    """A small AST: patches of 16 x 16 that do not overlap, so 64 patches for 128 frames."""
    return ASTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        patch_size=PATCH,
        frequency_stride=PATCH,
        time_stride=PATCH,
        max_length=frames,
        num_mel_bins=128,
    )


def build(config: ASTConfig, seed: int) -> ASTModel:
    """A fresh network: transformers' own initialisation, with sinusoidal instead of zero positions."""
    torch.manual_seed(seed)
    model = ASTModel(config)
    bands, columns = model.embeddings.get_shape(config)
    with torch.no_grad():
        model.embeddings.position_embeddings[0, 2:] = 0.1 * _sinusoids(bands, columns, config.hidden_size)
        torch.nn.init.trunc_normal_(model.embeddings.cls_token, std=0.02)
        torch.nn.init.trunc_normal_(model.embeddings.distillation_token, std=0.02)
    return model


def hidden_states(model: ASTModel, input_BTM: Tensor, kept: Tensor | None = None) -> Tensor:
    """Last hidden states (B, N, D) of normalised features of any number of frames (at least 16).

    Position embeddings are interpolated bilinearly over time where the clip is longer than the network's own
    length, and cut where it is shorter. `kept` (B, n) are the numbers of the patches that are looked at; by
    default all of them.
    """
    embed = model.embeddings
    tokens_BND = embed.patch_embeddings(input_BTM) + positions(model, input_BTM.shape[1])[:, 2:]
    if kept is not None:
        tokens_BND = tokens_BND.gather(1, kept[..., None].expand(-1, -1, tokens_BND.shape[2]))
    special_12D = torch.cat([embed.cls_token, embed.distillation_token], 1) + embed.position_embeddings[:, :2]
    hidden_BND = torch.cat([special_12D.expand(len(tokens_BND), -1, -1), tokens_BND], dim=1)
    for layer in model.layers:
        output = layer(hidden_BND)
        hidden_BND = output[0] if isinstance(output, tuple) else output
    return model.layernorm(hidden_BND)


def positions(model: ASTModel, frames: int) -> Tensor:
    """Position embeddings (1, N, D) for clips of `frames` frames, fitted from the network's own."""
    bands, columns = model.embeddings.get_shape(model.config)
    wanted = (frames - PATCH) // model.config.time_stride + 1
    return resized_positions(model.embeddings.position_embeddings, (bands, columns), (bands, wanted))


def _sinusoids(bands: int, columns: int, width: int) -> Tensor:
    """Two-dimensional sinusoidal positions (bands * columns, width): half the width for either axis."""

    def axis(count: int, size: int) -> Tensor:
        rates = torch.exp(torch.arange(size // 2) * (-math.log(50.0) / max(1, size // 2 - 1)))
        turns = torch.arange(count)[:, None] * rates[None] * 1.5
        return torch.cat([turns.sin(), turns.cos()], dim=1)

    half = width // 2
    rows = axis(bands, half)[:, None].expand(-1, columns, -1)
    across = axis(columns, width - half)[None].expand(bands, -1, -1)
    return torch.cat([rows, across], dim=2).flatten(0, 1)
