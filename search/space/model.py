"""A search space as typed, frozen configuration (torch-free).

A *configuration* is a flat dict of the active dotted keys: `{"method": "lora", "lora.rank": 8, ...}`.
Parameters whose conditions do not hold are absent from it. `Space.trial_config` joins it with the fixed part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from petl.config import why_unread
from petl.errors import ConfigError, nearest
from search.records import Objective
from search.space import tree
from search.space.errors import shown
from search.space.parameters import OptunaTrial, Parameter
from trainables.config import TrialConfig
from trainables.recipes import recipe

Params = dict[str, Any]


@dataclass(frozen=True)
class SamplerOptions:
    """Who proposes: `tpe` (Optuna's tree-structured Parzen estimator) or `random`.

    `startup_trials` are drawn at random before the estimator starts (those tried first count).
    """

    name: Literal["tpe", "random"] = "tpe"
    seed: int = 0
    startup_trials: int = 10


@dataclass(frozen=True)
class SchedulerOptions:
    """Who stops: `asha` compares trials at epochs grace, grace*eta, grace*eta^2, ...; `none` stops nobody."""

    name: Literal["asha", "none"] = "asha"
    grace_epochs: int = 3
    eta: int = 3

    def rungs(self, max_epochs: int) -> tuple[int, ...]:
        """The epochs below `max_epochs` at which trials are compared: (3, 9) for 27 epochs."""
        rungs = []
        epoch = self.grace_epochs
        while self.name == "asha" and epoch < max_epochs:
            rungs.append(epoch)
            epoch *= self.eta
        return tuple(rungs)


@dataclass(frozen=True)
class Budget:
    """When the search ends: after `trials` trials or `time` seconds, whichever comes first."""

    trials: int | None = None
    time: float | None = None


@dataclass(frozen=True)
class Space:
    """One question: what is fixed, what is sampled, what counts, what is tried first, and for how long."""

    name: str
    base: dict[str, Any]
    params: tuple[Parameter, ...]
    budget: Budget
    objectives: tuple[Objective, ...] = (Objective("val/accuracy", "max"),)
    enqueue: tuple[Params, ...] = ()  # as written: partial configurations
    sampler: SamplerOptions = SamplerOptions()
    scheduler: SchedulerOptions = SchedulerOptions()
    description: str = ""
    source: str = field(default="", compare=False)  # the file it was read from
    notes: tuple[str, ...] = field(default=(), compare=False)  # allowed, but perhaps not meant
    lines: dict[str, int] = field(default_factory=dict, compare=False, repr=False)  # parameter -> line of the file

    # -- configurations ----------------------------------------------------------------------------------

    def complete(self, partial: Mapping[str, Any]) -> Params:
        """`partial` with the defaults of every other active parameter, in declaration order.

        Raises:
            ConfigError: for a key the space does not sample, one that is not active here, or a value outside
                its domain.
        """
        known = {p.key for p in self.params}
        for key in partial:
            if key not in known:
                fixed = f"; it is fixed to {shown(self.base[key])} in base" if key in self.base else ""
                raise ConfigError(f"'{key}' is not sampled by this space{fixed}{nearest(key, known)}", key)
        full: Params = {}
        for parameter in self.params:
            key = parameter.key
            if not parameter.active(full):
                if key in partial:
                    needs = " and ".join(str(condition) for condition in parameter.when)
                    raise ConfigError(f"'{key}' is not active here: it needs {needs}; leave it out", key)
                continue
            try:
                full[key] = parameter.domain.normal(partial[key]) if key in partial else parameter.default
            except ValueError as error:
                raise ConfigError(f"{key}: {error}", key) from None
        return full

    def flat(self, params: Mapping[str, Any]) -> Params:
        """The fixed part and `params` together, less fixed options that nothing reads beside the chosen ones."""
        flat = {**self.base, **params}
        return {k: v for k, v in flat.items() if k in params or not why_unread(k, flat)}

    def trial_config(self, params: Mapping[str, Any]) -> TrialConfig:
        """The checked configuration of the trial that `params` (complete) describes."""
        return TrialConfig.from_flat(self.flat(params))

    def key(self, params: Mapping[str, Any]) -> str:
        """Canonical identity of a configuration: the same text for the same settings, whatever their order.

        Numbers are compared to 12 significant digits, so that a value survives a journal or a database.
        """
        return json.dumps({k: _canonical(params[k]) for k in sorted(params)}, ensure_ascii=False)

    def short_name(self, params: Mapping[str, Any]) -> str:
        """A readable name such as `soft_moa-e7-r128`: the method and the sizes that set it apart."""
        from search.space.naming import GENERAL, short_name

        # What holds for the whole space sets no configuration apart.
        return short_name({k: v for k, v in self.flat(params).items() if k in params or k not in GENERAL})

    def where(self, key: str) -> str:
        """`spaces/moa.yaml, line 30`: where a key is declared, for messages."""
        line = f", line {self.lines[key]}" if key in self.lines else ""
        return f"{self.source or 'the space'}{line}"

    def parameter(self, key: str) -> Parameter:
        """The parameter of that key; raises KeyError."""
        for parameter in self.params:
            if parameter.key == key:
                return parameter
        raise KeyError(key)

    # -- the sampler's side ------------------------------------------------------------------------------

    def suggest(self, trial: OptunaTrial) -> Params:
        """Ask an Optuna trial for a configuration, parameter by parameter: only active ones are asked for."""
        params: Params = {}
        for parameter in self.params:
            if parameter.active(params):
                params[parameter.key] = parameter.domain.suggest(trial, parameter.key)
        return params

    def to_optuna(self, params: Mapping[str, Any]) -> Params:
        """`params` in Optuna's own values (ordered choices are positions), as `enqueue_trial` wants them."""
        return {k: self.parameter(k).domain.to_optuna(v) for k, v in params.items()}

    def from_optuna(self, params: Mapping[str, Any]) -> Params:
        """The reverse of `to_optuna`."""
        return {k: self.parameter(k).domain.from_optuna(v) for k, v in params.items()}

    def distributions(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Optuna's distribution of every key in `params`, to rebuild a finished trial with `create_trial`."""
        return {k: self.parameter(k).domain.distribution() for k in params}

    # -- facts -------------------------------------------------------------------------------------------

    def max_epochs(self) -> int:
        """The epochs of a trial that is not stopped (the most, where they are sampled or a recipe's differ)."""
        for parameter in self.params:
            if parameter.key == "epochs":
                return max(int(end) for end in parameter.domain.ends() if end is not None)
        if "epochs" not in self.base and self.base.get("recipe") is not None:
            return max(self._epochs_of_recipe(), default=TrialConfig().epochs)
        return int(self.base.get("epochs", TrialConfig().epochs))

    def _epochs_of_recipe(self) -> Iterator[int]:
        """What the recipe in `base` says for every method and value of an option, where it says anything."""
        values = (((p.key, value),) for p in self.params for value in p.domain.ends())
        for params in chain(self.branches(), tree.covering(self.params, values)):
            with suppress(ConfigError):  # a case that the recipe lacks: reading the space tells
                yield int(recipe(str(self.base["recipe"]), self.flat(params)).get("epochs", TrialConfig().epochs))

    def methods(self) -> tuple[str, ...]:
        """Every method the space can propose, in order."""
        for parameter in self.params:
            if parameter.key == "method":
                return tuple(str(value) for value in parameter.domain.ends())
        return (str(self.base["method"]),)

    def size(self) -> int | None:
        """How many different configurations there are; None when a real number makes them uncountable."""
        return tree.size(self.params)

    def is_parent(self, key: str) -> bool:
        """Whether other parameters depend on this one."""
        return key in tree.parents(self.params)

    def branches(self) -> Iterator[Params]:
        """Complete configurations that show how the conditions can fall out; the rest at its default.

        All of them, or where there are more than 500 every two values of conditions together.
        """
        return tree.branches(self.params)

    def absolute(self) -> Space:
        """The same space with the data path (and a backbone directory) absolute, for the run directory."""
        base = dict(self.base)
        if isinstance(base.get("data"), str):
            base["data"] = str(Path(base["data"]).expanduser().resolve())
        if isinstance(base.get("backbone"), str) and Path(base["backbone"]).expanduser().is_dir():
            base["backbone"] = str(Path(base["backbone"]).expanduser().resolve())
        return replace(self, base=base)

    def digest(self) -> str:
        """16 hex digits of everything that decides what is searched (not the name or the description)."""
        from search.space.writing import to_plain

        plain = {k: v for k, v in to_plain(self).items() if k not in ("name", "description")}
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]


def _canonical(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    rounded = float(f"{value:.12g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded
