"""wav2vec 2.0, post-norm (base) and "stable layer norm" = pre-norm (large, XLSR) encoders.

The models that share its encoder (HuBERT, UniSpeech-SAT, Data2VecAudio, WavLM) build on `family` here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from petl.errors import UserError
from petl.families.base import Block, Family, conv_parameters, number, size, sizes
from petl.shape import BackboneShape, Conv


def shape_of(config: Mapping[str, Any]) -> BackboneShape:
    """Sizes of a wav2vec-like configuration, all that the families have in common."""
    if config.get("add_adapter"):
        raise UserError(
            "the backbone's config.json has add_adapter = true: it shortens its output behind the encoder, which "
            "no method or pooling here expects; use a checkpoint without it"
        )
    d = size(config, "hidden_size", 768)
    stable = bool(config.get("do_stable_layer_norm", False))
    masks_time = number(config, "mask_time_prob", 0.05) > 0
    mms = size(config, "adapter_attn_dim") if config.get("adapter_attn_dim") is not None else 0
    return BackboneShape(
        family=str(config.get("model_type")),
        hidden=d,
        layers=size(config, "num_hidden_layers", 12),
        heads=size(config, "num_attention_heads", 12),
        ffn=size(config, "intermediate_size", 3072),
        max_frames=16_000,
        pre_norm=stable,
        samples=True,
        convs=convs_of(config),
        spec_embed=masks_time or number(config, "mask_feature_prob", 0.0) > 0,
        masks_time=masks_time and config.get("apply_spec_augment", True) is not False,
        per_layer=2 * d * mms + mms + 3 * d if mms and stable else 0,
        other=projection_of(config) + positions_of(config) + 2 * d,
    )


def convs_of(config: Mapping[str, Any], norm: str | None = None) -> tuple[Conv, ...]:
    """The convolutions that read the waveform; `norm` overrides the configuration's feat_extract_norm."""
    dims = sizes(config, "conv_dim", (512,) * 7)
    kernels = sizes(config, "conv_kernel", (10, 3, 3, 3, 3, 2, 2))
    strides = sizes(config, "conv_stride", (5, 2, 2, 2, 2, 2, 2))
    if not len(dims) == len(kernels) == len(strides):
        raise UserError(
            f"the backbone's config.json has {len(dims)} entries in conv_dim, {len(kernels)} in conv_kernel and "
            f"{len(strides)} in conv_stride; one each per convolution is needed"
        )
    norm = norm or config.get("feat_extract_norm", "group")
    if norm not in ("group", "layer"):
        raise UserError(f"the backbone's config.json has feat_extract_norm = {norm!r}; allowed: 'group', 'layer'")
    bias = bool(config.get("conv_bias", False))
    return tuple(
        Conv(1 if i == 0 else dims[i - 1], out, k, s, 0, norm if norm == "layer" or i == 0 else "none", bias)
        for i, (out, k, s) in enumerate(zip(dims, kernels, strides, strict=True))
    )


def projection_of(config: Mapping[str, Any]) -> int:
    """Parameters between the convolutions and the encoder: LayerNorm and linear map."""
    last, d = sizes(config, "conv_dim", (512,) * 7)[-1], size(config, "hidden_size", 768)
    return 2 * last + last * d + d


def positions_of(config: Mapping[str, Any]) -> int:
    """Parameters of the convolution that gives positions, weight-normalised along its kernel: a length per tap."""
    kernel = size(config, "num_conv_pos_embeddings", 128)
    return positional_conv(config, kernel) + kernel


def positional_conv(config: Mapping[str, Any], kernel: int) -> int:
    """Parameters of a grouped convolution over frames, bias included."""
    d, groups = size(config, "hidden_size", 768), size(config, "num_conv_pos_embedding_groups", 16)
    return d * (d // groups) * kernel + d


def parameters_of(shape: BackboneShape, length: int | None = None) -> int:
    """All parameters of a wav2vec-like encoder."""
    layers = sum(shape.layer_parameters(index) for index in range(shape.layers))
    return conv_parameters(shape.convs) + shape.other + layers + (shape.hidden if shape.spec_embed else 0)


def family(
    model_type: str,
    model: str,
    *,
    shape: Callable[[Mapping[str, Any]], BackboneShape] = shape_of,
    parameters: Callable[[BackboneShape, int | None], int] = parameters_of,
    attention: Literal["interface", "wavlm"] = "interface",
) -> Family:
    """The table of a wav2vec-like family."""
    return Family(
        model_type=model_type,
        model=model,
        layers="encoder.layers",
        final_norm="encoder.layer_norm",
        blocks={
            "attention": Block("attention", "attention", "layer_norm"),
            "ffn": Block("feed_forward", "feed_forward", "final_layer_norm"),
        },
        projections={
            "q": "attention.q_proj",
            "k": "attention.k_proj",
            "v": "attention.v_proj",
            "o": "attention.out_proj",
            "fc1": "feed_forward.intermediate_dense",
            "fc2": "feed_forward.output_dense",
        },
        layout="frames",
        watched="encoder",
        shape=shape,
        parameters=parameters,
        convs="feature_extractor.conv_layers",
        feature_encoder="feature_extractor",
        masks=True,
        attention=attention,
    )


FAMILY = family("wav2vec2", "Wav2Vec2Model")
