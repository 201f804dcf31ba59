"""Reading `base:` and `params:`: keys, domains, defaults and conditions (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from petl.config import METHODS, MethodConfig
from petl.errors import ConfigError, nearest
from search.space.errors import listed, shown
from search.space.parameters import Choice, Condition, Domain, FloatRange, IntRange, Parameter
from search.space.reader import Reader, is_number
from search.space.yamlfile import Path
from trainables.config import trial_keys

_KINDS = ("choice", "int", "float", "fixed")
_EXTRAS = {
    "choice": ("ordered", "default", "when"),
    "int": ("log", "step", "default", "when"),
    "float": ("log", "default", "when"),
    "fixed": ("when",),
}
_EXAMPLE = "{choice: [a, b]}, {int: [low, high]}, {float: [low, high]} or {fixed: value}"

_NOT_SAMPLED = {
    **dict.fromkeys(
        ("dataset", "data", "data.protocol", "data.fold", "data.val_fraction", "data.test_fraction",
         "data.split_seed", "data.skip_bad_files"),
        "results on different data cannot be compared",
    ),
    **dict.fromkeys(("backbone", "revision"), "one search adapts one backbone"),
}  # fmt: skip
"""Keys that only `base` may hold, and why."""


class Keys:
    """The dotted keys there are, and which of them the file mentions."""

    def __init__(self) -> None:
        self.infos = {info.key: info for info in trial_keys()}
        self.seen: set[str] = set()

    def complaint(self, key: str, value: Any) -> str:
        """What is wrong with `value` for a known `key`; empty when nothing is."""
        info = self.infos[key]
        if key == "method":
            return _method_complaint(value)
        try:
            info.check(value)
        except ConfigError as error:
            return str(error).removeprefix(f"{key}: ") + _nearest_literal(info.annotation, value)
        return ""


def read_base(reader: Reader, value: Any, keys: Keys, settings: tuple[str, ...]) -> dict[str, Any]:
    """The fixed part, checked key by key; `settings` are what the command line could have meant besides."""
    if value is None:
        return {}
    base = {}
    for key, given in reader.mapping(value, ("base",), None, "backbone: embedded").items():
        path: Path = ("base", key)
        keys.seen.add(key)
        if key not in keys.infos:
            reader.wrong(path, _unknown(key, keys, given, settings if reader.typed(path) else ()))
            continue
        complaint = keys.complaint(key, given)
        if complaint:
            reader.wrong(path, complaint)
        else:
            base[key] = keys.infos[key].read(given)
    return base


def read_params(reader: Reader, value: Any, keys: Keys, base: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """The sampled part, in declaration order."""
    if not isinstance(value, dict) or not value:
        path: Path = ("params",) if isinstance(reader.document.value, dict) and value is not None else ()
        reader.wrong(path, f"'params' says what is sampled: key: {_EXAMPLE}; found {shown(value)}")
        return ()
    params: dict[str, Parameter] = {}
    for key, entry in value.items():
        path = ("params", key)
        keys.seen.add(key)
        if key not in keys.infos:
            reader.wrong(path, _unknown(key, keys, entry, ()))
            continue
        if key in _NOT_SAMPLED:
            reader.wrong(path, f"it cannot be sampled, since {_NOT_SAMPLED[key]}; give it one value in base")
            continue
        if key in base:
            reader.wrong(("base", key), _sampled_too(reader, key))
            continue
        parameter = _read_parameter(reader, entry, path, keys, params, base, list(value))
        if parameter is not None:
            params[key] = parameter
    return tuple(params.values())


def _read_parameter(
    reader: Reader,
    entry: Any,
    path: Path,
    keys: Keys,
    above: Mapping[str, Parameter],
    base: Mapping[str, Any],
    declared: list[str],
) -> Parameter | None:
    key = str(path[-1])
    if not isinstance(entry, (dict, list)) and entry is not None:
        entry = {"fixed": entry}
    if not isinstance(entry, dict):
        reader.wrong(path, f"write {_EXAMPLE}; found {shown(entry)}")
        return None
    kinds = [kind for kind in _KINDS if kind in entry]
    if len(kinds) != 1:
        found = " and ".join(kinds) if kinds else listed(entry) or "nothing"
        unknown = [name for name in entry if name not in {e for extra in _EXTRAS.values() for e in extra}]
        hint = nearest(unknown[0], _KINDS) if unknown and not kinds else ""
        reader.wrong(path, f"one kind is expected, {_EXAMPLE}; found {found}{hint}")
        return None
    kind = kinds[0]
    entry = reader.mapping(entry, path, (kind, *_EXTRAS[kind]), _EXAMPLE)
    domain = _read_domain(reader, kind, entry, path, keys)
    when = _read_when(reader, entry.get("when"), path, above, base, declared, keys)
    if domain is None or when is None:
        return None
    default = domain.middle()
    if entry.get("default") is not None or ("default" in entry and None in _values(domain)):
        try:
            default = domain.normal(entry["default"])
        except ValueError as error:
            reader.wrong((*path, "default"), f"the default {error}")
            return None
    return Parameter(key, domain, default, when)


def _read_domain(reader: Reader, kind: str, entry: Mapping[str, Any], path: Path, keys: Keys) -> Domain | None:
    if kind == "choice":
        return _read_choice(reader, entry, path, keys)
    if kind == "fixed":
        complaint = keys.complaint(str(path[-1]), entry["fixed"])
        if complaint:
            reader.wrong((*path, "fixed"), complaint)
            return None
        return Choice((entry["fixed"],))
    return _read_range(reader, kind, entry, path, keys)


def _read_choice(reader: Reader, entry: Mapping[str, Any], path: Path, keys: Keys) -> Choice | None:
    values = entry["choice"]
    here = (*path, "choice")
    if not isinstance(values, list) or not values:
        reader.wrong(here, f"a list of values is expected, such as [a, b]; found {shown(values)}")
        return None
    good = True
    for index, value in enumerate(values):
        complaint = keys.complaint(str(path[-1]), value)
        if not complaint and values.index(value) < index:
            complaint = f"{shown(value)} is there twice"
        if complaint:
            reader.wrong((*here, index), complaint)
            good = False
    ordered = reader.truth(entry.get("ordered"), (*path, "ordered"), default=False)
    return Choice(tuple(values), ordered) if good else None


def _read_range(reader: Reader, kind: str, entry: Mapping[str, Any], path: Path, keys: Keys) -> Domain | None:
    bounds = entry[kind]
    here = (*path, kind)
    if not isinstance(bounds, list) or len(bounds) != 2:
        reader.wrong(here, f"a range is two numbers, [low, high]; found {shown(bounds)}")
        return None
    for bound in bounds:
        if not is_number(bound) or (kind == "int" and not isinstance(bound, int)):
            reader.wrong(here, f"{'whole numbers' if kind == 'int' else 'numbers'} are expected, found {shown(bound)}")
            return None
    low, high = bounds
    if low > high:
        reader.wrong(here, f"the range [{shown(low)}, {shown(high)}] is inverted; write [{shown(high)}, {shown(low)}]")
        return None
    log = reader.truth(entry.get("log"), (*path, "log"), default=False)
    if log and (low < 1 if kind == "int" else low <= 0):
        least = "at least 1" if kind == "int" else "above 0"
        reader.wrong(here, f"a log scale needs a lower end {least}, found {shown(low)}")
        return None
    ends = (low, high) if kind == "int" else (float(low), float(high))
    for end in ends:
        complaint = keys.complaint(str(path[-1]), end)
        if complaint:
            reader.wrong(here, complaint)
            return None
    if kind == "float":
        return FloatRange(float(low), float(high), log)
    step = reader.integer(entry.get("step"), (*path, "step"), 1, 1)
    if step > 1 and log:
        reader.wrong((*path, "step"), "a log scale takes no step; leave one of them out")
        return None
    if (high - low) % step:
        top = low + (high - low) // step * step
        reader.wrong(here, f"{high} cannot be reached from {low} in steps of {step}; write [{low}, {top}]")
        return None
    return IntRange(low, high, log, step)


def _read_when(
    reader: Reader,
    value: Any,
    path: Path,
    above: Mapping[str, Parameter],
    base: Mapping[str, Any],
    declared: list[str],
    keys: Keys,
) -> tuple[Condition, ...] | None:
    """The conditions; None when one is wrong. Conditions on fixed keys are decided here and left out."""
    if value is None:
        return ()
    entry = reader.mapping(value, (*path, "when"), None, "{method: lora}")
    conditions: list[Condition] = []
    good = bool(entry)
    for key, wanted in entry.items():
        here = (*path, "when", key)
        values = wanted if isinstance(wanted, list) else [wanted]
        if key in base:
            if base[key] not in values:
                said = f"{key} is fixed to {shown(base[key])} in base"
                reader.wrong(here, f"this parameter can never be active, since {said}; leave it out")
                good = False
            continue
        if key not in above:
            reader.wrong(here, _bad_parent(key, str(path[-1]), above, declared, keys))
            good = False
            continue
        domain = above[key].domain
        if isinstance(domain, FloatRange):
            reader.wrong(here, f"{key} is a real number; only choices and whole numbers can be conditions")
            good = False
            continue
        chosen = []
        for one in values:
            try:
                chosen.append(domain.normal(one))
            except ValueError as error:
                close = nearest(str(one), [str(v) for v in _values(domain)]) if isinstance(one, str) else ""
                reader.wrong(here, f"{key} can never have this value: {error}{close}")
                good = False
        if not values:
            reader.wrong(here, f"an empty list: this parameter could never be active; name values of {key}")
            good = False
        conditions.append(Condition(key, tuple(dict.fromkeys(chosen))))
    return tuple(conditions) if good else None


def _bad_parent(key: str, own: str, above: Mapping[str, Parameter], declared: list[str], keys: Keys) -> str:
    if key == own:
        return "a parameter cannot depend on itself"
    if key in declared and declared.index(key) > declared.index(own):
        return f"'{key}' is declared below '{own}'; parents come first: move it up"
    if key in declared:
        return f"'{key}' has a mistake of its own; see there"
    hint = nearest(key, above)
    if not hint and key in keys.infos:
        hint = " (a known key, but this space does not sample it)"
    return f"'{key}' is not declared above{hint}; declared: {listed(above) or 'nothing yet'}"


def _unknown(key: str, keys: Keys, value: Any, others: tuple[str, ...]) -> str:
    sections = sorted({known.partition(".")[0] for known in keys.infos if "." in known})
    if key in sections and isinstance(value, dict):
        inner = next(iter(value), "...")
        return f"sections are written with dots: {key}.{inner}: ... instead of {key}: {{{inner}: ...}}"
    section = key.partition(".")[0]
    same = [k for k in keys.infos if k.startswith(f"{section}.")] if "." in key else []
    allowed = f"; {section} has: {listed(same)}" if same else ""
    return f"unknown key{nearest(key, [*keys.infos, *others])}{allowed}"


def _sampled_too(reader: Reader, key: str) -> str:
    line = reader.document.line(("params", key))
    there = f"in params (line {line})" if line else "in params"
    return (
        f"'{key}' is sampled {there}, so it cannot be fixed too; "
        f"take it out of params, or narrow its range there ({{fixed: value}} holds it still)"
    )


def _method_complaint(value: Any) -> str:
    if not isinstance(value, str):
        return f"the name of a method is expected, found {shown(value)}; allowed: {listed(METHODS)}"
    try:
        MethodConfig.from_flat({"method": value})
    except ConfigError as error:
        return str(error)
    return ""


def _values(domain: Domain) -> tuple[Any, ...]:
    return domain.values if isinstance(domain, Choice) else ()


def _nearest_literal(annotation: Any, value: Any) -> str:
    """ " (did you mean ...?)" among the words an annotation allows."""
    if not isinstance(value, str):
        return ""
    words = TypeAdapter(annotation).json_schema()
    allowed = [w for part in [words, *words.get("anyOf", [])] for w in part.get("enum", [])]
    return nearest(value, allowed)
