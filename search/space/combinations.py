"""Whether every configuration a space can propose is one that can be trained (torch-free)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain, combinations, islice, product
from typing import Any

from petl.config import UNREAD_BESIDE, method_keys, readers, why_unread
from petl.errors import ConfigError
from search.space import tree
from search.space.errors import listed, shown
from search.space.model import Params, Space
from search.space.parameters import Choice, IntRange, Parameter
from search.space.reader import Reader
from search.space.yamlfile import Path

_MOST_TRIALS = 5000  # configurations built in all


def check_combinations(space: Space, reader: Reader) -> tuple[str, ...]:
    """Note parameters that are never active, options without a reader, and combinations that are refused.

    Looks at every way the conditions can fall out (where they are many: every two and, within a section, three
    values together), at every choice and both ends of every parameter under each method and beside each value
    of its section (`layers.first`, `layers.last`), and at what is enqueued. Returns notes for the reader of the
    space: what is left unchecked where there are too many ways to look at.
    """
    for parameter in space.params:
        if not tree.possible(space.params, parameter.key):
            needs = " and ".join(str(condition) for condition in parameter.when)
            reader.wrong(("params", parameter.key, "when"), f"never active: nothing leads to {needs}")
    candidates = list(islice(_candidates(space), _MOST_TRIALS + 1))
    cut = len(candidates) > _MOST_TRIALS
    del candidates[_MOST_TRIALS:]
    _check_base(space, reader, candidates)
    blamed: set[Path] = set()
    for params in _different(candidates):
        try:
            space.trial_config(params)
        except ConfigError as error:
            path = _blame(space, error, params)
            if path not in blamed:
                blamed.add(path)
                reader.wrong(path, _explained(space, error, params, path))
    for number, partial in enumerate(space.enqueue):
        try:
            space.trial_config(space.complete(partial))
        except ConfigError as error:
            reader.wrong(("enqueue", number), str(error))
    if not cut:
        return ()
    return (
        f"only the first {_MOST_TRIALS:,} combinations of settings were checked beforehand; one of the others may turn "
        "out to clash, and is then rejected or fails as a trial",
    )


def _candidates(space: Space) -> Iterator[Params]:
    yield from space.branches()
    yield from tree.covering(space.params, _targets(space.params))


def _targets(params: tuple[Parameter, ...]) -> Iterator[tuple[tree.Item, ...]]:
    """Values that have to go together: each alone, with each method, and with those of the same section."""
    items = {p.key: [(p.key, value) for value in _telling(p)] for p in params}
    yield from ((item,) for item in chain.from_iterable(items.values()))
    for one, other in combinations(params, 2):
        if _related(one, other):
            yield from product(items[one.key], items[other.key])
    chosen = [p for p in params if isinstance(p.domain, Choice) and not p.domain.ordered]
    for three in combinations(chosen, 3):
        if len({_section(p) for p in three}) == 1 and "." in three[0].key:
            yield from product(*(items[p.key] for p in three))


def _telling(parameter: Parameter) -> list[Any]:
    """All choices; the ends of a range, and for whole numbers an odd and an even one."""
    domain = parameter.domain
    if isinstance(domain, IntRange) and domain.low + domain.step < domain.high:
        return [domain.low, domain.high, domain.low + domain.step]
    return list(domain.ends())


def _related(one: Parameter, other: Parameter) -> bool:
    """Whether a rule could hold between two parameters: options of a section, or a word about the whole method."""
    if "." in one.key and _section(one) == _section(other):
        return True
    general = [p for p in (one, other) if "." not in p.key and p.key in _METHOD_KEYS]
    return bool(general) and all(isinstance(p.domain, Choice) or p not in general for p in (one, other))


def _section(parameter: Parameter) -> str:
    return parameter.key.partition(".")[0]


_METHOD_KEYS = {info.key for info in method_keys()}


def _different(candidates: list[Params]) -> Iterator[Params]:
    """Leave out what only combines anew a method and other settings: no rule ties the two together."""
    methods: set[frozenset[Any]] = set()
    others: set[frozenset[Any]] = set()
    for params in candidates:
        method = frozenset((k, type(v), v) for k, v in params.items() if k in _METHOD_KEYS)
        other = frozenset((k, type(v), v) for k, v in params.items() if k not in _METHOD_KEYS)
        if method not in methods or other not in others:
            methods.add(method)
            others.add(other)
            yield params


def _check_base(space: Space, reader: Reader, candidates: list[Params]) -> None:
    """A fixed option must mean something in at least one configuration."""
    unread: dict[str, str] = {key: "" for key in space.base if key in _METHOD_KEYS}
    for params in candidates:
        flat = {**space.base, **params}
        for key in list(unread):
            reason = why_unread(key, flat)
            if not reason:
                del unread[key]
            elif not unread[key] or reason.startswith("with "):  # another option tells more than the method
                unread[key] = reason
    for key, reason in unread.items():
        if _readable(space, key):  # by one that is not among the candidates
            continue
        if reason.startswith("for "):
            reason = f"for the methods of this space ({', '.join(space.methods())})"
        reader.wrong(("base", key), f"it has no meaning {reason}; leave it out")


def _readable(space: Space, key: str) -> bool:
    """Whether some configuration reads the fixed option `key`, found by asking for what it needs."""
    sampled = {p.key for p in space.params}
    needs = [[(parent, v) for v in _fitting(key, parent, space)] for parent in _parents(key) if parent in sampled]
    found = tree.covering(space.params, product(*needs))
    return any(not why_unread(key, {**space.base, **params}) for params in found)


def _blame(space: Space, error: ConfigError, params: Params) -> Path:
    key = error.key or ""
    text = str(error)
    # A clash of several options names them all: blame the first that is sampled, else the first that is fixed.
    named = [k for k in [*params, *space.base] if re.search(rf"(?<![\w.]){re.escape(k)}(?![\w.])", text)]
    for known in [key, *named]:
        if known in params:
            return ("params", known)
    for known in [key, *named]:
        if known in space.base:
            return ("base", known)
    return ("params",)


def _explained(space: Space, error: ConfigError, params: Params, path: Path) -> str:
    key = str(path[-1])
    reason = why_unread(key, {**space.base, **params}) if key in params else ""
    if reason:
        return f"it has no meaning {_advice(space, key, reason)}"
    return f"{error} (for example with {_settings(params)})" if path[0] == "params" else str(error)


def _advice(space: Space, key: str, reason: str) -> str:
    """What is to be done about an option that is sampled where nothing reads it."""
    own = {condition.key: condition.values for condition in space.parameter(key).when}
    needs: dict[str, list[Any]] = {}
    for parent in _parents(key):
        values, fitting = _values(space, parent), _fitting(key, parent, space)
        if not fitting and parent == "method":
            return f"for any method of this space ({', '.join(space.methods())}); leave it out"
        if not fitting:
            wanted = listed(readers(key)[parent])
            return f"with {parent} {listed(map(shown, values))}; leave it out, or give {parent}: {wanted}"
        given = own.get(parent, tuple(values))
        if any(value not in fitting for value in given):
            needs[parent] = [value for value in fitting if value in given]
    # A condition on an option of the method is a condition on the method already.
    if "method" in needs and any(_asks_method(space, parent) for parent in needs if parent != "method"):
        del needs["method"]
    if not needs:
        return f"{reason}; leave it out"
    wanted = ", ".join(f"{parent}: {_written(values)}" for parent, values in needs.items())
    return f"{reason}; add when: {{{wanted}}}"


def _asks_method(space: Space, key: str) -> bool:
    return any(p.key == key and any(c.key == "method" for c in p.when) for p in space.params)


def _parents(key: str) -> list[str]:
    """Keys that decide whether `key` is read."""
    return list(dict.fromkeys([*readers(key), *(["method"] if key in UNREAD_BESIDE else [])]))


def _fitting(key: str, parent: str, space: Space) -> list[Any]:
    """Values of `parent` that the space can give and that let `key` be read."""
    wanted = readers(key).get(parent)
    if parent != "method":
        return [value for value in _values(space, parent) if wanted is None or value in wanted]
    parts = {v: {part.strip() for part in v.split("+")} for v in space.methods()}
    never = set(UNREAD_BESIDE.get(key, ()))
    return [v for v, names in parts.items() if (wanted is None or set(wanted) & names) and not never & names]


def _values(space: Space, key: str) -> list[Any]:
    """What a key can be in this space: sampled, fixed or its default."""
    for parameter in space.params:
        if parameter.key == key:
            return list(parameter.domain.ends())
    if key in space.base:
        return [space.base[key]]
    return [next(info.default for info in method_keys() if info.key == key)]


def _written(values: list[Any]) -> str:
    return shown(values[0]).strip("'") if len(values) == 1 else f"[{listed(values)}]"


def _settings(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={shown(value).strip(chr(39))}" for key, value in params.items())
