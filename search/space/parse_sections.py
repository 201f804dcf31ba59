"""Reading the small sections of a space file: name, objectives, sampler, scheduler, budget (torch-free)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from petl.errors import nearest
from search.records import Objective
from search.space.durations import parse_duration
from search.space.errors import listed, shown
from search.space.model import Budget, SamplerOptions, SchedulerOptions
from search.space.reader import Reader
from search.space.writing import SCHEMA
from search.space.yamlfile import Path
from trainables.metric_names import METRICS

SETTABLE = {
    "sampler": ("name", "seed", "startup_trials"),
    "scheduler": ("name", "grace_epochs", "eta"),
    "budget": ("trials", "time"),
}
"""Section -> its keys; each can be given on the command line as `--set section.key=value`."""


def check_schema(reader: Reader, top: Mapping[str, Any]) -> None:
    schema = top.get("schema")
    if schema is None:
        reader.wrong((), f"'schema' is missing; begin the file with schema: {SCHEMA}")
    elif schema != SCHEMA:
        reader.wrong(("schema",), f"found {shown(schema)}; this version reads {SCHEMA}")


def read_name(reader: Reader, value: Any, stem: str) -> str:
    if value is None:
        return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "space"
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        return value
    reader.wrong(("name",), f"found {shown(value)}; letters, digits, '.', '-' and '_' make a name (of directories)")
    return "space"


def read_description(reader: Reader, value: Any) -> str:
    if value is not None and not isinstance(value, str):
        reader.wrong(("description",), f"text is expected, found {shown(value)}")
        return ""
    return value or ""


def read_objectives(reader: Reader, value: Any) -> tuple[Objective, ...]:
    if value is None:
        return (Objective("val/accuracy", "max"),)
    example = "- {metric: val/accuracy, mode: max}"
    if not isinstance(value, list) or not value:
        reader.wrong(("objectives",), f"a list is expected, such as {example}; found {shown(value)}")
        return ()
    objectives: list[Objective] = []
    for index, item in enumerate(value):
        objective = _read_objective(reader, item, ("objectives", index), first=index == 0)
        if objective is None:
            continue
        if objective.metric in {o.metric for o in objectives}:
            reader.wrong(("objectives", index), f"{objective.metric} is there twice; keep one of them")
        objectives.append(objective)
    return tuple(objectives)


def _read_objective(reader: Reader, value: Any, path: Path, *, first: bool) -> Objective | None:
    entry = reader.mapping(value, path, ("metric", "mode", "max", "min"), "{metric: val/accuracy, mode: max}")
    if not entry:
        return None
    metric = entry.get("metric")
    if not isinstance(metric, str) or metric not in METRICS:
        hint = nearest(metric, METRICS) if isinstance(metric, str) else ""
        if isinstance(metric, str) and metric.startswith("test/"):
            hint = "; the test split is read once, at the end, and never by the search"
        reader.wrong((*path, "metric"), f"found {shown(metric)}{hint}; allowed: {listed(METRICS)}")
        return None
    info = METRICS[metric]
    mode = reader.one_of(entry.get("mode"), (*path, "mode"), ("max", "min"), info.mode)
    if mode != info.mode:
        reader.wrong((*path, "mode"), f"{metric} is better when {_direction(info.mode)}; write mode: {info.mode}")
    if first and not info.per_epoch:
        reader.wrong(
            path,
            f"the first objective decides which trials are stopped, and {metric} is no result of training; "
            "put what is measured on the validation clips first, such as val/accuracy",
        )
    bounds: dict[str, float] = {}
    for side in ("max", "min"):
        if side not in entry:
            continue
        bound = reader.number(entry[side], (*path, side))
        if info.per_epoch:
            reader.wrong(
                (*path, side),
                f"a bound must be known before training; only trainable_params can have one, not {metric}",
            )
        elif bound is not None and bound < 0:
            reader.wrong((*path, side), f"a count cannot be below zero, found {shown(bound)}")
        elif bound is not None:
            bounds[side] = float(bound)
    if len(bounds) == 2 and bounds["min"] > bounds["max"]:
        reader.wrong(path, f"min {shown(bounds['min'])} is above max {shown(bounds['max'])}: nothing could be trained")
    return Objective(metric, mode, bounds.get("max"), bounds.get("min"))


def _direction(mode: str) -> str:
    return "larger" if mode == "max" else "smaller"


def read_sampler(reader: Reader, value: Any) -> SamplerOptions:
    if value is None:
        return SamplerOptions()
    entry = reader.mapping(value, ("sampler",), SETTABLE["sampler"], "{name: tpe, seed: 0}")
    default = SamplerOptions()
    name = reader.one_of(entry.get("name"), ("sampler", "name"), ("tpe", "random"), default.name)
    return SamplerOptions(
        name="random" if name == "random" else "tpe",
        seed=reader.integer(entry.get("seed"), ("sampler", "seed"), default.seed, 0, 2**31 - 1),
        startup_trials=reader.integer(
            entry.get("startup_trials"), ("sampler", "startup_trials"), default.startup_trials, 1
        ),
    )


def read_scheduler(reader: Reader, value: Any) -> SchedulerOptions:
    if value is None:
        return SchedulerOptions()
    entry = reader.mapping(value, ("scheduler",), SETTABLE["scheduler"], "{name: asha, grace_epochs: 3, eta: 3}")
    default = SchedulerOptions()
    name = reader.one_of(entry.get("name"), ("scheduler", "name"), ("asha", "none"), default.name)
    return SchedulerOptions(
        name="none" if name == "none" else "asha",
        grace_epochs=reader.integer(entry.get("grace_epochs"), ("scheduler", "grace_epochs"), default.grace_epochs, 1),
        eta=reader.integer(entry.get("eta"), ("scheduler", "eta"), default.eta, 2),
    )


def read_budget(reader: Reader, top: Mapping[str, Any]) -> Budget:
    value = top.get("budget")
    if value is None:
        value = {}
    entry = reader.mapping(value, ("budget",), SETTABLE["budget"], "{trials: 24}")
    trials, seconds = entry.get("trials"), None
    if trials is not None:
        trials = reader.integer(trials, ("budget", "trials"), 1, 1)
    if entry.get("time") is not None:
        try:
            seconds = parse_duration(entry["time"])
        except (ValueError, TypeError, OverflowError):
            reader.wrong(("budget", "time"), f"found {shown(entry['time'])}; write 90s, 30m, 1h30m or 2d")
    if isinstance(value, dict) and entry.get("trials") is None and entry.get("time") is None:
        reader.wrong(
            ("budget",) if "budget" in top else (),
            "the search would never end; say budget: {trials: 24} (--trials) or budget: {time: 30m} (--time-budget)",
        )
    return Budget(trials, seconds)
