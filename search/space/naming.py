"""Readable names of configurations: `soft_moa-e7-r128` (torch-free)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_LOCATIONS = {"attention": "attn", "ffn": "ffn", "both": "both", "layer": "layer"}


def short_name(flat: Mapping[str, Any]) -> str:
    """The method, then the sizes and places that are given, safe in a file name.

    e experts, s slots (when above 1), r reduction, w width, k rank; places and LoRA targets by name.
    """
    method = str(flat.get("method", "linear"))
    bases = method.split("+")
    parts = [method]
    if {"soft_moa", "dense_moa"} & set(bases):
        slots = {} if flat.get("moa.slots") == 1 else {"moa.slots": "s"}
        parts += _sized(flat, {"moa.experts": "e", **slots, "moa.reduction": "r"})
        parts += _named(flat, "moa.location", usual="attention")
    if "adapter" in bases:
        parts += _sized(flat, {"adapter.reduction": "r", "adapter.width": "w"})
        parts += _named(flat, "adapter.location", usual="ffn")
        parts += _named(flat, "adapter.placement", usual="parallel")
    if "lora" in bases:
        parts += _sized(flat, {"lora.rank": "k", "lora.reduction": "r"})
        if flat.get("lora.targets", "q,v") != "q,v":
            parts.append(str(flat["lora.targets"]).replace(",", "").replace(" ", ""))
    if flat.get("layers.first") or flat.get("layers.last") is not None:
        last = flat.get("layers.last")
        parts.append(f"l{flat.get('layers.first') or 0}to{'top' if last is None else last}")
    return re.sub(r"[^A-Za-z0-9._+-]", "", "-".join(parts))


def _sized(flat: Mapping[str, Any], letters: Mapping[str, str]) -> list[str]:
    given = [(letter, flat[key]) for key, letter in letters.items() if flat.get(key) is not None]
    return [f"{letter}{value:g}" for letter, value in given]


def _named(flat: Mapping[str, Any], key: str, usual: str) -> list[str]:
    value = flat.get(key, usual)
    return [] if value == usual else [_LOCATIONS.get(str(value), str(value))]
