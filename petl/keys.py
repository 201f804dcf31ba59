"""Dotted keys of pydantic models: listing them, checking a value, from flat to nested and back (torch-free).

A model whose fields are groups of options has keys such as `moa.experts`; messages of pydantic become sentences that
name the key, what was found and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from petl.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


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

    def read(self, value: Any) -> Any:
        """`value`; as text where it is a whole number and the key takes text and no number (`data.subset=12`)."""
        if isinstance(value, int) and not isinstance(value, bool) and self.annotation in (str, str | None):
            return str(value)
        return value

    def check(self, value: Any) -> None:
        """Raise `ConfigError` when `value`, as `read`, is not of the key's type or range."""
        try:
            _adapter(self.key, self.annotation).validate_python(self.read(value))
        except ValidationError as error:
            raise ConfigError(f"{self.key}: {_plain(error.errors())}", self.key) from None


_ADAPTERS: dict[str, tuple[Any, TypeAdapter[Any]]] = {}


def _adapter(key: str, annotation: Any) -> TypeAdapter[Any]:
    """The validator of a key; building one takes longer than a hundred uses."""
    if key not in _ADAPTERS or _ADAPTERS[key][0] != annotation:
        _ADAPTERS[key] = (annotation, TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False)))
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
        return " ".join([_values(arguments[0]), " and ".join(bounds)]).strip()
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
    """`model.model_validate(values)` with pydantic's report turned into one `ConfigError`.

    Its `key` is the dotted key to blame. A rule about several options names the first one of its message.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        location = [str(part) for part in first["loc"]]
        if first["type"] == "value_error":
            named = _leaf(model, _said(first).partition(" ")[0].split("."))
            raise ConfigError(_said(first), named or ".".join(location) or None) from None
        key = _leaf(model, location) or ".".join(location)
        same = [e for e in error.errors() if _leaf(model, [str(part) for part in e["loc"]]) == key] or [first]
        raise ConfigError(f"{key}: {_plain(same)}" if key else _plain(same), key or None) from None


def _leaf(model: type[BaseModel], path: Sequence[str]) -> str | None:
    """The dotted key at the beginning of `path`; None when it leads to a group or to nothing."""
    current: Any = model
    for depth, part in enumerate(path, 1):
        if part not in current.model_fields:
            return None
        current = current.model_fields[part].annotation
        if not (isinstance(current, type) and issubclass(current, BaseModel)):
            return ".".join(path[:depth])
    return None


def _annotated(field: Any) -> Any:
    if not field.metadata:
        return field.annotation
    return Annotated[field.annotation, *field.metadata]


def _said(error: Any) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


def _plain(errors: Sequence[Any]) -> str:
    """Pydantic's complaints about one value as a sentence: what is wrong (of a union every part), what was found."""
    first, *others = dict.fromkeys(_said(error) for error in errors)
    parts = [first, *(other.removeprefix("Input should be ") for other in others)]
    return f"{' or '.join(parts)}, found {errors[0]['input']!r}"
