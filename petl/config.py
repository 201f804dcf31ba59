"""What a PETL method is made of: typed, frozen options under the dotted names users write (torch-free).

The dotted names are the only vocabulary: spaces, MLflow, `trials.parquet`, adapter directories and Python
calls all use them. `MethodConfig.from_flat({"method": "soft_moa", "moa.experts": 7})` is the way in,
`to_flat()` the way out; options of methods that are not in use are refused on the way in and absent on the
way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from petl.errors import ConfigError, nearest
from petl.keys import KeyInfo, flatten, keys_of, nest, validated

METHODS: dict[str, str] = {
    "linear": "head (and final LayerNorm) only: the linear probe",
    "full": "every weight of the backbone: full fine-tuning",
    "partial": "the last layers of the backbone",
    "bitfit": "the biases of linear maps and LayerNorms (BitFit)",
    "adapter": "small modules at the sub-layers: bottleneck, conformer, convolutional, attentive",
    "lora": "low-rank updates of the attention and feed-forward projections (LoRA)",
    "prompt": "learned tokens in front of the sequence, at the input or in every layer",
    "prefix": "learned keys and values in front of every layer's own (prefix tuning)",
    "dense_moa": "mixture of adapters, every expert on every token, softmax router (Dense-MoA)",
    "soft_moa": "mixture of adapters on soft slots of tokens (Soft-MoA)",
    "feature_adapter": "small convolutions inside a convolutional front end",
}
"""The base methods, and what each trains. Several are combined with `+`."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "partial": ("partial",),
    "full": ("full",),
    "adapter": ("adapter",),
    "lora": ("lora",),
    "prompt": ("prompt",),
    "prefix": ("prefix",),
    "moa": ("dense_moa", "soft_moa"),
    "feature_adapter": ("feature_adapter",),
}
"""Section of dotted option names -> base methods that read it."""

LAYERED = ("bitfit", "adapter", "lora", "prompt", "prefix", "dense_moa", "soft_moa")
"""Base methods that work on a range of layers (`layers.first`, `layers.last`)."""

_CONV_BLOCKS = ("conformer", "convpass", "conv", "tiny_conformer")
_DROPOUT_BLOCKS = ("bottleneck", "conformer", "convpass", "conv", "tiny_attention", "tiny_conformer")
_NARROW_BLOCKS = ("bottleneck", "conformer", "convpass", "conv", "tiny_conformer")
READ_WITH: dict[str, dict[str, tuple[Any, ...]]] = {
    "moa.slots": {"method": ("soft_moa",)},
    "moa.normalize": {"method": ("soft_moa",)},
    "moa.legacy_double_add": {"moa.location": ("attention",)},
    "moa.kernel": {"moa.expert": ("conformer", "convpass"), "moa.legacy_discard_conv": (False,)},
    "moa.axis": {
        "moa.expert": ("conformer", "convpass"),
        "method": ("dense_moa",),
        "moa.legacy_discard_conv": (False,),
    },
    "moa.legacy_discard_conv": {"moa.expert": ("convpass",)},
    "adapter.reduction": {"adapter.block": _NARROW_BLOCKS},
    "adapter.ratio": {"adapter.block": _NARROW_BLOCKS},
    "adapter.width": {"adapter.block": (*_NARROW_BLOCKS, "tiny_external_attention")},
    "adapter.activation": {"adapter.block": ("bottleneck",)},
    "adapter.kernel": {"adapter.block": ("conformer", "convpass", "conv"), "adapter.legacy_discard_conv": (False,)},
    "adapter.axis": {"adapter.block": _CONV_BLOCKS, "adapter.legacy_discard_conv": (False,)},
    "adapter.layernorm": {"adapter.block": ("conformer",)},
    "adapter.gate": {"adapter.block": ("conv",)},
    "adapter.dropout": {"adapter.block": _DROPOUT_BLOCKS},
    "adapter.legacy_discard_conv": {"adapter.block": ("convpass",)},
    "adapter.order": {"adapter.placement": ("parallel", "sequential")},
    "adapter.residual": {"adapter.placement": ("parallel", "sequential")},
    "prefix.hidden": {"prefix.reparam": (True,)},
    "head.width": {"head.kind": ("projector",)},
}
"""Option -> the values of other options with which it is read; an option that is not listed always is.

Under "method" any one of the listed methods, alone or in a combination, is enough. An option that is itself not read
counts as its default.
"""

UNREAD_BESIDE: dict[str, tuple[str, ...]] = {"norms": ("full",)}
"""Option -> methods that leave it without a meaning, alone or in a combination: `full` trains every LayerNorm."""

LORA_TARGETS = ("q", "k", "v", "o", "fc1", "fc2")
NORMS = Literal["none", "site", "final", "site+final"]
POOLINGS = Literal["mean", "cls", "cls+dist", "patches", "prompts", "speech", "prompts+speech", "masked_mean", "stats"]
PUBLISHED_NORMS: dict[str, NORMS] = {
    "linear": "final",
    "adapter": "site+final",
    "lora": "final",
    "prompt": "final",
    "prefix": "final",
    "dense_moa": "site+final",
    "soft_moa": "site+final",
}
"""LayerNorms that the published recipes train beside a method on an AST; none on models that read waveforms."""


class Options(BaseModel):
    """Base of every group of options: frozen, strict about unknown names, no silent type changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


PositiveInt = Annotated[int, Field(ge=1)]
Reduction = Annotated[float, Field(ge=1)]


class LayerRange(Options):
    """Which transformer layers are adapted, counted from 0, both ends included."""

    first: Annotated[int, Field(ge=0)] = 0
    last: Annotated[int, Field(ge=0)] | None = None  # None: the top layer

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.last is not None and self.last < self.first:
            raise ValueError(f"layers.last ({self.last}) is below layers.first ({self.first})")
        return self


class PartialOptions(Options):
    """Fine-tuning of the top layers: the last n, or the upper half (AAT, arXiv 2401.10544)."""

    last: PositiveInt | Literal["half"] = "half"


class FullOptions(Options):
    """Full fine-tuning; `feature_encoder: false` leaves the convolutions that read the waveform frozen."""

    feature_encoder: bool = True


class AdapterOptions(Options):
    """Adapters: what they compute (`block`), how large, where, and how they join the sub-layer.

    `block`, with the published widths and kernels as defaults (d is the model width):

    * `bottleneck` W_u act(W_d x + b_d) + b_u (arXiv 1902.00751), width d/64;
    * `conformer` LayerNorm, pointwise GLU, depthwise convolution (kernel 31), BatchNorm, SiLU (arXiv 2312.03694),
      width d/96;
    * `convpass` a convolution (kernel 3) inside the bottleneck (arXiv 2207.07039), width d/128;
    * `conv` ConvAdapter of SURE (arXiv 2303.03267): grouped convolutions with kernels 3, `kernel` (5; 0 leaves it
      out), 3 and a squeeze-excite `gate`, width d/2;
    * `tiny_attention` one-dimensional attention (arXiv 2211.01979); `tiny_external_attention` attention to `width`
      (8) learned units; `tiny_conformer` both, narrow (d/32).

    `placement` and `order`, with u the input and F the sub-layer (`residual` adds the adapter's own input):

    * parallel, before: F(u) + A(u); parallel, after: F(u) + A(F(u));
    * sequential, after: A(F(u)) + F(u), without residual A(F(u)); sequential, before: F(v) + A(u) with
      v = A(u) + u, without residual v = A(u);
    * hydra: F(u) + A_s(F(u)) + A_p(u); mixed (AAT): sequential after the attention, parallel to the feed-forward.

    `axis`: the convolution runs along time within a frequency row, over the 2-D grid of patches, or, as the
    published code does, along the flattened sequence with special tokens in it.
    """

    block: Literal[
        "bottleneck", "conformer", "convpass", "conv", "tiny_attention", "tiny_external_attention", "tiny_conformer"
    ] = "bottleneck"
    reduction: Reduction | None = None  # width = round(hidden / reduction)
    width: PositiveInt | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None  # width = int(hidden * ratio)
    location: Literal["ffn", "attention", "both", "layer"] = "ffn"
    placement: Literal["parallel", "sequential", "hydra", "mixed"] = "parallel"
    order: Literal["before", "after"] | None = None  # None: before when parallel, after when sequential
    residual: bool | None = None  # None: yes when sequential, no when parallel
    activation: Literal["gelu", "relu"] = "gelu"
    kernel: Annotated[int, Field(ge=0, le=255)] | None = None  # None: the block's published kernel
    axis: Literal["time", "grid", "sequence"] = "time"
    layernorm: bool = True  # conformer: its own LayerNorm, which the published code computes and drops on AST
    gate: bool = True  # conv: squeeze-excite gate
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None  # None: the block's published rate
    init: Literal["zero", "published"] | None = None  # None: zero for bottleneck and convpass, published for others
    legacy_discard_conv: bool = False  # convpass: the published code computes the convolution and drops it

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        given = [f"adapter.{name}" for name in ("reduction", "width", "ratio") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both set the width of the adapter; give one of them")
        return self

    @model_validator(mode="after")
    def _joined(self) -> Self:
        if self.kernel == 0 and self.block != "conv":
            raise ValueError("adapter.kernel 0 leaves out the middle convolution of block 'conv'; other blocks need 1")
        if self.placement == "mixed" and self.location != "both":
            raise ValueError(
                "adapter.placement 'mixed' is sequential at the attention and parallel at the feed-forward; "
                f"it needs adapter.location 'both', found '{self.location}'"
            )
        if self.location == "layer" and (self.placement == "hydra" or self.order is not None):
            key, value = ("placement", "hydra") if self.placement == "hydra" else ("order", self.order)
            raise ValueError(f"adapter.{key} '{value}' has no meaning with adapter.location 'layer'; leave it out")
        if self.placement == "parallel" and self.order == "after" and self.residual is not None:
            raise ValueError(
                "adapter.residual has no meaning with adapter.placement 'parallel' and adapter.order 'after', "
                "which keeps the sub-layer's output anyway; leave it out"
            )
        return self

    @property
    def adds_input(self) -> bool:
        return self.placement != "parallel" if self.residual is None else self.residual

    @property
    def where(self) -> Literal["before", "after"]:
        """`order`, or what it is for the placement when not given."""
        return self.order or ("before" if self.placement == "parallel" else "after")


class LoraOptions(Options):
    """LoRA (Hu et al. 2021): W x + b + s B A x, A Kaiming-uniform, B = 0 at start."""

    rank: PositiveInt | None = None  # 12 when neither rank nor reduction is given
    reduction: Reduction | None = None  # rank = round(hidden / reduction)
    alpha: Annotated[float, Field(gt=0)] = 16.0
    targets: str = "q,v"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    scaling: Literal["alpha/r", "alpha/RR"] = "alpha/r"
    shared: bool = False  # one pair A, B for all targets of a layer that have its sizes, as an early release had

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rank is not None and self.reduction is not None:
            raise ValueError("lora.rank and lora.reduction both set the rank; give one of them")
        names = [name.strip() for name in self.targets.split(",")]
        for name in names:
            if name not in LORA_TARGETS:
                raise ValueError(
                    f"lora.targets holds '{name}'{nearest(name, LORA_TARGETS)}; "
                    f"allowed: any of {', '.join(LORA_TARGETS)}, joined with commas"
                )
        if len(set(names)) < len(names):
            raise ValueError(f"lora.targets '{self.targets}' names a projection twice")
        return self

    @property
    def target_names(self) -> tuple[str, ...]:
        """Targets in the order of the network."""
        chosen = {name.strip() for name in self.targets.split(",")}
        return tuple(name for name in LORA_TARGETS if name in chosen)


class PromptOptions(Options):
    """Prompt tuning (arXiv 2203.12119): `length` learned tokens behind the special ones.

    `deep`: every adapted layer has prompts of its own, which replace those of the layer below. `insertion`:

    * `insert` keeps all tokens;
    * `replace_dist` puts the prompts behind CLS and drops the distillation token (published code of 2312.03694);
    * `overwrite` writes the prompts over the first patches or frames (published code of AAT, 2401.10544).
    """

    length: Annotated[int, Field(ge=1, le=4096)] = 25
    deep: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    insertion: Literal["insert", "replace_dist", "overwrite"] = "insert"


class PrefixOptions(Options):
    """Prefix tuning: `length` learned keys and values in front of every adapted layer's own.

    `split`: `length` counts keys and values together, as in 2312.03694 (24 are 12 and 12). `table`: a parameter per
    layer, or one embedding table for all layers as in P-tuning v2 (arXiv 2110.07602) and SURE. `reparam`: the table
    is the output of tanh MLP of width `hidden` (default: the model width).
    """

    length: Annotated[int, Field(ge=1, le=4096)] = 24
    split: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    table: Literal["layers", "embedding"] = "layers"
    reparam: bool = False
    hidden: PositiveInt | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.split and self.length % 2:
            raise ValueError(
                f"prefix.length is {self.length}, which does not split into as many keys as values; "
                "use an even number, or prefix.split: false"
            )
        if self.reparam and self.table != "embedding":
            raise ValueError("prefix.reparam needs prefix.table 'embedding', the table that it computes")
        return self


class FeatureAdapterOptions(Options):
    """Adapters in the convolutional front end (SURE): `width` channels beside each convolution.

    `published_first`: the first layer's adapter is as wide as the layer itself, as in the published code.
    """

    width: PositiveInt = 8
    published_first: bool = False


class HeadOptions(Options):
    """The task head: a linear map; LayerNorm and linear map (AAT); two linear maps, the first before pooling (SURE)."""

    kind: Literal["linear", "norm_linear", "projector"] = "linear"
    width: PositiveInt = 256


class MoaOptions(Options):
    """Mixtures of adapters (arXiv 2402.00828). `slots` and `normalize` are read by Soft-MoA only.

    `expert`, `kernel` and `axis` are as in `AdapterOptions`; the experts of Soft-MoA see slots, a sequence without
    any layout.
    """

    experts: Annotated[int, Field(ge=1, le=256)] = 7
    slots: PositiveInt = 1
    reduction: Reduction = 128.0  # width of each expert = round(hidden / reduction)
    location: Literal["attention", "ffn", "both"] = "attention"
    expert: Literal["bottleneck", "convpass", "conformer"] = "bottleneck"
    kernel: Annotated[int, Field(ge=1, le=255)] | None = None
    axis: Literal["time", "grid", "sequence"] = "time"
    normalize: Literal["none", "soft_moe", "published"] = "none"
    legacy_double_add: bool = False  # the published code adds an attention-site mixture twice
    legacy_discard_conv: bool = False  # convpass: the published code computes the convolution and drops it


_SECTION_MODELS: dict[str, type[Options]] = {
    "head": HeadOptions,
    "layers": LayerRange,
    "partial": PartialOptions,
    "full": FullOptions,
    "adapter": AdapterOptions,
    "lora": LoraOptions,
    "prompt": PromptOptions,
    "prefix": PrefixOptions,
    "moa": MoaOptions,
    "feature_adapter": FeatureAdapterOptions,
}


class MethodConfig(Options):
    """One PETL method (or several joined with `+`), its options, and how tokens are pooled for the head."""

    method: str = "linear"
    pooling: POOLINGS | None = None  # None: mean of all tokens on an AST, masked mean of the frames elsewhere
    norms: NORMS | None = None  # which LayerNorms of the backbone train; None: the published choice
    backbone_mode: Literal["eval", "train"] | None = None  # None: dropout etc. of the backbone only for full, partial
    head: HeadOptions = HeadOptions()
    layers: LayerRange = LayerRange()
    partial: PartialOptions = PartialOptions()
    full: FullOptions = FullOptions()
    adapter: AdapterOptions = AdapterOptions()
    lora: LoraOptions = LoraOptions()
    prompt: PromptOptions = PromptOptions()
    prefix: PrefixOptions = PrefixOptions()
    moa: MoaOptions = MoaOptions()
    feature_adapter: FeatureAdapterOptions = FeatureAdapterOptions()

    @model_validator(mode="after")
    def _known_methods(self) -> Self:
        for name in self.methods:
            if name not in METHODS:
                if not name and "+" in self.method:
                    raise ValueError(f"method '{self.method}' joins nothing with '+'; name a method on both sides")
                raise ValueError(
                    f"method '{name}' is not known{nearest(name, METHODS)}; "
                    f"allowed: {', '.join(METHODS)}, or several joined with '+'"
                )
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"method '{self.method}' names a method twice")
        if "linear" in self.methods and len(self.methods) > 1:
            raise ValueError(f"method '{self.method}': 'linear' trains the head alone and joins nothing")
        if {"dense_moa", "soft_moa"} <= set(self.methods):
            raise ValueError(f"method '{self.method}': dense_moa and soft_moa share their options; use one")
        if "full" in self.methods and {"partial", "bitfit"} & set(self.methods):
            raise ValueError(f"method '{self.method}': 'full' trains every weight already; leave the other one out")
        return self

    @model_validator(mode="after")
    def _poolable(self) -> Self:
        prompts = "prompt" in self.methods
        if self.pooling in ("prompts", "prompts+speech") and not (prompts and self.prompt.insertion != "overwrite"):
            found = f"prompt.insertion '{self.prompt.insertion}'" if prompts else f"method '{self.method}'"
            raise ValueError(f"pooling '{self.pooling}' needs prompts among the tokens, which {found} does not give")
        if self.pooling == "cls+dist" and prompts and self.prompt.insertion == "replace_dist":
            raise ValueError(
                "pooling 'cls+dist' needs the distillation token, which prompt.insertion 'replace_dist' drops"
            )
        return self

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.method.split("+"))

    @property
    def trains_backbone(self) -> bool:
        """Whether weights of the backbone itself train (biases and LayerNorms do not count)."""
        return bool({"full", "partial"} & set(self.methods))

    @property
    def frozen_eval(self) -> bool:
        """Whether the backbone stays in evaluation mode: no dropout, no LayerDrop, no latent SpecAugment."""
        return not self.trains_backbone if self.backbone_mode is None else self.backbone_mode == "eval"

    def applies(self, key: str) -> bool:
        """Whether the dotted option `key` has a meaning for this method with these options."""
        return not why_unread(key, self._plain())

    def _plain(self) -> dict[str, Any]:
        return flatten(self, _SECTION_MODELS)

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> Self:
        """Build from dotted keys; `ConfigError` names the key for anything unknown, wrong or unused."""
        known = {info.key for info in method_keys()}
        for key in flat:
            if key not in known:
                raise ConfigError(f"'{key}' is not a method key{nearest(key, known)}", key)
        config = validated(cls, nest(flat, _SECTION_MODELS))
        plain = config._plain()
        for key in flat:
            reason = why_unread(key, plain)
            if reason:
                raise ConfigError(f"'{key}' has no meaning {reason}; leave it out", key)
        return config

    def to_flat(self) -> dict[str, Any]:
        """Every option that has a meaning for this method and is set, under its dotted name."""
        plain = self._plain()
        return {k: v for k, v in plain.items() if v is not None and not why_unread(k, plain)}


def why_unread(key: str, flat: Mapping[str, Any]) -> str:
    """Why an option has no meaning beside the other options in `flat`; "" when it has one.

    Options that `flat` lacks count as their defaults, so a partial configuration will do: it must hold `method`.
    """
    methods = tuple(part.strip() for part in str(flat.get("method", "linear")).split("+"))
    section = key.partition(".")[0]
    if section in SECTIONS and not set(SECTIONS[section]) & set(methods):
        return f"for method '{flat.get('method')}'"
    if section == "layers" and not set(LAYERED) & set(methods):
        return f"for method '{flat.get('method')}'"
    if set(UNREAD_BESIDE.get(key, ())) & set(methods):
        return f"for method '{flat.get('method')}'"
    for parent, values in READ_WITH.get(key, {}).items():
        if parent == "method":
            if not set(values) & set(methods):
                return f"for method '{flat.get('method')}'"
        elif (found := _in_effect(parent, flat)) not in values:
            return f"with {parent} {str(found).lower() if isinstance(found, bool) else repr(found)}"
    return ""


def readers(key: str) -> dict[str, tuple[Any, ...]]:
    """What an option needs to be read: {"method": (…), "adapter.block": (…)}; empty when it always is."""
    section = key.partition(".")[0]
    needs: dict[str, tuple[Any, ...]] = {}
    if section == "layers":
        needs["method"] = LAYERED
    elif section in SECTIONS:
        needs["method"] = SECTIONS[section]
    return {**needs, **READ_WITH.get(key, {})}


def _in_effect(key: str, flat: Mapping[str, Any]) -> Any:
    """The value of an option; its default when it is not given, or not read."""
    return flat[key] if key in flat and not why_unread(key, flat) else _default(key)


def _default(key: str) -> Any:
    section, _, name = key.partition(".")
    return _SECTION_MODELS[section].model_fields[name].get_default(call_default_factory=True)


@cache
def method_keys() -> tuple[KeyInfo, ...]:
    """Every dotted key a method understands."""
    keys = keys_of(MethodConfig, _SECTION_MODELS)
    return tuple(KeyInfo(i.key, i.annotation, i.default, _methods_of(i.key)) for i in keys)


def _methods_of(key: str) -> tuple[str, ...]:
    return readers(key).get("method", ())
