"""The ways the conditions of a space can fall out, and how many configurations that makes (torch-free)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice, product
from typing import Any

from search.space.parameters import IntRange, Parameter

_MOST_WALKED = 10_000
_MOST_BRANCHES = 500

Item = tuple[str, Any]
"""A parameter and one of its values."""


def parents(params: Sequence[Parameter]) -> frozenset[str]:
    """Keys that other parameters depend on."""
    return frozenset(condition.key for parameter in params for condition in parameter.when)


def branches(params: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """Complete configurations that show how the conditions can fall out; what is no parent is at its default.

    All of them where they are few (500). Otherwise every two values of parents, and every three of one section,
    that can stand together do so in one of them, the other parents at their defaults. A parent that is a range
    takes its default and the values that conditions name.
    """
    spread = spreading(params)
    every = list(islice(walk(params, spread), _MOST_BRANCHES + 1))
    yield from every if len(every) <= _MOST_BRANCHES else covering(params, _together(spread))


def spreading(params: Sequence[Parameter]) -> dict[str, tuple[Any, ...]]:
    """Parents (and the method) with the values that conditions can tell apart."""
    above = parents(params) | {"method"}
    return {p.key: _telling_values(p, params) for p in params if p.key in above}


def covering(params: Sequence[Parameter], targets: Iterable[Sequence[Item]]) -> Iterator[dict[str, Any]]:
    """The default configuration, then one for each target that is possible and in none of those before.

    A target is a few (key, value) that are to stand together. Conditions are met as far as the target needs it,
    everything else is at its default.
    """
    known = {p.key: p for p in params}
    seen: set[frozenset[Item]] = set()
    for target in [(), *targets]:
        allowed = _needed(known, target)
        if allowed is None:
            continue
        chosen: dict[str, Any] = {}
        for parameter in params:
            if parameter.active(chosen):
                values = allowed.get(parameter.key)
                best = values is None or any(_same(parameter.default, value) for value in values)
                chosen[parameter.key] = parameter.default if best or not values else values[0]
        identity = frozenset((key, (type(value), value)) for key, value in chosen.items())
        if identity not in seen:
            seen.add(identity)
            yield chosen


def possible(params: Sequence[Parameter], key: str) -> bool:
    """Whether any configuration has the parameter `key` active."""
    known = {p.key: p for p in params}
    return _needed(known, [(c.key, c.values) for c in known[key].when], several=True) is not None


def size(params: Sequence[Parameter]) -> int | None:
    """How many different configurations there are; None when a real number (or sheer number) forbids counting."""
    if any(p.domain.size() is None and possible(params, p.key) for p in params):
        return None
    above = parents(params)
    spread = {p.key: _all_values(p) for p in params if p.key in above}
    sizes = {p.key: p.domain.size() or 0 for p in params if p.key not in above}
    total = 0
    for number, branch in enumerate(walk(params, spread)):
        if number >= _MOST_WALKED:
            return None
        count = 1
        for key in branch.keys() & sizes.keys():
            count *= sizes[key]
        total += count
    return total


def walk(params: Sequence[Parameter], spread: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Complete configurations with every combination of the values in `spread`; the rest at its default."""
    return _walk(params, 0, {}, spread)


def _walk(
    params: Sequence[Parameter], index: int, chosen: dict[str, Any], spread: Mapping[str, Sequence[Any]]
) -> Iterator[dict[str, Any]]:
    chosen = dict(chosen)
    for position in range(index, len(params)):
        parameter = params[position]
        if not parameter.active(chosen):
            continue
        first, *others = spread.get(parameter.key, (parameter.default,))
        if others:
            for value in (first, *others):
                yield from _walk(params, position + 1, {**chosen, parameter.key: value}, spread)
            return
        chosen[parameter.key] = first
    yield chosen


def _together(spread: Mapping[str, Sequence[Any]]) -> Iterator[tuple[Item, ...]]:
    """Single values, pairs, and triples of one section."""
    items = [(key, value) for key, values in spread.items() for value in values]
    yield from ((item,) for item in items)
    yield from combinations(items, 2)
    for section in dict.fromkeys(key.partition(".")[0] for key in spread):
        keys = [key for key in spread if key.partition(".")[0] == section]
        for chosen in combinations(keys, 3):
            yield from product(*([(key, value) for value in spread[key]] for key in chosen))


def _needed(
    known: Mapping[str, Parameter], target: Iterable[tuple[str, Any]], several: bool = False
) -> dict[str, tuple[Any, ...]] | None:
    """Values that the target and the conditions above it leave to each key; None when they leave one nothing.

    With `several` a target names the values (plural) that will do.
    """
    allowed: dict[str, tuple[Any, ...]] = {}
    waiting = [(key, tuple(value) if several else (value,)) for key, value in target]
    while waiting:
        key, values = waiting.pop()
        first = key not in allowed
        left = values if first else tuple(v for v in allowed[key] if any(_same(v, other) for other in values))
        if not left:
            return None
        allowed[key] = left
        if first:
            waiting += [(condition.key, condition.values) for condition in known[key].when]
    return allowed


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _telling_values(parameter: Parameter, params: Sequence[Parameter]) -> tuple[Any, ...]:
    if not isinstance(parameter.domain, IntRange):
        return parameter.domain.ends()
    named = [v for p in params for c in p.when if c.key == parameter.key for v in c.values]
    return tuple(dict.fromkeys([parameter.default, *named]))


def _all_values(parameter: Parameter) -> tuple[Any, ...]:
    domain = parameter.domain
    if isinstance(domain, IntRange):
        # One more than can be walked is enough to find out that they are too many.
        return tuple(range(domain.low, domain.high + 1, domain.step)[: _MOST_WALKED + 1])
    return domain.ends()
