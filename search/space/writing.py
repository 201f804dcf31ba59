"""A space back to its file form: what stands in `space.yaml` of a run directory (torch-free)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from search.records import Objective
from search.space.model import Space
from search.space.parameters import Choice, IntRange, Parameter
from search.space.yamlfile import Flow, write

SCHEMA = "petl.space/1"


def dump(space: Space) -> str:
    """YAML text; `parse_space(dump(space)) == space`."""
    return write(to_plain(space))


def to_plain(space: Space) -> dict[str, Any]:
    """The space as lists, mappings and scalars, in the order of the file."""
    plain: dict[str, Any] = {"schema": SCHEMA, "name": space.name}
    if space.description:
        plain["description"] = space.description
    plain["base"] = dict(space.base)
    plain["objectives"] = [_objective(o) for o in space.objectives]
    plain["params"] = {p.key: _parameter(p) for p in space.params}
    plain["enqueue"] = [Flow(params) for params in space.enqueue]
    plain["sampler"] = Flow(asdict(space.sampler))
    plain["scheduler"] = Flow(asdict(space.scheduler))
    plain["budget"] = Flow({k: v for k, v in asdict(space.budget).items() if v is not None})
    return plain


def _objective(objective: Objective) -> Flow:
    bounds = {"max": objective.bound_max, "min": objective.bound_min}
    given = {k: v for k, v in bounds.items() if v is not None}
    return Flow(metric=objective.metric, mode=objective.mode, **given)


def _parameter(parameter: Parameter) -> Flow:
    domain = parameter.domain
    flow = Flow()
    if isinstance(domain, Choice):
        flow["choice"] = list(domain.values)
        if domain.ordered:
            flow["ordered"] = True
    else:
        flow["int" if isinstance(domain, IntRange) else "float"] = [domain.low, domain.high]
        if domain.log:
            flow["log"] = True
        if isinstance(domain, IntRange) and domain.step != 1:
            flow["step"] = domain.step
    flow["default"] = parameter.default
    if parameter.when:
        flow["when"] = Flow({c.key: list(c.values) for c in parameter.when})
    return flow
