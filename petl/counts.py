"""Trainable parameters of a configuration in closed form, so a space is checked without a model (torch-free).

Symbols: hidden size d, feed-forward width f, width or rank r, kernel area k (squared over a grid), experts n,
slots s, classes C; biases are included. The formulas of the blocks stand beside their names in `_BLOCKS`.
"""

from __future__ import annotations

from collections.abc import Callable

from petl import plan
from petl.config import AdapterOptions, MethodConfig
from petl.families import family_of
from petl.families.base import conv_parameters
from petl.outputs import Output
from petl.shape import BackboneShape

__all__ = ["BackboneShape", "backbone_parameters", "head_parameters", "trainable_parameters"]


def backbone_parameters(shape: BackboneShape, frames: int | None = None) -> int:
    """Parameters of the frozen backbone itself, for inputs of `frames` frames where positions depend on them."""
    return family_of(shape.family).parameters(shape, frames)


def trainable_parameters(
    method: MethodConfig, shape: BackboneShape, output: Output | int | None = None, frames: int | None = None
) -> int:
    """Number of trained scalars: method, unfrozen LayerNorms and, when `output` (or the number of classes) is given,
    the head.

    `frames` is the length of the input where it counts: full fine-tuning of a backbone whose positions depend on it.
    Raises `ConfigError` for options that do not fit the backbone.
    """
    plan.check(method, shape)
    total = sum(_METHODS[name](method, shape) for name in method.methods if name in _METHODS)
    total += shape.hidden * len(plan.trained_norms(method, shape))
    if "full" in method.methods:
        total += _full(method, shape, frames)
    if output is not None:
        total += head_parameters(method, shape, output)
    return total


def head_parameters(method: MethodConfig, shape: BackboneShape, output: Output | int) -> int:
    """Parameters of the head for an output, or for so many classes."""
    size = output if isinstance(output, int) else output.size
    sequence, embeds = (False, False) if isinstance(output, int) else (output.sequence, output.embeds)
    pooled = 2 if not sequence and plan.pooling(method, family_of(shape.family)) == "stats" else 1
    own = 0 if embeds else size  # biases
    if method.head.kind == "projector":
        width = method.head.width
        return shape.hidden * width + width + pooled * width * size + own
    d = shape.hidden * pooled
    return d * size + own + (2 * d if method.head.kind == "norm_linear" else 0)


def block_parameters(block: str, d: int, r: int, kernel: int, options: AdapterOptions) -> int:
    """Parameters of one adapter block of width r."""
    area = kernel * kernel if options.axis == "grid" else kernel
    nine = 9 if options.axis == "grid" else 3
    return _BLOCKS[block](d, r, area, nine, options)


def _bottleneck(d: int, r: int, k: int, outer: int, options: AdapterOptions) -> int:
    return 2 * d * r + r + d


def _conformer(d: int, r: int, k: int, outer: int, options: AdapterOptions) -> int:
    norm = 2 * d if options.layernorm else 0
    return norm + (2 * d * r + 2 * r) + (r * k + r) + 2 * r + (d * r + d)


def _convpass(d: int, r: int, k: int, outer: int, options: AdapterOptions) -> int:
    return 2 * d * r + r + d + (0 if options.legacy_discard_conv else k * r * r + r)


def _conv(d: int, r: int, k: int, outer: int, options: AdapterOptions) -> int:
    gate = 2 * d * max(1, d // plan.GATE_REDUCTION) if options.gate else 0
    return 2 * d + outer * d + k * r + outer * d + gate


def _tiny_attention(d: int, r: int, k: int, outer: int, options: AdapterOptions) -> int:
    return 2 * d + (3 * d + 3) + 8 + 2 * d


def _tiny_external_attention(d: int, r: int, k: int, outer: int, options: AdapterOptions) -> int:
    return 2 * d + 2 * d * r


def _tiny_conformer(d: int, r: int, k: int, outer: int, options: AdapterOptions) -> int:
    middle = r // 2 if r % 2 == 0 else 1
    five = 25 if options.axis == "grid" else 5
    inner = _conv(r, middle, five, outer, options.model_copy(update={"gate": True}))
    return 2 * d + (d * r + r) + inner + _tiny_attention(r, 1, 0, 0, options) + 2 * r + (d * r + d)


_BLOCKS: dict[str, Callable[[int, int, int, int, AdapterOptions], int]] = {
    "bottleneck": _bottleneck,  # 2dr + r + d
    "conformer": _conformer,  # 2d + (2dr + 2r) + (rk + r) + 2r + (dr + d)
    "convpass": _convpass,  # 2dr + r + d + kr² + r
    "conv": _conv,  # 2d + 3d + kr + 3d + d²/8
    "tiny_attention": _tiny_attention,  # 7d + 11
    "tiny_external_attention": _tiny_external_attention,  # 2d + 2dr
    "tiny_conformer": _tiny_conformer,  # LayerNorm, d -> r, conv block and tiny attention of width r, LayerNorm, r -> d
}


def _layers(method: MethodConfig, shape: BackboneShape) -> int:
    return len(plan.adapted_layers(method, shape.layers))


def _adapter(method: MethodConfig, shape: BackboneShape) -> int:
    options = method.adapter
    width, kernel = plan.adapter_width(options, shape.hidden), plan.adapter_kernel(options)
    one = block_parameters(options.block, shape.hidden, width, kernel, options)
    blocks = len(plan.adapter_sites(options)) * (2 if options.placement == "hydra" else 1)
    return _layers(method, shape) * blocks * one


def _lora(method: MethodConfig, shape: BackboneShape) -> int:
    r = plan.lora_rank(method.lora, shape.hidden)
    pairs = plan.lora_groups(method.lora, shape)
    return _layers(method, shape) * sum(r * sum(plan.projection_sizes(group[0], shape)) for group in pairs)


def _bitfit(method: MethodConfig, shape: BackboneShape) -> int:
    layers = set(plan.adapted_layers(method, shape.layers)) - set(plan.partial_layers(method, shape.layers))
    # The biases of LayerNorms are counted with the norms.
    return len(layers) * (shape.attention_biases + shape.ffn + shape.hidden)


def _partial(method: MethodConfig, shape: BackboneShape) -> int:
    return sum(shape.layer_parameters(index) for index in plan.partial_layers(method, shape.layers))


def _full(method: MethodConfig, shape: BackboneShape, frames: int | None) -> int:
    total = backbone_parameters(shape, frames)
    if not method.full.feature_encoder:
        total -= conv_parameters(shape.convs)
    if shape.spec_embed and (method.frozen_eval or not shape.masks_time):
        total -= shape.hidden  # nothing masks, so nothing trains the vector of masked frames
    return total - (shape.fixed * shape.tokens(frames) if shape.fixed else 0)


def _prompt(method: MethodConfig, shape: BackboneShape) -> int:
    sets = _layers(method, shape) if method.prompt.deep else 1
    return sets * method.prompt.length * shape.hidden


def _prefix(method: MethodConfig, shape: BackboneShape) -> int:
    options, d = method.prefix, shape.hidden
    pairs, outputs = plan.prefix_pairs(options), _layers(method, shape) * 2 * d
    if not options.reparam:
        return pairs * outputs
    h = options.hidden or d
    return pairs * d + (d * h + h) + (h * outputs + outputs)


def _expert(method: MethodConfig, shape: BackboneShape) -> int:
    """Parameters of one expert; those of Soft-MoA convolve over slots, in one dimension."""
    options = method.moa
    adapter = AdapterOptions(
        block=options.expert,
        axis="time" if "soft_moa" in method.methods else options.axis,
        legacy_discard_conv=options.legacy_discard_conv,
    )
    width, kernel = plan.expert_width(options, shape.hidden), plan.expert_kernel(options)
    return block_parameters(options.expert, shape.hidden, width, kernel, adapter)


def _dense_moa(method: MethodConfig, shape: BackboneShape) -> int:
    d, n = shape.hidden, method.moa.experts
    per_site = n * _expert(method, shape) + d * n + n
    return _layers(method, shape) * len(plan.moa_sites(method.moa)) * per_site


def _soft_moa(method: MethodConfig, shape: BackboneShape) -> int:
    d, n, s = shape.hidden, method.moa.experts, method.moa.slots
    scale = 0 if method.moa.normalize == "none" else 1
    per_site = n * _expert(method, shape) + d * n * s + scale
    return _layers(method, shape) * len(plan.moa_sites(method.moa)) * per_site


def _feature_adapter(method: MethodConfig, shape: BackboneShape) -> int:
    options = method.feature_adapter
    sequential = any(conv.norm == "group" for conv in shape.convs)
    total = 0
    for index, conv in enumerate(shape.convs):
        width = conv.outputs if index == 0 and options.published_first else options.width
        if sequential:
            total += 2 * conv.outputs * width + width + conv.outputs
        else:
            down = conv.inputs * width * conv.kernel + (width if conv.bias else 0)
            total += down + width * conv.outputs + conv.outputs
    return total


_METHODS: dict[str, Callable[[MethodConfig, BackboneShape], int]] = {
    "partial": _partial,
    "bitfit": _bitfit,
    "adapter": _adapter,
    "lora": _lora,
    "prompt": _prompt,
    "prefix": _prefix,
    "dense_moa": _dense_moa,
    "soft_moa": _soft_moa,
    "feature_adapter": _feature_adapter,
}
"""Base method -> parameters it adds (linear and full are counted apart)."""
