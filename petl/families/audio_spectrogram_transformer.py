"""Audio Spectrogram Transformer (AST), any patch size and stride: SSAST- and DeiT-shaped checkpoints too.

A DeiT is an image transformer with the same layers and the same two special tokens; `load_backbone` makes an AST of
one (see `petl.pretrained`), for spectrograms of the default size unless told otherwise, so its configuration is read
here, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from petl.families.base import Block, Family, size
from petl.shape import AST_TYPE, BackboneShape

_KEYS = (
    ("hidden", "hidden_size", 768),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 12),
    ("ffn", "intermediate_size", 3072),
    ("mel_bins", "num_mel_bins", 128),
    ("patch", "patch_size", 16),
    ("frequency_stride", "frequency_stride", 10),
    ("time_stride", "time_stride", 10),
    ("max_frames", "max_length", 1024),
)


def _shape(config: Mapping[str, Any]) -> BackboneShape:
    sizes: dict[str, Any] = {name: size(config, key, default) for name, key, default in _KEYS}
    return BackboneShape(family=AST_TYPE, qkv_bias=bool(config.get("qkv_bias", True)), **sizes)


def _parameters(shape: BackboneShape, frames: int | None) -> int:
    d = shape.hidden
    embeddings = d * (shape.patch * shape.patch + 1) + 2 * d + d * shape.tokens(frames)
    return embeddings + shape.layers * shape.layer_parameters() + 2 * d


FAMILY = Family(
    model_type=AST_TYPE,
    model="ASTModel",
    layers="layers",
    final_norm="layernorm",
    blocks={
        "attention": Block("attention", "attention", "layernorm_before"),
        "ffn": Block("mlp", "mlp", "layernorm_after"),
    },
    projections={
        "q": "attention.q_proj",
        "k": "attention.k_proj",
        "v": "attention.v_proj",
        "o": "attention.o_proj",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    },
    layout="grid",
    watched="",
    shape=_shape,
    parameters=_parameters,
    special=2,
    norms=True,
    extractor="ASTFeatureExtractor",
)
