"""Published recipes by name: how a paper trained a method on a data set, as dotted keys (torch-free).

    recipe("petl_ast", {"dataset": "esc50", "method": "lora"})     # {"optim.lr": 0.005, "epochs": 50, ...}

A recipe gives learning rates, schedule, epochs, batches, precision, augmentation, protocol and frames, and of the
method what its preset holds (`petl.presets`). It leaves `method`, the backbone and everything random to the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from petl.config import why_unread
from petl.errors import ConfigError, nearest
from petl.families import ALIASES, family_of
from petl.frontend.spectrogram import AstFrontEnd
from petl.frontend.waveform import WaveformFrontEnd
from petl.hub import EMBEDDED, read_config
from petl.shape import AST_TYPE
from trainables.recipes import aat, petl_ast, sure
from trainables.recipes.base import Case, Kind, Part, Recipe

__all__ = ["RECIPES", "Recipe", "Row", "expanded", "recipe", "recipes", "sources"]

RECIPES: dict[str, Recipe] = {module.RECIPE.name: module.RECIPE for module in (petl_ast, sure, aat)}
"""The published systems by name."""

_PUBLISHED_BACKBONES = {
    EMBEDDED: AST_TYPE,
    "MIT/ast-finetuned-audioset-10-10-0.4593": AST_TYPE,
    "facebook/deit-base-distilled-patch16-384": "deit",
    "facebook/wav2vec2-base-960h": "wav2vec2",
    "jonatasgrosman/wav2vec2-large-xlsr-53-english": "wav2vec2",
}
"""Name -> `model_type`, so that these need not be there to be planned with."""

_ONE_OF: tuple[tuple[str, ...], ...] = (
    ("adapter.reduction", "adapter.width", "adapter.ratio"),
    ("lora.rank", "lora.reduction"),
    ("schedule.warmup_epochs", "schedule.warmup_steps", "schedule.warmup_ratio"),
)
"""Keys that say the same thing in different words: of a recipe's none stays beside one that is given."""


@dataclass(frozen=True)
class Row:
    """One case of a recipe: what to give to mean it, what it sets, and where each value is published."""

    name: str
    dataset: str
    target: str
    backbone: Kind
    given: Mapping[str, Any]  # the method, and what else tells the variant
    settings: Mapping[str, Any]
    sources: Mapping[str, str]  # key -> where its value is from

    @property
    def method(self) -> str:
        return str(self.given["method"])

    @property
    def source(self) -> str:
        return RECIPES[self.name].source


def recipe(name: str, flat: Mapping[str, Any], family: str | None = None) -> dict[str, Any]:
    """The dotted keys that a recipe sets beside those in `flat`, less what has no meaning beside them.

    `flat` names the case: `dataset`, `data.target` (default: the recipe's own), `backbone`, `method`, and options that
    tell variants apart, such as `adapter.block` and `prompt.deep`. `family` is the backbone's `model_type`; without it
    the backbone's config.json is read. Raises `ConfigError` naming the key `recipe` when it does not cover the case.
    """
    return {key: value for key, (value, _) in _found(name, flat, family).items()}


def sources(name: str, flat: Mapping[str, Any], family: str | None = None) -> dict[str, str]:
    """Where each value of `recipe` is published."""
    return {key: source for key, (_, source) in _found(name, flat, family).items()}


def expanded(flat: Mapping[str, Any], family: str | None = None) -> dict[str, Any]:
    """`flat` with the keys of its `recipe` under it: what is given wins, `recipe` stays and says where from.

    A key that is given as None counts as given. What is expanded already comes back as it is, also when the Nones were
    dropped since: where a recipe would only add keys that may be None, they were set to None before.
    """
    if flat.get("recipe") is None:
        return dict(flat)
    missing = recipe(str(flat["recipe"]), flat, family)
    return dict(flat) if missing.keys() <= _may_be_none() else {**missing, **flat}


def recipes(name: str | None = None) -> list[Row]:
    """Every case of every recipe (or of one), for listings."""
    rows = []
    for found in [RECIPES[name]] if name else RECIPES.values():
        for dataset, targets in found.targets.items():
            for target in targets:
                for kind in found.kinds:
                    for variant in (v for v in found.variants(dataset, target, kind) if v.own):
                        case = Case(dataset, target, kind, variant, variant.given)
                        settled = _settled(found.parts(case), variant.given)
                        settings = {key: value for key, (value, _) in settled.items()}
                        where = {key: source for key, (_, source) in settled.items()}
                        rows.append(Row(found.name, dataset, target, kind, variant.given, settings, where))
    return rows


def _found(name: str, flat: Mapping[str, Any], family: str | None) -> dict[str, tuple[Any, str]]:
    if name not in RECIPES:
        raise ConfigError(
            f"recipe '{name}' is not known{nearest(name, RECIPES)}; there are: {', '.join(RECIPES)}", "recipe"
        )
    found = RECIPES[name]
    return _settled(found.parts(found.case(flat, _kind(flat, family))), flat)


def _may_be_none() -> set[str]:
    from trainables.config import trial_keys

    return {info.key for info in trial_keys() if info.default is None}


def _settled(parts: Sequence[Part], flat: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Key -> value and source: later parts win, what is given in `flat`, or goes against it, is left out."""
    found = {key: (value, part.source) for part in parts for key, value in part.keys.items()}
    found = {key: value for key, value in found.items() if key not in flat and not _contradicted(key, value[0], flat)}
    together = {**{key: value for key, (value, _) in found.items()}, **flat}
    return {key: value for key, value in found.items() if not why_unread(key, together)}


def _contradicted(key: str, value: Any, flat: Mapping[str, Any]) -> bool:
    if key == "train.accumulate":
        return bool(flat.get("train.batch_size", value) < value)
    return any(key in names and any(flat.get(other) is not None for other in names) for names in _ONE_OF)


def _kind(flat: Mapping[str, Any], family: str | None) -> Kind:
    name = str(flat.get("backbone") or EMBEDDED)
    if family is None:
        family = _PUBLISHED_BACKBONES.get(name) or read_config(name, flat.get("revision")).get("model_type")
    if family in ALIASES:
        return "deit"
    by_extractor: dict[str, Kind] = {WaveformFrontEnd.kind: "waveform", AstFrontEnd.kind: "ast"}
    return by_extractor.get(family_of(family).extractor, "whisper")
