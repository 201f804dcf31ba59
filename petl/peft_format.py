"""`adapter_config.json`: peft's own format for LoRA, a labelled one for the methods peft does not know.

A pure LoRA adapter (with or without trained LayerNorms) is described so that
`peft.PeftModel.from_pretrained` rebuilds it on the same backbone; peft's scale is `lora_alpha / r`, so
`lora_alpha` is the alpha that gives ours. (torch-free)
"""

from __future__ import annotations

from typing import Any

from petl import plan
from petl.config import MethodConfig
from petl.families import family_of
from petl.shape import BackboneShape

PREFIX = "base_model.model."
"""What peft puts in front of the backbone's tensor names."""


def adapter_config(method: MethodConfig, *, shape: BackboneShape, name: str, revision: str | None) -> dict[str, Any]:
    """The contents of `adapter_config.json` for a method on a backbone of the given sizes."""
    common: dict[str, Any] = {"base_model_name_or_path": name, "revision": revision, "inference_mode": True}
    if not expressible(method, shape):
        label = "PETL_" + "_".join(method.methods).upper()
        return {"peft_type": label, "library": "petl-search", **common, **method.to_flat()}
    family = family_of(shape.family)
    adapted = plan.adapted_layers(method, shape.layers)
    everywhere = len(adapted) == shape.layers
    rank = plan.lora_rank(method.lora, shape.hidden)
    alpha = plan.lora_alpha(method.lora, shape.hidden)
    return {
        "peft_type": "LORA",
        **common,
        "task_type": None,
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": method.lora.dropout,
        "target_modules": sorted(family.projections[t].rpartition(".")[2] for t in method.lora.target_names),
        "layers_to_transform": None if everywhere else list(adapted),
        "layers_pattern": None if everywhere else family.layers.rpartition(".")[2],
        "modules_to_save": _saved_modules(method, shape) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
    }


def expressible(method: MethodConfig, shape: BackboneShape) -> bool:
    """Whether peft's own LoRA computes the same.

    It knows no shared pairs, and on WavLM an update of an attention projection would do nothing: that attention
    takes the projections' weights and passes their modules by.
    """
    if method.methods != ("lora",) or method.lora.shared:
        return False
    return family_of(shape.family).attention == "interface" or not {*method.lora.target_names} & {"q", "k", "v", "o"}


def _saved_modules(method: MethodConfig, shape: BackboneShape) -> list[str]:
    """Paths of the trained LayerNorms; full paths, because peft matches by suffix."""
    family = family_of(shape.family)
    paths = {
        family.last_norm(shape) if site == "final" else family.block(layer, site).norm
        for layer, site, _ in plan.trained_norms(method, shape)
    }
    return sorted(paths)
