"""Data2VecAudio: post-norm layers as in wav2vec 2.0, LayerNorm behind every convolution, positions from a stack of
short convolutions without weight normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from petl.families import wav2vec2
from petl.families.base import size
from petl.shape import BackboneShape


def _shape(config: Mapping[str, Any]) -> BackboneShape:
    # The keys of wav2vec 2.0 that have another meaning here, or none.
    common = {k: v for k, v in config.items() if k not in ("do_stable_layer_norm", "num_conv_pos_embeddings")}
    shape = wav2vec2.shape_of(common)
    kernel = size(config, "conv_pos_kernel_size", 19)
    stack = size(config, "num_conv_pos_embeddings", 5) * wav2vec2.positional_conv(config, kernel)
    return replace(
        shape,
        convs=wav2vec2.convs_of(config, norm="layer"),
        per_layer=0,
        other=shape.other - wav2vec2.positions_of(common) + stack,
    )


FAMILY = replace(
    wav2vec2.family("data2vec-audio", "Data2VecAudioModel", shape=_shape),
    position_convs="encoder.pos_conv_embed.layers",
)
