"""What a recipe that is asked for on the command line takes out of a space file (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from petl.config import method_keys
from search.space.errors import Mistake, SpaceError
from search.space.yamlfile import Document
from trainables.config import trial_keys
from trainables.recipes import RECIPES, recipes

_OF_MACHINE = frozenset(
    f"train.{key}" for key in ("loaders", "eval_batch_size", "deadline", "storage_patience", "gradient_checkpointing")
)
"""Keys of training about the machine it runs on, not about what is trained: they stay."""
_CASE = frozenset({"data.target"})
"""What tells a recipe its case, so that it is the space's to say."""


def follow_recipe(document: Document, overrides: Mapping[str, Any]) -> list[str]:
    """Take out of the file what a recipe asked for on the command line decides; notes on what is not sampled then.

    That is all of training, also where the paper has nothing to set (an augmentation it lacks is off), and what holds
    for every method (pooling, head, LayerNorms). Options of methods and what is sampled of them stay: they are what a
    space is about. In a file, what stands beside a recipe wins over it.
    """
    given = {key.removeprefix("base."): value for key, value in overrides.items()}
    name = given.get("recipe")
    top = document.value
    if name not in RECIPES:
        return []
    of_method = {info.key for info in method_keys()}
    owned = {key for row in recipes(str(name)) for key in row.settings} - of_method - _CASE
    decided = owned | {key for info in trial_keys() if _of_training(key := info.key)}
    base = top.get("base")
    if isinstance(base, dict):
        for key in [key for key in base if key in decided or _of_every_method(str(key))]:
            del base[key]
    params = top.get("params")
    sampled = sorted(decided & params.keys()) if isinstance(params, dict) else []
    if sampled and len(sampled) == len(params):
        said = (
            f"recipe {name} fixes {', '.join(sampled)}, which is all that this space samples; sample an option of a "
            "method, or the method: method: {choice: [lora]} trains one configuration"
        )
        raise SpaceError(document.file, [Mistake("--set recipe", said)])
    for key in sampled:
        del params[key]
    for entry in top.get("enqueue") or []:
        if isinstance(entry, dict):
            for key in decided & entry.keys():
                del entry[key]
    fixed = [key for key in sampled if key not in given]
    return [f"recipe {name} fixes {', '.join(fixed)}, which the space would sample"] if fixed else []


def _of_training(key: str) -> bool:
    return key == "epochs" or (key.startswith(("aug.", "optim.", "schedule.", "train.")) and key not in _OF_MACHINE)


def _of_every_method(key: str) -> bool:
    return key in ("pooling", "norms", "backbone_mode") or key.startswith("head.")
