"""What can be sampled: choices, whole numbers and real numbers, with defaults and conditions (torch-free).

A domain knows which values it holds, how many, its ends, and how Optuna sees it. An ordered choice is a whole
number to Optuna (the position in the list), so that "64 lies between 32 and 128" is not lost on the sampler.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from search.space.errors import listed, shown

Scalar = str | int | float | bool | None


class OptunaTrial(Protocol):
    """The part of `optuna.Trial` that is used here."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...


@dataclass(frozen=True)
class Choice:
    """One of several values; `ordered` when their order means something."""

    values: tuple[Scalar, ...]
    ordered: bool = False

    def normal(self, value: Any) -> Any:
        """The listed value equal to `value`; raises ValueError with what is allowed."""
        for own in self.values:
            if own == value and isinstance(own, bool) == isinstance(value, bool):
                return own
        raise ValueError(f"{shown(value)} is not one of {listed(self.values)}")

    def middle(self) -> Scalar:
        return self.values[0]

    def ends(self) -> tuple[Scalar, ...]:
        """Values worth trying one by one to see what the domain can lead to: all of them."""
        return self.values

    def size(self) -> int | None:
        return len(self.values)

    def distribution(self) -> Any:
        from optuna.distributions import CategoricalDistribution, IntDistribution

        return IntDistribution(0, len(self.values) - 1) if self.ordered else CategoricalDistribution(self.values)

    def suggest(self, trial: OptunaTrial, key: str) -> Any:
        if self.ordered:
            return self.values[trial.suggest_int(key, 0, len(self.values) - 1)]
        return trial.suggest_categorical(key, self.values)

    def to_optuna(self, value: Any) -> Any:
        return self.values.index(value) if self.ordered else value

    def from_optuna(self, value: Any) -> Any:
        return self.values[value] if self.ordered else value

    def __str__(self) -> str:
        return listed(self.values) + (" (ordered)" if self.ordered else "")


@dataclass(frozen=True)
class IntRange:
    """Whole numbers from `low` to `high`, both included, in steps of `step`."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def normal(self, value: Any) -> int:
        """`value` as a whole number of the range; raises ValueError with what is allowed."""
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if isinstance(value, bool) or not whole:
            raise ValueError(f"{shown(value)} is not a whole number")
        if not self.low <= value <= self.high:
            raise ValueError(f"{shown(value)} is outside {self.low} to {self.high}")
        if (value - self.low) % self.step:
            raise ValueError(f"{shown(value)} is not {self.low} plus a multiple of the step {self.step}")
        return int(value)

    def middle(self) -> int:
        """The geometric middle on a log scale, else the arithmetic one, on the grid."""
        exact = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return self.low + self.step * round((exact - self.low) / self.step)

    def ends(self) -> tuple[int, ...]:
        return (self.low, self.high) if self.low < self.high else (self.low,)

    def size(self) -> int | None:
        return (self.high - self.low) // self.step + 1

    def distribution(self) -> Any:
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log, step=self.step)

    def suggest(self, trial: OptunaTrial, key: str) -> int:
        return trial.suggest_int(key, self.low, self.high, step=self.step, log=self.log)

    def to_optuna(self, value: Any) -> Any:
        return value

    def from_optuna(self, value: Any) -> Any:
        return value

    def __str__(self) -> str:
        step = f", step {self.step}" if self.step > 1 else ""
        return f"{self.low} to {self.high}{step}{', log' if self.log else ''}"


@dataclass(frozen=True)
class FloatRange:
    """Real numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False

    def normal(self, value: Any) -> float:
        """`value` as a real number of the range; raises ValueError with what is allowed."""
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ValueError(f"{shown(value)} is not a number")
        if not self.low <= value <= self.high:
            raise ValueError(f"{shown(value)} is outside {shown(self.low)} to {shown(self.high)}")
        return float(value)

    def middle(self) -> float:
        """The geometric middle on a log scale, else the arithmetic one."""
        middle = math.sqrt(self.low) * math.sqrt(self.high) if self.log else self.low / 2 + self.high / 2
        return min(max(middle, self.low), self.high)

    def ends(self) -> tuple[float, ...]:
        return (self.low, self.high) if self.low < self.high else (self.low,)

    def size(self) -> int | None:
        return None if self.low < self.high else 1

    def distribution(self) -> Any:
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)

    def suggest(self, trial: OptunaTrial, key: str) -> float:
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def to_optuna(self, value: Any) -> Any:
        return value

    def from_optuna(self, value: Any) -> Any:
        return value

    def __str__(self) -> str:
        return f"{shown(self.low)} to {shown(self.high)}{', log' if self.log else ''}"


Domain = Choice | IntRange | FloatRange


@dataclass(frozen=True)
class Condition:
    """One line of `when`: parameter `key` is active and has one of `values`."""

    key: str
    values: tuple[Scalar, ...]

    def holds(self, params: Mapping[str, Any]) -> bool:
        return self.key in params and params[self.key] in self.values

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.key} = {listed(self.values)}"
        return f"{self.key} in {listed(self.values)}"


@dataclass(frozen=True)
class Parameter:
    """One sampled key: what it can be, its default, and when it is active (all conditions hold)."""

    key: str
    domain: Domain
    default: Scalar
    when: tuple[Condition, ...] = ()

    def active(self, params: Mapping[str, Any]) -> bool:
        """Whether this parameter exists beside the active parameters declared above it."""
        return all(condition.holds(params) for condition in self.when)
