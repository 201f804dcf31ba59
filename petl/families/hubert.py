"""HuBERT: the encoder of wav2vec 2.0; some checkpoints (mHuBERT) normalise the positions' input by BatchNorm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from petl.families import wav2vec2
from petl.families.base import size
from petl.shape import BackboneShape


def _shape(config: Mapping[str, Any]) -> BackboneShape:
    shape = wav2vec2.shape_of(config)
    other = shape.other
    if config.get("feat_proj_layer_norm") is False:
        other -= 2 * shape.convs[-1].outputs
    if config.get("conv_pos_batch_norm"):  # in the place of the weight normalisation
        kernel = size(config, "num_conv_pos_embeddings", 128)
        other += wav2vec2.positional_conv(config, kernel) + 2 * shape.hidden - wav2vec2.positions_of(config)
    return replace(shape, other=other)


FAMILY = replace(
    wav2vec2.family("hubert", "HubertModel", shape=_shape),
    position_norm="encoder.pos_conv_embed.batch_norm",
)
