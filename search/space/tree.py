"""The ways the conditions of a space can fall out, and how many configurations that makes (torch-free)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from search.space.parameters import IntRange, Parameter

_MOST_BRANCHES = 10_000


def parents(params: Sequence[Parameter]) -> frozenset[str]:
    """Keys that other parameters depend on."""
    return frozenset(condition.key for parameter in params for condition in parameter.when)


def branches(params: Sequence[Parameter]) -> Iterator[dict[str, Any]]:
    """Complete configurations, one per way the conditions can fall out (and per method); the rest at its default.

    A parent that is a range takes its default and the values that conditions name.
    """
    spread = {p.key: _telling_values(p, params) for p in params if p.key in parents(params) | {"method"}}
    yield from _walk(params, 0, {}, spread)


def size(params: Sequence[Parameter]) -> int | None:
    """How many different configurations there are; None when a real number (or sheer number) forbids counting."""
    above = parents(params)
    spread = {p.key: _all_values(p) for p in params if p.key in above}
    sizes = {p.key: p.domain.size() for p in params if p.key not in above}
    total = 0
    for number, branch in enumerate(_walk(params, 0, {}, spread)):
        factors = [count for key, count in sizes.items() if key in branch]
        if None in factors or number >= _MOST_BRANCHES:
            return None
        product = 1
        for count in factors:
            product *= count or 0
        total += product
    return total


def _walk(
    params: Sequence[Parameter], index: int, chosen: dict[str, Any], spread: dict[str, tuple[Any, ...]]
) -> Iterator[dict[str, Any]]:
    if index == len(params):
        yield dict(chosen)
        return
    parameter = params[index]
    if not parameter.active(chosen):
        yield from _walk(params, index + 1, chosen, spread)
        return
    for value in spread.get(parameter.key, (parameter.default,)):
        yield from _walk(params, index + 1, {**chosen, parameter.key: value}, spread)


def _telling_values(parameter: Parameter, params: Sequence[Parameter]) -> tuple[Any, ...]:
    if not isinstance(parameter.domain, IntRange):
        return parameter.domain.ends()
    named = [v for p in params for c in p.when if c.key == parameter.key for v in c.values]
    return tuple(dict.fromkeys([parameter.default, *named]))


def _all_values(parameter: Parameter) -> tuple[Any, ...]:
    domain = parameter.domain
    if isinstance(domain, IntRange):
        # One more than can be walked is enough to find out that they are too many.
        return tuple(range(domain.low, domain.high + 1, domain.step)[: _MOST_BRANCHES + 1])
    return domain.ends()
