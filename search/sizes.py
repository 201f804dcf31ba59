"""How many parameters the methods of a space train, from smallest to largest (torch-free).

Trainable parameters never fall when a range of a space is followed upwards (or never rise), so the ends of the
ranges and all choices, in every combination, hold the extremes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

from petl.config import method_keys
from petl.counts import BackboneShape, trainable_parameters
from petl.errors import ConfigError, UserError
from search.records import Objective
from search.space import Params, Space

_NO_SIZE = frozenset(
    {
        "pooling",
        "adapter.activation",
        "adapter.placement",
        "adapter.residual",
        "lora.alpha",
        "lora.dropout",
        "lora.scaling",
        "moa.legacy_double_add",
    }
)
"""Method options that change no count."""
_MOST_COMBINATIONS = 4096


@dataclass(frozen=True)
class MethodSize:
    """Trainable parameters of one method in a space, head included when classes were given."""

    method: str
    least: int
    default: int
    most: int


def trainable_params(space: Space, params: Params, shape: BackboneShape, classes: int | None) -> int:
    """Trainable parameters of one complete configuration.

    Raises:
        UserError: when an option does not fit the backbone (a layer it does not have, a width of 0); names the
            line of the space.
    """
    try:
        return trainable_parameters(space.trial_config(params).method, shape, classes)
    except ConfigError as error:
        key = error.key or ""
        message = str(error) if key in str(error) else f"{key}: {error}"
        raise UserError(f"{space.where(key)}: {message}") from None


def method_sizes(space: Space, shape: BackboneShape, classes: int | None) -> tuple[MethodSize, ...]:
    """Fewest, default and most trainable parameters of every method the space can propose.

    Because it tries the extremes, it also finds options that do not fit the backbone before anything is trained.

    Raises:
        UserError: as `trainable_params`; or when a bound on `trainable_params` leaves nothing to train.
    """
    found: dict[str, list[int]] = {}
    defaults: dict[str, int] = {}
    for branch in space.branches():
        method = str(space.flat(branch)["method"])
        counts = [trainable_params(space, params, shape, classes) for params in _corners(space, branch)]
        defaults.setdefault(method, counts[0])
        found.setdefault(method, []).extend(counts)
    sizes = tuple(MethodSize(m, min(found[m]), defaults[m], max(found[m])) for m in found)
    _check_bounds(space, sizes)
    return sizes


def outside_bounds(objectives: tuple[Objective, ...], size: int) -> str:
    """Why a configuration of `size` trainable parameters would not be trained; empty when it would."""
    for objective in objectives:
        if objective.metric != "trainable_params":
            continue
        if objective.bound_max is not None and size > objective.bound_max:
            return f"{size:,} trainable parameters, more than {objective.bound_max:,.0f}"
        if objective.bound_min is not None and size < objective.bound_min:
            return f"{size:,} trainable parameters, fewer than {objective.bound_min:,.0f}"
    return ""


def _corners(space: Space, branch: Params) -> list[Params]:
    """The branch itself, then every combination of the ends of what can change its size."""
    sized = {info.key for info in method_keys()} - _NO_SIZE
    free: dict[str, tuple[Any, ...]] = {
        p.key: p.domain.ends()
        for p in space.params
        if p.key in branch and p.key in sized and not space.is_parent(p.key) and p.key != "method"
    }
    combinations = 1
    for key, ends in free.items():
        if combinations * len(ends) > _MOST_COMBINATIONS:
            free[key] = (ends[0], ends[-1])
        combinations *= len(free[key])
    corners = [{**branch, **dict(zip(free, ends, strict=True))} for ends in product(*free.values())]
    return [branch, *corners]


def _check_bounds(space: Space, sizes: tuple[MethodSize, ...]) -> None:
    least, most = min(s.least for s in sizes), max(s.most for s in sizes)
    for size, extreme in ((least, "smallest"), (most, "largest")):
        for objective in space.objectives:
            too_large = extreme == "smallest" and objective.bound_max is not None and size > objective.bound_max
            too_small = extreme == "largest" and objective.bound_min is not None and size < objective.bound_min
            if too_large or too_small:
                raise UserError(
                    f"{space.source or 'the space'}: the bound on {objective.metric} leaves nothing to train: even "
                    f"the {extreme} configuration has {outside_bounds(space.objectives, size)}; move the bound"
                )
