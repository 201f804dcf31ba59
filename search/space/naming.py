"""Readable names of configurations: `soft_moa-e7-r128` (torch-free)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SHORT = {
    "attention": "attn",
    "sequential": "seq",
    "tiny_attention": "tinyattn",
    "tiny_external_attention": "tinyext",
    "tiny_conformer": "tinyconf",
    "replace_dist": "nodist",
    "norm_linear": "norm",
}
_LONGEST = 80

GENERAL = ("norms", "pooling", "head.kind", "backbone_mode", "seed")
"""Options that a name holds only where they are sampled."""


def short_name(flat: Mapping[str, Any]) -> str:
    """The method, then the sizes and places that are given and set it apart, safe in a file name.

    Sizes are a letter and a number: e experts, s slots (when above 1), r reduction, w width, c ratio, x kernel,
    k rank, n tokens of prompts or prefixes, top the fine-tuned layers. Blocks, places, LoRA targets and other words
    stand for themselves where they are not the usual ones; l2to4 are the adapted layers.
    """
    bases = str(flat.get("method", "linear")).split("+")
    parts = ["+".join(bases)]
    for base in bases:
        parts += _OF_METHOD.get(base.strip(), _nothing)(flat)
    if flat.get("layers.first") or flat.get("layers.last") is not None:
        last = flat.get("layers.last")
        parts.append(f"l{flat.get('layers.first') or 0}to{'top' if last is None else last}")
    if flat.get("norms") is not None:
        parts.append("ln_" + str(flat["norms"]).replace("+", "_"))
    parts += _words(flat, {"pooling": "mean", "head.kind": "linear"})
    parts += ["dropout"] if flat.get("backbone_mode") == "train" else []
    parts += _sizes(flat, {"seed": "seed"})
    name = re.sub(r"[^A-Za-z0-9._+-]", "", "-".join(parts))
    return name if len(name) <= _LONGEST else name[:_LONGEST].rstrip("-+._")


def _nothing(flat: Mapping[str, Any]) -> list[str]:
    return []


def _partial(flat: Mapping[str, Any]) -> list[str]:
    last = flat.get("partial.last", "half")
    return [str(last) if isinstance(last, str) else f"top{last}"]


def _adapter(flat: Mapping[str, Any]) -> list[str]:
    parts = _words(flat, {"adapter.block": "bottleneck"})
    parts += _sizes(flat, {"adapter.reduction": "r", "adapter.width": "w", "adapter.ratio": "c", "adapter.kernel": "x"})
    usual = {"adapter.axis": "time", "adapter.location": "ffn", "adapter.placement": "parallel", "adapter.order": None}
    parts += _words(flat, {**usual, "adapter.activation": "gelu"})
    if flat.get("adapter.residual") is not None:
        parts.append("res" if flat["adapter.residual"] else "nores")
    for key, word in (("adapter.gate", "nogate"), ("adapter.layernorm", "noln")):
        parts += [word] if flat.get(key) is False else []
    return parts


def _lora(flat: Mapping[str, Any]) -> list[str]:
    parts = _sizes(flat, {"lora.rank": "k", "lora.reduction": "r"})
    if flat.get("lora.targets", "q,v") != "q,v":
        parts.append(str(flat["lora.targets"]).replace(",", "").replace(" ", ""))
    return [*parts, *(["shared"] if flat.get("lora.shared") else [])]


def _prompt(flat: Mapping[str, Any]) -> list[str]:
    shallow = ["shallow"] if flat.get("prompt.deep") is False else []
    return [*_sizes(flat, {"prompt.length": "n"}), *shallow, *_words(flat, {"prompt.insertion": "insert"})]


def _prefix(flat: Mapping[str, Any]) -> list[str]:
    reparam = ["mlp"] if flat.get("prefix.reparam") else []
    return [
        *_sizes(flat, {"prefix.length": "n"}),
        *_words(flat, {"prefix.table": "layers"}),
        *reparam,
        *_sizes(flat, {"prefix.hidden": "h"}),
    ]


def _moa(flat: Mapping[str, Any]) -> list[str]:
    slots = {} if flat.get("moa.slots") == 1 else {"moa.slots": "s"}
    parts = _sizes(flat, {"moa.experts": "e", **slots, "moa.reduction": "r"})
    parts += _words(flat, {"moa.expert": "bottleneck"})
    parts += _sizes(flat, {"moa.kernel": "x"})
    return [*parts, *_words(flat, {"moa.axis": "time", "moa.location": "attention", "moa.normalize": "none"})]


def _feature_adapter(flat: Mapping[str, Any]) -> list[str]:
    return _sizes(flat, {"feature_adapter.width": "w"})


_OF_METHOD = {
    "partial": _partial,
    "adapter": _adapter,
    "lora": _lora,
    "prompt": _prompt,
    "prefix": _prefix,
    "dense_moa": _moa,
    "soft_moa": _moa,
    "feature_adapter": _feature_adapter,
}


def _sizes(flat: Mapping[str, Any], letters: Mapping[str, str]) -> list[str]:
    given = [(letter, flat[key]) for key, letter in letters.items() if flat.get(key) is not None]
    return [f"{letter}{value:g}" for letter, value in given]


def _words(flat: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    """Values that are given and not the usual ones."""
    found = [str(flat[key]) for key, expected in usual.items() if flat.get(key) not in (None, expected)]
    return [_SHORT.get(word, word.replace("+", "_")) for word in found]
