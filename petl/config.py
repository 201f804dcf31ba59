"""What a PETL method is made of: typed, frozen options under the dotted names users write (torch-free).

The dotted names are the only vocabulary: spaces, MLflow, `trials.parquet`, adapter directories and Python
calls all use them. `MethodConfig.from_flat({"method": "soft_moa", "moa.experts": 7})` is the way in,
`to_flat()` the way out; options of methods that are not in use are refused on the way in and absent on the
way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from petl.errors import ConfigError, nearest

M = TypeVar("M", bound=BaseModel)

METHODS: dict[str, str] = {
    "linear": "head (and final LayerNorm) only: the linear probe",
    "adapter": "bottleneck adapters beside or after the sub-layers",
    "lora": "low-rank updates of the attention and feed-forward projections",
    "dense_moa": "mixture of adapters, every expert on every token, softmax router (Dense-MoA)",
    "soft_moa": "mixture of adapters on soft slots of tokens (Soft-MoA)",
}
"""The base methods, and what each trains. Several are combined with `+`."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "adapter": ("adapter",),
    "lora": ("lora",),
    "moa": ("dense_moa", "soft_moa"),
}
"""Section of dotted option names -> base methods that read it."""

_SOFT_ONLY = ("moa.slots", "moa.normalize")

LORA_TARGETS = ("q", "k", "v", "o", "fc1", "fc2")
NORMS = Literal["none", "site", "final", "site+final"]
DEFAULT_NORMS: dict[str, NORMS] = {
    "linear": "final",
    "lora": "final",
    "adapter": "site+final",
    "dense_moa": "site+final",
    "soft_moa": "site+final",
}


class Options(BaseModel):
    """Base of every group of options: frozen, strict about unknown names, no silent type changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


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


class AdapterOptions(Options):
    """Bottleneck adapter (arXiv 1902.00751): W_u act(W_d x + b_d) + b_u, W_u = 0 at start."""

    block: Literal["bottleneck"] = "bottleneck"
    reduction: Reduction | None = None  # width = round(hidden / reduction); 64 when neither is given
    width: PositiveInt | None = None
    location: Literal["ffn", "attention", "both", "layer"] = "ffn"
    placement: Literal["parallel", "sequential"] = "parallel"
    residual: bool | None = None  # None: yes when sequential, no when parallel
    activation: Literal["gelu", "relu"] = "gelu"

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.reduction is not None and self.width is not None:
            raise ValueError("adapter.reduction and adapter.width both set the bottleneck; give one of them")
        return self

    @property
    def adds_input(self) -> bool:
        return self.placement == "sequential" if self.residual is None else self.residual


class LoraOptions(Options):
    """LoRA (Hu et al. 2021): W x + b + s B A x, A Kaiming-uniform, B = 0 at start."""

    rank: PositiveInt | None = None  # 12 when neither rank nor reduction is given
    reduction: Reduction | None = None  # rank = round(hidden / reduction)
    alpha: Annotated[float, Field(gt=0)] = 16.0
    targets: str = "q,v"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    scaling: Literal["alpha/r", "alpha/RR"] = "alpha/r"

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


class MoaOptions(Options):
    """Mixtures of adapters (arXiv 2402.00828). `slots` and `normalize` are read by Soft-MoA only."""

    experts: Annotated[int, Field(ge=1, le=256)] = 7
    slots: PositiveInt = 1
    reduction: Reduction = 128.0  # width of each expert = round(hidden / reduction)
    location: Literal["attention", "ffn", "both"] = "attention"
    expert: Literal["bottleneck"] = "bottleneck"
    normalize: Literal["none", "soft_moe", "published"] = "none"
    legacy_double_add: bool = False  # the published code adds an attention-site mixture twice


_SECTION_MODELS: dict[str, type[Options]] = {
    "layers": LayerRange,
    "adapter": AdapterOptions,
    "lora": LoraOptions,
    "moa": MoaOptions,
}


class MethodConfig(Options):
    """One PETL method (or several joined with `+`), its options, and how tokens are pooled for the head."""

    method: str = "linear"
    pooling: Literal["mean", "cls", "cls+dist", "patches"] = "mean"
    norms: NORMS | None = None  # which LayerNorms of the backbone train; None: the method's published choice
    layers: LayerRange = LayerRange()
    adapter: AdapterOptions = AdapterOptions()
    lora: LoraOptions = LoraOptions()
    moa: MoaOptions = MoaOptions()

    @model_validator(mode="after")
    def _known_methods(self) -> Self:
        for name in self.methods:
            if name not in METHODS:
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
        return self

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.method.split("+"))

    @property
    def trained_norms(self) -> frozenset[str]:
        """Subset of {"site", "final"}."""
        if self.norms is not None:
            return frozenset(self.norms.split("+")) - {"none"}
        return frozenset(part for m in self.methods for part in DEFAULT_NORMS[m].split("+")) - {"none"}

    def applies(self, key: str) -> bool:
        """Whether the dotted option `key` has a meaning for this method."""
        section = key.partition(".")[0]
        if section in SECTIONS and not set(SECTIONS[section]) & set(self.methods):
            return False
        if key in _SOFT_ONLY:
            return "soft_moa" in self.methods
        if section == "layers":
            return self.methods != ("linear",)
        return True

    @classmethod
    def from_flat(cls, flat: Mapping[str, Any]) -> Self:
        """Build from dotted keys; `ConfigError` names the key for anything unknown, wrong or unused."""
        known = {info.key for info in method_keys()}
        for key in flat:
            if key not in known:
                raise ConfigError(f"'{key}' is not a method key{nearest(key, known)}", key)
        config = validated(cls, nest(flat, _SECTION_MODELS))
        for key in flat:
            if not config.applies(key):
                raise ConfigError(f"'{key}' has no meaning for method '{config.method}'; leave it out", key)
        return config

    def to_flat(self) -> dict[str, Any]:
        """Every option that has a meaning for this method and is set, under its dotted name."""
        return {k: v for k, v in flatten(self, _SECTION_MODELS).items() if v is not None and self.applies(k)}


@dataclass(frozen=True)
class KeyInfo:
    """One dotted key: its annotation, default, and the base methods it belongs to (empty: all)."""

    key: str
    annotation: Any
    default: Any
    methods: tuple[str, ...] = ()

    def describe(self) -> str:
        """The values the key takes, in words."""
        return "any of q,k,v,o,fc1,fc2" if self.key == "lora.targets" else _values(self.annotation)

    def check(self, value: Any) -> None:
        """Raise `ConfigError` when `value` is not of the key's type or range."""
        try:
            _adapter(self.key, self.annotation).validate_python(value)
        except ValidationError as error:
            raise ConfigError(f"{self.key}: {_plain(error)}", self.key) from None


_ADAPTERS: dict[str, tuple[Any, TypeAdapter[Any]]] = {}


def _adapter(key: str, annotation: Any) -> TypeAdapter[Any]:
    """The validator of a key; building one takes longer than a hundred uses."""
    if key not in _ADAPTERS or _ADAPTERS[key][0] != annotation:
        _ADAPTERS[key] = (annotation, TypeAdapter(annotation, config=ConfigDict(strict=True)))
    return _ADAPTERS[key][1]


def _values(annotation: Any) -> str:
    """What an annotation allows, in words: "ffn | attention", "int >= 1", "float > 0 | none"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = []
        for field in arguments[1:]:
            for limit in getattr(field, "metadata", [field]):
                bounds += [
                    f"{sign} {getattr(limit, name):g}"
                    for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
                    if getattr(limit, name, None) is not None
                ]
        return " ".join([_values(arguments[0]), *bounds])
    if origin is Literal:
        return " | ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in arguments)
    if origin in (Union, UnionType):
        return " | ".join(_values(part) for part in arguments if part is not type(None))
    if annotation is bool:
        return "true | false"
    return str(getattr(annotation, "__name__", annotation))


def keys_of(
    model: type[BaseModel], sections: Mapping[str, type[BaseModel]], renamed: Mapping[str, str] | None = None
) -> list[KeyInfo]:
    """List the dotted keys of a model whose fields named in `sections` are nested groups."""
    found = []
    for name, field in model.model_fields.items():
        if name in sections:
            for sub, info in sections[name].model_fields.items():
                key = (renamed or {}).get(f"{name}.{sub}", f"{name}.{sub}")
                found.append(KeyInfo(key, _annotated(info), info.get_default(call_default_factory=True)))
        else:
            key = (renamed or {}).get(name, name)
            found.append(KeyInfo(key, _annotated(field), field.get_default(call_default_factory=True)))
    return found


def method_keys() -> list[KeyInfo]:
    """Every dotted key a method understands."""
    return [KeyInfo(i.key, i.annotation, i.default, _methods_of(i.key)) for i in keys_of(MethodConfig, _SECTION_MODELS)]


def _methods_of(key: str) -> tuple[str, ...]:
    return ("soft_moa",) if key in _SOFT_ONLY else SECTIONS.get(key.partition(".")[0], ())


def nest(flat: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """{"moa.experts": 7, "method": "soft_moa"} -> {"moa": {"experts": 7}, "method": "soft_moa"}."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        section, dot, name = key.partition(".")
        if dot and section in sections:
            nested.setdefault(section, {})[name] = value
        else:
            nested[key] = value
    return nested


def flatten(config: BaseModel, sections: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `nest`, in declaration order."""
    flat: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name in sections:
            flat.update({f"{name}.{sub}": getattr(value, sub) for sub in type(value).model_fields})
        else:
            flat[name] = value
    return flat


def validated(model: type[M], values: Mapping[str, Any]) -> M:
    """`model.model_validate(values)` with pydantic's report turned into one `ConfigError`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        location = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ConfigError(_plain(error), location or None) from None


def _annotated(field: Any) -> Any:
    if not field.metadata:
        return field.annotation
    return Annotated[field.annotation, *field.metadata]


def _plain(error: ValidationError) -> str:
    """The first complaint of a pydantic report as a sentence: key, what is wrong, what was found."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return message
    found = f", found {first['input']!r}"
    return f"{where}: {message}{found}" if where else f"{message}{found}"
