"""Whether every configuration a space can propose is one that can be trained (torch-free)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations, islice, product
from typing import Any

from petl.config import MethodConfig
from petl.errors import ConfigError
from search.space.model import Params, Space
from search.space.reader import Reader
from search.space.tree import parents
from search.space.yamlfile import Path

_MOST_BRANCHES = 500
_MOST_TRIALS = 1000  # configurations built in all


def check_combinations(space: Space, reader: Reader) -> None:
    """Note parameters that are never active, options without a reader, and combinations that are refused.

    Looks at every way the conditions can fall out (at most 500); in each at the defaults, at every choice and
    both ends of every parameter, and at the ends of pairs within one section (`layers.first`, `layers.last`).
    """
    branches = list(islice(space.branches(), _MOST_BRANCHES))
    active = {key for branch in branches for key in branch}
    for parameter in space.params:
        if parameter.key not in active and len(branches) < _MOST_BRANCHES:
            needs = " and ".join(str(condition) for condition in parameter.when)
            reader.wrong(("params", parameter.key, "when"), f"never active: nothing leads to {needs}")
    _check_base(space, reader)
    blamed: set[Path] = set()
    for params in islice((p for branch in branches for p in _around(space, branch)), _MOST_TRIALS):
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


def _around(space: Space, branch: Params) -> Iterator[Params]:
    """A branch, and what lies one step (or one pair within a section) away from it."""
    yield branch
    above = parents(space.params)  # these have branches of their own
    free = {p.key: p.domain.ends() for p in space.params if p.key in branch and p.key not in above}
    for key, ends in free.items():
        yield from ({**branch, key: end} for end in ends if end != branch[key])
    for one, other in combinations(free, 2):
        if "." in one and one.partition(".")[0] == other.partition(".")[0]:
            yield from ({**branch, one: a, other: b} for a, b in product(free[one], free[other]))


def _check_base(space: Space, reader: Reader) -> None:
    """A fixed option must mean something to at least one method."""
    methods = [MethodConfig(method=name) for name in space.methods()]
    for key in space.base:
        if not any(method.applies(key) for method in methods):
            names = ", ".join(space.methods())
            reader.wrong(("base", key), f"it has no meaning for the methods of this space ({names}); leave it out")


def _blame(space: Space, error: ConfigError, params: Params) -> Path:
    key = error.key or ""
    if key in params:
        return ("params", key)
    if key in space.base:
        return ("base", key)
    # A clash of several options is reported for their section: blame a member that is sampled.
    text = str(error)
    for known in [*params, *space.base]:
        if re.search(rf"(?<![\w.]){re.escape(known)}(?![\w.])", text):
            return ("params" if known in params else "base", known)
    return ("params",)


def _explained(space: Space, error: ConfigError, params: Params, path: Path) -> str:
    key = error.key or ""
    method = params.get("method", space.base.get("method"))
    if key in params and not MethodConfig(method=str(method)).applies(key):
        needs = _methods_of(space, key)
        if not needs:
            return f"it has no meaning for any method of this space ({', '.join(space.methods())}); leave it out"
        wanted = needs[0] if len(needs) == 1 else f"[{', '.join(needs)}]"
        return f"it has no meaning for method '{method}'; add when: {{method: {wanted}}}"
    return f"{error} (for example with {_settings(params)})" if path[0] == "params" else str(error)


def _methods_of(space: Space, key: str) -> list[str]:
    return [name for name in space.methods() if MethodConfig(method=name).applies(key)]


def _settings(params: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in params.items())
