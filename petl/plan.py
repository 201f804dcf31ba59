"""What a method configuration means for a backbone of a given size: layers, widths, sites (torch-free).

`attach` builds modules from these answers and `petl.counts` counts parameters from them, so a space can be
checked without a model. Sites are named as in `petl.families`: "attention" and "ffn" are the two sub-layers,
"layer" is the whole transformer layer.
"""

from __future__ import annotations

from petl.config import (
    LAYERED,
    PUBLISHED_NORMS,
    AdapterOptions,
    LoraOptions,
    MethodConfig,
    MoaOptions,
    PrefixOptions,
)
from petl.errors import ConfigError
from petl.families import Family, family_of
from petl.shape import BackboneShape

DEFAULT_REDUCTION = {"bottleneck": 64, "conformer": 96, "convpass": 128, "conv": 2, "tiny_conformer": 32}
"""Block -> reduction rate of its published width."""
DEFAULT_KERNEL = {"conformer": 31, "convpass": 3, "conv": 5}
EXTERNAL_UNITS = 8
DEFAULT_RANK = 12
GATE_REDUCTION = 16

NormTensor = tuple[int, str, str]
"""(layer, site, "weight" or "bias") of a LayerNorm; layer -1 and site "final" for the one behind the last layer."""

_TARGET_SITE = {
    "q": "attention",
    "k": "attention",
    "v": "attention",
    "o": "attention",
    "fc1": "ffn",
    "fc2": "ffn",
}


def check(config: MethodConfig, shape: BackboneShape) -> Family:
    """Raise `ConfigError` for options that do not fit the backbone; returns its family."""
    family = family_of(shape.family)
    methods = config.methods
    if set(LAYERED) & set(methods):
        adapted_layers(config, shape.layers)
    if "partial" in methods:
        partial_layers(config, shape.layers)
    if "adapter" in methods:
        adapter_width(config.adapter, shape.hidden)
        _check_axis("adapter.axis", config.adapter.axis, config.applies("adapter.axis"), family)
    if {"dense_moa", "soft_moa"} & set(methods):
        expert_width(config.moa, shape.hidden)
        _check_axis("moa.axis", config.moa.axis, config.applies("moa.axis"), family)
    if "lora" in methods:
        _check_rank(config.lora, shape)
    if "prompt" in methods:
        _check_prompts(config, shape, family)
    if "feature_adapter" in methods and not family.convs:
        raise ConfigError(
            f"method 'feature_adapter' needs a convolutional front end, which backbone family '{family.name}' lacks",
            "method",
        )
    if "full" in methods and not config.full.feature_encoder and family.feature_encoder is None:
        raise ConfigError(
            f"full.feature_encoder is false, but backbone family '{family.name}' has no convolutional feature "
            "encoder; leave the key out",
            "full.feature_encoder",
        )
    if config.pooling in ("cls", "cls+dist") and family.special < 2:
        raise ConfigError(
            f"pooling '{config.pooling}' needs a CLS token, which backbone family '{family.name}' lacks; "
            "use masked_mean, mean or stats",
            "pooling",
        )
    return family


def pooling(config: MethodConfig, family: Family) -> str:
    """How tokens are pooled: as configured, or as published for the family."""
    return config.pooling or ("mean" if family.special else "masked_mean")


def adapted_layers(config: MethodConfig, layers: int) -> range:
    """Indices of the adapted layers of a backbone with `layers` layers; `ConfigError` when out of range."""
    last = layers - 1 if config.layers.last is None else config.layers.last
    for key, value in (("layers.first", config.layers.first), ("layers.last", last)):
        if value >= layers:
            raise ConfigError(
                f"{key} is {value}, but the backbone has {layers} layers, counted from 0 to {layers - 1}", key
            )
    return range(config.layers.first, last + 1)


def partial_layers(config: MethodConfig, layers: int) -> range:
    """Indices of the fine-tuned layers of method `partial`; none for other methods."""
    if "partial" not in config.methods:
        return range(0)
    last = layers // 2 if config.partial.last == "half" else config.partial.last
    if last > layers:
        raise ConfigError(f"partial.last is {last}, but the backbone has {layers} layers", "partial.last")
    return range(layers - last, layers)


def adapter_width(options: AdapterOptions, hidden: int) -> int:
    """Width R: `adapter.width`, round(hidden / `adapter.reduction`), int(hidden * `adapter.ratio`), or published.

    For block `tiny_external_attention` the number of learned units; 1 for `tiny_attention`.
    """
    if options.block == "tiny_attention":
        return 1
    if options.block == "tiny_external_attention":
        return options.width or EXTERNAL_UNITS
    key, width = "adapter.width", options.width
    if options.ratio is not None:
        key, width = "adapter.ratio", int(hidden * options.ratio)
        if width < 1:
            raise ConfigError(
                f"adapter.ratio is {options.ratio:g}, which leaves a width of 0 on a backbone of hidden size {hidden}",
                key,
            )
    elif width is None:
        key = "adapter.reduction"
        default = options.reduction is None
        width = _reduced(hidden, options.reduction or DEFAULT_REDUCTION[options.block], key, default)
    if options.block == "conv" and hidden % width:
        raise ConfigError(
            f"{key} gives a width of {width}, but the grouped convolutions of block 'conv' need one that divides the "
            f"hidden size {hidden}",
            key,
        )
    return width


def adapter_kernel(options: AdapterOptions) -> int:
    """`adapter.kernel`, or the published one of the block."""
    return DEFAULT_KERNEL.get(options.block, 0) if options.kernel is None else options.kernel


def expert_width(options: MoaOptions, hidden: int) -> int:
    """Width R of each expert: round(hidden / `moa.reduction`)."""
    return _reduced(hidden, options.reduction, "moa.reduction")


def expert_kernel(options: MoaOptions) -> int:
    """`moa.kernel`, or the published one of the expert's block."""
    return DEFAULT_KERNEL.get(options.expert, 0) if options.kernel is None else options.kernel


def lora_rank(options: LoraOptions, hidden: int) -> int:
    """Rank: `lora.rank`, or round(hidden / `lora.reduction`), or 12."""
    if options.rank is not None:
        return options.rank
    if options.reduction is None:
        return DEFAULT_RANK
    return _reduced(hidden, options.reduction, "lora.reduction")


def lora_alpha(options: LoraOptions, hidden: int) -> float:
    """The alpha for which alpha / rank is the scale in use.

    With `lora.scaling: alpha/r` it is `lora.alpha` itself. The published code divides alpha by the reduction
    rate RR instead (`alpha/RR`); where only a rank is given, RR is hidden / rank.
    """
    if options.scaling == "alpha/r":
        return options.alpha
    rank = lora_rank(options, hidden)
    reduction = options.reduction if options.reduction is not None else hidden / rank
    return options.alpha * rank / reduction


def prefix_pairs(options: PrefixOptions) -> int:
    """Learned keys (and as many values) in front of a layer's own."""
    return options.length // 2 if options.split else options.length


def adapter_sites(options: AdapterOptions) -> tuple[str, ...]:
    """Sites of the adapters: Pfeiffer has one, Houlsby (`both`) two."""
    return ("attention", "ffn") if options.location == "both" else (options.location,)


def moa_sites(options: MoaOptions) -> tuple[str, ...]:
    """Sites of a mixture; `both` gives each its own experts and router."""
    return ("attention", "ffn") if options.location == "both" else (options.location,)


def lora_sites(options: LoraOptions) -> tuple[str, ...]:
    """Sub-layers that hold at least one LoRA target."""
    used = {_TARGET_SITE[target] for target in options.target_names}
    return tuple(site for site in ("attention", "ffn") if site in used)


def lora_groups(options: LoraOptions, shape: BackboneShape) -> list[tuple[str, ...]]:
    """Targets that share one pair of matrices: one each, or with `lora.shared` those of equal sizes."""
    if not options.shared:
        return [(target,) for target in options.target_names]
    groups: dict[tuple[int, int], list[str]] = {}
    for target in options.target_names:
        groups.setdefault(projection_sizes(target, shape), []).append(target)
    return [tuple(group) for group in groups.values()]


def projection_sizes(target: str, shape: BackboneShape) -> tuple[int, int]:
    """(inputs, outputs) of projection "q", "k", "v", "o", "fc1" or "fc2"."""
    d, f = shape.hidden, shape.ffn
    return {"fc1": (d, f), "fc2": (f, d)}.get(target, (d, d))


def trained_norms(config: MethodConfig, shape: BackboneShape) -> frozenset[NormTensor]:
    """LayerNorm tensors that train beside (or, for BitFit, as part of) the methods.

    What full or partial fine-tuning trains anyway is not repeated here.
    """
    if "full" in config.methods:
        return frozenset()
    found: set[NormTensor] = set()
    family = family_of(shape.family)
    for method in config.methods:
        published = PUBLISHED_NORMS.get(method, "none") if family.norms else "none"
        norms = (config.norms if config.norms is not None else published).split("+")
        if "site" in norms and method in LAYERED:
            for layer in adapted_layers(config, shape.layers):
                found |= {(layer, site, t) for site in _sites_of(method, config) for t in ("weight", "bias")}
        if "final" in norms:
            found |= {(*_final(shape), tensor) for tensor in ("weight", "bias")}
        if method == "bitfit":
            for layer in adapted_layers(config, shape.layers):
                found |= {(layer, site, "bias") for site in ("attention", "ffn")}
            found.add((*_final(shape), "bias"))
    tuned = partial_layers(config, shape.layers)
    return frozenset(tensor for tensor in found if tensor[0] not in tuned)


def _final(shape: BackboneShape) -> tuple[int, str]:
    return (-1, "final") if shape.pre_norm else (shape.layers - 1, "ffn")


def _sites_of(method: str, config: MethodConfig) -> tuple[str, ...]:
    sites: tuple[str, ...] = ()
    if method == "adapter":
        sites = adapter_sites(config.adapter)
    elif method == "lora":
        sites = lora_sites(config.lora)
    elif method in ("dense_moa", "soft_moa"):
        sites = moa_sites(config.moa)
    elif method == "prefix":
        sites = ("attention",)
    elif method in ("prompt", "bitfit"):
        sites = ("attention", "ffn")
    return tuple(site for site in sites if site != "layer")


def _check_axis(key: str, axis: str, read: bool, family: Family) -> None:
    if read and axis == "grid" and family.layout != "grid":
        raise ConfigError(
            f"{key} 'grid' needs patches of a spectrogram; the frames of backbone family '{family.name}' lie in time "
            "alone: use 'time'",
            key,
        )


def _check_rank(options: LoraOptions, shape: BackboneShape) -> None:
    rank = lora_rank(options, shape.hidden)
    most = min(min(projection_sizes(target, shape)) for target in options.target_names)
    if rank > most:
        key = "lora.rank" if options.reduction is None else "lora.reduction"
        raise ConfigError(f"{key} gives rank {rank}, but the smallest target is {most} wide; use at most {most}", key)


def _check_prompts(config: MethodConfig, shape: BackboneShape, family: Family) -> None:
    options = config.prompt
    if options.insertion == "replace_dist" and family.special < 2:
        raise ConfigError(
            f"prompt.insertion 'replace_dist' drops a distillation token, which backbone family '{family.name}' lacks; "
            "use 'insert'",
            "prompt.insertion",
        )
    if options.insertion == "overwrite" and not shape.samples:  # the length of a waveform is another for every clip
        body = shape.tokens() - family.special
        if options.length >= body:
            what = "patches" if family.layout == "grid" else "frames"
            raise ConfigError(
                f"prompt.length is {options.length}, but there are {body} {what} to overwrite, and nothing would be "
                "left of the input",
                "prompt.length",
            )


def _reduced(hidden: int, reduction: float, key: str, default: bool = False) -> int:
    width = round(hidden / reduction)
    if width < 1:
        how = " where it is not given" if default else ""
        raise ConfigError(
            f"{key} is {reduction:g}{how}, which leaves a width of 0 on a backbone of hidden size {hidden}; "
            f"use at most {hidden}",
            key,
        )
    return width
