"""The encoder of Whisper: pre-norm layers on two convolutions over log-mel frames, fixed sinusoidal positions.

The feed-forward sub-layer has no module of its own: it starts at `fc1` and ends at `fc2`. A checkpoint of any Whisper
model is read without its decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from petl.families.base import Block, Family, conv_parameters, size
from petl.shape import BackboneShape, Conv


def _shape(config: Mapping[str, Any]) -> BackboneShape:
    d, mels = size(config, "d_model", 384), size(config, "num_mel_bins", 80)
    return BackboneShape(
        family="whisper",
        hidden=d,
        layers=size(config, "encoder_layers", 4),
        heads=size(config, "encoder_attention_heads", 6),
        ffn=size(config, "encoder_ffn_dim", 1536),
        mel_bins=mels,
        max_frames=2 * size(config, "max_source_positions", 1500),
        convs=(Conv(mels, d, 3, 1, padding=1), Conv(d, d, 3, 2, padding=1)),
        key_bias=False,
        other=2 * d,
        fixed=d,  # the sinusoids
    )


def _parameters(shape: BackboneShape, frames: int | None) -> int:
    layers = shape.layers * shape.layer_parameters()
    return conv_parameters(shape.convs) + shape.hidden * shape.tokens(frames) + layers + shape.other


FAMILY = Family(
    model_type="whisper",
    model="WhisperEncoder",
    layers="layers",
    final_norm="layer_norm",
    blocks={
        "attention": Block("self_attn", "self_attn", "self_attn_layer_norm"),
        "ffn": Block("fc1", "fc2", "final_layer_norm"),
    },
    projections={
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.out_proj",
        "fc1": "fc1",
        "fc2": "fc2",
    },
    layout="frames",
    watched="layers.0",
    shape=_shape,
    parameters=_parameters,
    convs=("conv1", "conv2"),
    fixed=("embed_positions.weight",),
    extractor="WhisperFeatureExtractor",
    extras={"module": "transformers.models.whisper.modeling_whisper"},
)
