"""What a model answers: a class, tags, slots, a speaker's vector, or a sequence of tokens (torch-free to import)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from petl.errors import UserError
from petl.outputs.base import Output, Prediction
from petl.outputs.classes import Classes, ClassPrediction

_KINDS = {
    "classes": "classes.Classes",
    "tags": "tags.Tags",
    "slots": "slots.Slots",
    "speakers": "speakers.Speakers",
    "tokens": "tokens.Tokens",
}

__all__ = ["ClassPrediction", "Classes", "Output", "Prediction", "as_output", "from_json"]


def as_output(labels: Output | Sequence[str]) -> Output:
    """An output as it is; a list of labels means one of several classes."""
    return labels if isinstance(labels, Output) else Classes(tuple(labels))


def from_json(labels: Sequence[str], values: Mapping[str, Any] | None) -> Output:
    """The output that `to_json` described; None: classes, as adapters from before there were others.

    Raises `UserError` for a kind that is not known and for values that do not fit it.
    """
    kind = "classes" if values is None else values.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError(f"output kind {kind!r} is not known; allowed: {', '.join(_KINDS)}")
    module, _, name = _KINDS[kind].partition(".")
    cls: type[Output] = getattr(import_module(f"petl.outputs.{module}"), name)
    return cls.read(tuple(labels), values or {})
