"""Random sound spaces for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from search.space import Space, parse_space
from search.space.yamlfile import write

_MIXTURES = ["soft_moa", "dense_moa"]
_READERS = {
    "moa.experts": _MIXTURES,
    "moa.slots": ["soft_moa"],
    "moa.reduction": _MIXTURES,
    "moa.location": _MIXTURES,
    "moa.expert": _MIXTURES,
    "adapter.reduction": ["adapter", "adapter+lora"],
    "adapter.location": ["adapter", "adapter+lora"],
    "adapter.block": ["adapter", "adapter+lora"],
    "lora.rank": ["lora", "adapter+lora"],
    "lora.alpha": ["lora", "adapter+lora"],
    "lora.targets": ["lora", "adapter+lora"],
    "prefix.table": ["prefix"],
    "prefix.length": ["prefix"],
}
_BEHIND = {  # options that need another option besides a method
    "moa.kernel": ("moa.expert", ["convpass"]),
    "adapter.kernel": ("adapter.block", ["conformer", "convpass", "conv"]),
    "adapter.activation": ("adapter.block", ["bottleneck"]),
    "adapter.gate": ("adapter.block", ["conv"]),
    "prefix.reparam": ("prefix.table", ["embedding"]),
}
_WORDS = {
    "moa.location": ["attention", "ffn", "both"],
    "adapter.location": ["ffn", "attention", "both", "layer"],
    "lora.targets": ["q,v", "q", "q,k,v,o"],
    "moa.expert": ["bottleneck", "convpass"],
    "adapter.block": ["bottleneck", "conformer", "convpass", "conv"],
    "adapter.activation": ["gelu", "relu"],
    "adapter.gate": [True, False],
    "prefix.table": ["layers", "embedding"],
    "prefix.reparam": [True, False],
    "pooling": ["mean", "cls", "cls+dist", "patches"],
}
_REALS = ["optim.lr", "optim.weight_decay", "lora.alpha", "train.label_smoothing"]


@st.composite
def _domain(draw: st.DrawFn, key: str) -> dict[str, Any]:
    if key in _WORDS:
        values = draw(st.lists(st.sampled_from(_WORDS[key]), min_size=1, unique=True))
        entry = {"choice": values, "ordered": draw(st.booleans())}
        return {**entry, "default": draw(st.sampled_from(values))} if draw(st.booleans()) else entry
    if key in _REALS:
        low = draw(st.floats(1e-5, 0.4))
        entry = {"float": [low, draw(st.floats(low, 0.5))], "log": draw(st.booleans())}
        return {**entry, "default": low} if draw(st.booleans()) else entry
    if key.endswith("reduction") and draw(st.booleans()):
        values = draw(st.lists(st.sampled_from([1, 2, 4, 8, 16]), min_size=1, unique=True))
        return {"choice": values, "ordered": draw(st.booleans())}
    low, steps, step = draw(st.integers(1, 5)), draw(st.integers(0, 4)), draw(st.integers(1, 3))
    if draw(st.booleans()):
        return {"int": [low, low + steps], "log": True}
    return {"int": [low, low + steps * step], "step": step, "default": low}


@st.composite
def space_texts(draw: st.DrawFn) -> str:
    """YAML of a sound space: conditional options of random methods, some unconditional ones, enqueued points."""
    methods = draw(
        st.lists(
            st.sampled_from([*_MIXTURES, "adapter", "lora", "adapter+lora", "prefix", "linear"]),
            min_size=1,
            max_size=6,
            unique=True,
        )
    )
    params: dict[str, Any] = {"method": {"choice": methods, "ordered": draw(st.booleans())}}
    free = draw(st.lists(st.sampled_from(["pooling", "optim.lr", "optim.weight_decay"]), unique=True))
    params |= {key: draw(_domain(key)) for key in free}
    for key in draw(st.lists(st.sampled_from(list(_READERS)), unique=True)):
        readers = [m for m in _READERS[key] if m in methods]
        if not readers:
            continue
        when: dict[str, Any] = {"method": readers if draw(st.booleans()) else readers[0]}
        parent = params.get("moa.experts")
        if parent and key == "moa.location" and readers[0] in params["moa.experts"]["when"]["method"]:
            when = {"method": readers[0], "moa.experts": parent["int"][0]}
        params[key] = {**draw(_domain(key)), "when": when}
    for key, (parent, values) in _BEHIND.items():
        fitting = [v for v in values if v in params.get(parent, {}).get("choice", [])]
        if fitting and draw(st.booleans()):
            params[key] = {**draw(_domain(key)), "when": {parent: fitting}}
    plain = {
        "schema": "petl.space/1",
        "name": draw(st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)),
        "description": draw(st.text(st.characters(codec="utf-8"), max_size=8)),
        "base": {"epochs": draw(st.integers(1, 90)), "lora.dropout": 0.0, "train.precision": "float32"}
        if {"lora", "adapter+lora"} & set(methods)
        else {"epochs": 9},
        "objectives": [{"metric": "val/macro_f1"}, {"metric": "trainable_params", "max": draw(st.integers(1, 10**9))}],
        "params": params,
        "enqueue": [{"method": m} for m in draw(st.lists(st.sampled_from(methods), max_size=3))],
        "sampler": {"name": draw(st.sampled_from(["tpe", "random"])), "seed": draw(st.integers(0, 2**31 - 1))},
        "budget": {"trials": 5, "time": draw(st.sampled_from(["90s", "1h30m", 12.5]))},
    }
    return write(plain)


def spaces() -> st.SearchStrategy[Space]:
    return space_texts().map(parse_space)
