"""What a method configuration means for a backbone of a given size: layers, widths, sites (torch-free).

`attach` builds modules from these answers and `petl.counts` counts parameters from them, so a space can be
checked without a model. Sites are named as in `petl.sites`: "attention" and "ffn" are the two sub-layers,
"layer" is the whole transformer layer.
"""

from __future__ import annotations

from petl.config import DEFAULT_NORMS, AdapterOptions, LoraOptions, MethodConfig, MoaOptions
from petl.errors import ConfigError

DEFAULT_REDUCTION = 64
DEFAULT_RANK = 12

_TARGET_SITE = {
    "q": "attention",
    "k": "attention",
    "v": "attention",
    "o": "attention",
    "fc1": "ffn",
    "fc2": "ffn",
}


def adapted_layers(config: MethodConfig, layers: int) -> range:
    """Indices of the adapted layers of a backbone with `layers` layers; `ConfigError` when out of range."""
    last = layers - 1 if config.layers.last is None else config.layers.last
    for key, value in (("layers.first", config.layers.first), ("layers.last", last)):
        if value >= layers:
            raise ConfigError(
                f"{key} is {value}, but the backbone has {layers} layers, counted from 0 to {layers - 1}", key
            )
    return range(config.layers.first, last + 1)


def adapter_width(options: AdapterOptions, hidden: int) -> int:
    """Bottleneck width R: `adapter.width`, or round(hidden / `adapter.reduction`)."""
    if options.width is not None:
        return options.width
    return _reduced(hidden, options.reduction or DEFAULT_REDUCTION, "adapter.reduction")


def expert_width(options: MoaOptions, hidden: int) -> int:
    """Width R of each expert: round(hidden / `moa.reduction`)."""
    return _reduced(hidden, options.reduction, "moa.reduction")


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


def adapter_sites(options: AdapterOptions) -> tuple[str, ...]:
    """Sites of the bottleneck adapter: Pfeiffer has one, Houlsby (`both`) two."""
    return ("attention", "ffn") if options.location == "both" else (options.location,)


def moa_sites(options: MoaOptions) -> tuple[str, ...]:
    """Sites of a mixture; `both` gives each its own experts and router."""
    return ("attention", "ffn") if options.location == "both" else (options.location,)


def lora_sites(options: LoraOptions) -> tuple[str, ...]:
    """Sub-layers that hold at least one LoRA target."""
    used = {_TARGET_SITE[target] for target in options.target_names}
    return tuple(site for site in ("attention", "ffn") if site in used)


def norm_sites(config: MethodConfig) -> tuple[str, ...]:
    """Sub-layers whose LayerNorm trains, in every adapted layer."""
    used: set[str] = set()
    for method in config.methods:
        norms = config.norms if config.norms is not None else DEFAULT_NORMS[method]
        if "site" in norms.split("+"):
            used.update(_sites_of(method, config))
    return tuple(site for site in ("attention", "ffn") if site in used)


def final_norm(config: MethodConfig) -> bool:
    """Whether the LayerNorm after the last layer trains."""
    return "final" in config.trained_norms


def _sites_of(method: str, config: MethodConfig) -> tuple[str, ...]:
    if method == "adapter":
        return adapter_sites(config.adapter)
    if method == "lora":
        return lora_sites(config.lora)
    if method in ("dense_moa", "soft_moa"):
        return moa_sites(config.moa)
    return ()


def _reduced(hidden: int, reduction: float, key: str) -> int:
    width = round(hidden / reduction)
    if width < 1:
        raise ConfigError(
            f"{key} is {reduction:g}, which leaves a width of 0 on a backbone of hidden size {hidden}; "
            f"use at most {hidden}",
            key,
        )
    return width
