"""What a published recipe is made of (torch-free).

A recipe covers cases: a target of a data set, a kind of backbone, a variant of a method. For each it gives parts, keys
with the place that they are published in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from petl.errors import ConfigError
from petl.presets import PRESETS

Kind = Literal["ast", "deit", "waveform", "whisper"]
"""Kinds of backbones: an AST trained on audio; one of image weights alone; wav2vec 2.0 and its relatives; Whisper."""

KINDS: dict[Kind, str] = {
    "ast": "an AST",
    "deit": "an AST of image weights (DeiT)",
    "waveform": "a model that reads waveforms",
    "whisper": "a Whisper encoder",
}


@dataclass(frozen=True)
class Part:
    """Keys that are published in one place. Later parts of a case win over earlier ones."""

    source: str
    keys: Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """A method as a recipe trained it, by the preset that holds its hyperparameters.

    `when`: option -> the values, given explicitly beside the recipe, that mean this variant; None stands for not given.
    """

    method: str
    preset: str
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    own: bool = True  # whether it was trained; one that was not takes the settings of training, and is not listed

    @property
    def methods(self) -> frozenset[str]:
        return _parts_of(self.method)

    def fits(self, flat: Mapping[str, Any]) -> bool:
        method = str(flat.get("method") or "linear")
        return self.methods == _parts_of(method) and all(flat.get(k) in values for k, values in self.when.items())

    @property
    def given(self) -> dict[str, Any]:
        """The least that has to be given to mean this variant."""
        return {"method": self.method, **{k: values[0] for k, values in self.when.items() if None not in values}}

    def part(self) -> Part:
        """The preset's options, less the method, which is not a recipe's to choose."""
        preset = PRESETS[self.preset]
        return Part(preset.source, {k: v for k, v in preset.options.items() if k != "method"})


@dataclass(frozen=True)
class Case:
    """One cell of a recipe's table, and what the user gave beside it."""

    dataset: str
    target: str
    kind: Kind
    variant: Variant
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A published recipe.

    `targets`: data set -> the targets it covers, its own first; `variants` lists what it trains of a target with a kind
    of backbone (nothing: it does not), the first that fits counts; `parts` gives the keys of a case.
    """

    name: str
    summary: str
    source: str
    targets: Mapping[str, tuple[str, ...]]
    kinds: tuple[Kind, ...]
    variants: Callable[[str, str, Kind], tuple[Variant, ...]]
    parts: Callable[[Case], tuple[Part, ...]]

    def case(self, flat: Mapping[str, Any], kind: Kind) -> Case:
        """The case that dotted keys describe; `ConfigError` (key `recipe`) when the recipe does not cover it."""
        dataset = str(flat.get("dataset") or "embedded")
        if dataset not in self.targets:
            raise self._nothing_for(f"dataset '{dataset}'", ", ".join(self.targets))
        target = str(flat.get("data.target") or self.targets[dataset][0])
        if target not in self.targets[dataset]:
            raise self._nothing_for(f"data.target '{target}' of dataset '{dataset}'", ", ".join(self.targets[dataset]))
        if not self.variants(dataset, target, kind):
            known = [KINDS[k] for k in self.kinds if self.variants(dataset, target, k)]
            raise self._nothing_for(f"{KINDS[kind]} as the backbone, on dataset '{dataset}'", ", ".join(known))
        for variant in self.variants(dataset, target, kind):
            if variant.fits(flat):
                return Case(dataset, target, kind, variant, flat)
        options = {k: flat[k] for v in self.variants(dataset, target, kind) for k in v.when if flat.get(k) is not None}
        asked = _shown({"method": flat.get("method") or "linear", **options})
        known = [_shown(v.given).removeprefix("method ") for v in self.variants(dataset, target, kind) if v.own]
        raise self._nothing_for(f"{asked} on dataset '{dataset}' ({target})", ", ".join(known))

    def _nothing_for(self, what: str, covered: str) -> ConfigError:
        return ConfigError(
            f"recipe '{self.name}' has nothing for {what}; it covers: {covered}. Leave recipe out and set the keys",
            "recipe",
        )


def _parts_of(method: str) -> frozenset[str]:
    return frozenset(part.strip() for part in method.split("+"))


def _shown(given: Mapping[str, Any]) -> str:
    method, *rest = (f"'{v}'" if k == "method" else f"{k}: {str(v).lower()}" for k, v in given.items())
    return f"method {method}" + (f" with {' and '.join(rest)}" if rest else "")
