"""Published settings by name, as dotted keys with their source (torch-free).

    petl.preset("aat_mlp_spatial")      # {"method": "adapter", "adapter.ratio": 0.25, ...}

They give what the published code computes, without its accidents: layers that it makes and never uses, sums it
takes twice, initial values its loader destroys (`petl.config` has names for those that can be had: `legacy_*`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from petl.config import why_unread
from petl.errors import UserError, nearest

_P = "PETL_AST, arXiv 2312.03694"
_MOA = "Soft-MoA, arXiv 2402.00828"
_S = "SURE, arXiv 2303.03267"
_A = "AAT, arXiv 2401.10544"

SOURCES: dict[str, str] = {
    "linear": "",
    "full": "",
    "partial": "AAT, arXiv 2401.10544",
    "bitfit": "BitFit, arXiv 2106.10199",
    "adapter": "Houlsby adapters, arXiv 1902.00751; conformer, arXiv 2312.03694; convpass, arXiv 2207.07039; "
    "ConvAdapter, arXiv 2303.03267; tiny attention, arXiv 2211.01979",
    "lora": "LoRA, arXiv 2106.09685",
    "prompt": "VPT, arXiv 2203.12119",
    "prefix": "prefix tuning, arXiv 2101.00190; P-tuning v2, arXiv 2110.07602",
    "dense_moa": "arXiv 2402.00828",
    "soft_moa": "arXiv 2402.00828",
    "feature_adapter": "SURE, arXiv 2303.03267",
}
"""Base method -> where it comes from; "" for what everybody does."""


@dataclass(frozen=True)
class Preset:
    """One published setting: dotted keys, the learning rate it was trained with, where it stands."""

    options: Mapping[str, Any]
    lr: float
    source: str


_NO_DIST = {"prompt.insertion": "replace_dist"}
_CONFORMER = {"adapter.block": "conformer", "adapter.reduction": 96.0, "adapter.axis": "sequence"}
_SURE: dict[str, Any] = {"norms": "none", "backbone_mode": "train", "head.kind": "projector", "head.width": 256}
_OUTPUT = {"adapter.location": "layer", "adapter.placement": "sequential"}
_AAT: dict[str, Any] = {"norms": "none", "head.kind": "norm_linear", "pooling": "cls+dist"}
_QUARTER = {"adapter.ratio": 0.25}


def _p(lr: float, where: str, **options: Any) -> Preset:
    return Preset(_dotted(options), lr, f"{_P}, {where}")


def _s(lr: float, where: str, more: Mapping[str, Any] | None = None, **options: Any) -> Preset:
    return Preset(_meant({**_dotted(options), **(more or {}), **_SURE}), lr, f"{_S}, {where}")


def _a(where: str, **options: Any) -> Preset:
    return Preset(_meant({**_dotted(options), **_AAT}), 1e-4, f"{_A}, {where}")


def _conv(ratio: float, where: str, **options: Any) -> Preset:
    return _s(2e-3, where, _OUTPUT, method="adapter", adapter__block="conv", adapter__ratio=ratio, **options)


def _meant(flat: dict[str, Any]) -> dict[str, Any]:
    """Without `norms` where full fine-tuning trains every LayerNorm anyway."""
    return {key: value for key, value in flat.items() if key != "norms" or not why_unread(key, flat)}


def _dotted(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("__", "."): value for key, value in options.items()}


PRESETS: dict[str, Preset] = {
    # PETL_AST, table 1: AST
    "p_linear": _p(1e-3, "table 1, linear", method="linear"),
    "p_full": _p(5e-5, "table 1, full fine-tuning", method="full"),
    "p_top3": _p(
        5e-5, "code, full fine-tuning of wav2vec 2.0: the last three layers", method="partial", partial__last=3
    ),
    "bitfit": _p(5e-3, "table 1, BitFit", method="bitfit"),
    "pfeiffer": _p(5e-3, "table 1, bottleneck Pfeiffer", method="adapter", adapter__reduction=64.0),
    "houlsby": _p(
        5e-3, "table 1, bottleneck Houlsby", method="adapter", adapter__reduction=64.0, adapter__location="both"
    ),
    "conformer_pfeiffer": Preset(
        {"method": "adapter", **_CONFORMER, "adapter.kernel": 31}, 5e-3, f"{_P}, table 1, conformer Pfeiffer (speech)"
    ),
    "conformer_houlsby": Preset(
        {"method": "adapter", **_CONFORMER, "adapter.kernel": 31, "adapter.location": "both"},
        5e-3,
        f"{_P}, table 1, conformer Houlsby (speech)",
    ),
    "conformer_pfeiffer_k8": Preset(
        {"method": "adapter", **_CONFORMER, "adapter.kernel": 8}, 5e-3, f"{_P}, table 1, conformer Pfeiffer (audio)"
    ),
    "conformer_houlsby_k8": Preset(
        {"method": "adapter", **_CONFORMER, "adapter.kernel": 8, "adapter.location": "both"},
        5e-3,
        f"{_P}, table 1, conformer Houlsby (audio)",
    ),
    "lora_petl_ast": _p(
        5e-3, "table 1, LoRA", method="lora", lora__reduction=128.0, lora__alpha=16.0, lora__scaling="alpha/RR"
    ),
    "spt_300": _p(
        1e-2,
        "table 1, SPT-300",
        method="prompt",
        prompt__length=300,
        prompt__deep=False,
        prompt__insertion="replace_dist",
    ),
    "dpt_25": _p(1e-2, "table 1, DPT-25", method="prompt", prompt__length=25, prompt__insertion="replace_dist"),
    "prefix_24": _p(1e-2, "table 1, prefix-24", method="prefix", prefix__length=24, prefix__split=True),
    "hydra": _p(5e-3, "code history, Hydra", method="adapter", adapter__reduction=64.0, adapter__placement="hydra"),
    # Mixtures of adapters
    "dense_moa_7": Preset(
        {"method": "dense_moa", "moa.experts": 7, "moa.reduction": 128.0}, 5e-3, f"{_MOA}, example of the code"
    ),
    "soft_moa_7": Preset(
        {"method": "soft_moa", "moa.experts": 7, "moa.slots": 1, "moa.reduction": 128.0},
        5e-3,
        f"{_MOA}, example of the code",
    ),
    "soft_moa_convpass": Preset(
        {
            "method": "soft_moa",
            "moa.experts": 2,
            "moa.slots": 2,
            "moa.reduction": 128.0,
            "moa.expert": "convpass",
            "moa.location": "both",
            "moa.normalize": "published",
        },
        5e-3,
        f"{_MOA}, code, two convpass experts with two slots at both sub-layers",
    ),
    # SURE: wav2vec 2.0 XLSR, dropout of the backbone on, a projector in front of the pooling
    "sure_linear": _s(2e-3, "projector and classifier alone", method="linear"),
    "sure_full": _s(2e-3, "full fine-tuning", method="full"),
    "sure_full_speech": _s(2e-3, "full fine-tuning (speech recognition)", method="full", full__feature_encoder=False),
    "sure_top4": _s(8e-6, "full fine-tuning (speaker recognition)", method="partial", partial__last=4),
    "sure_bottleneck": _s(
        2e-3,
        "bottleneck",
        _OUTPUT,
        method="adapter",
        adapter__ratio=0.5,
        adapter__activation="relu",
        adapter__init="published",
    ),
    "sure_conv_adapter": _conv(0.5, "ConvAdapter"),
    "sure_conv_adapter_d4": _conv(0.25, "code history, ConvAdapter d/4"),
    "sure_conv_adapter_d8": _conv(0.125, "code history, ConvAdapter d/8"),
    "sure_conv_adapter_d16": _conv(0.0625, "code history, ConvAdapter d/16"),
    "sure_conv_adapter_plain": _conv(
        0.5,
        "code history, without gate and middle convolution",
        adapter__kernel=0,
        adapter__gate=False,
        adapter__dropout=0.1,
    ),
    "sure_tiny_attention": _s(2e-3, "code history", _OUTPUT, method="adapter", adapter__block="tiny_attention"),
    "sure_tiny_external_attention": _s(
        2e-3, "code history", _OUTPUT, method="adapter", adapter__block="tiny_external_attention", adapter__width=8
    ),
    "sure_tiny_conformer": _s(
        2e-3, "code history", _OUTPUT, method="adapter", adapter__block="tiny_conformer", adapter__reduction=32.0
    ),
    "sure_lora": _s(2e-3, "LoRA", method="lora", lora__rank=8, lora__alpha=1.0, lora__targets="q,k,v,o,fc1,fc2"),
    "sure_prefix": _s(
        2e-3, "prefix tuning", method="prefix", prefix__length=30, prefix__table="embedding", prefix__dropout=0.1
    ),
    "sure_feature_adapter": _s(
        2e-3,
        "code history, adapters in the feature encoder",
        method="feature_adapter",
        feature_adapter__width=8,
        feature_adapter__published_first=True,
    ),
    # AAT: AST, LayerNorm and linear map on (CLS + distillation) / 2, every LayerNorm of the backbone frozen
    "aat_head": _a("head", method="linear"),
    "aat_full": _a("full fine-tuning", method="full"),
    "aat_partial": _a("partial: the upper half", method="partial", partial__last="half"),
    "aat_mlp": _a("AAT^M", method="adapter", adapter__ratio=0.25, adapter__location="ffn"),
    "aat_spatial": _a(
        "spatial", method="adapter", adapter__ratio=0.25, adapter__location="attention", adapter__placement="sequential"
    ),
    "aat_mlp_spatial": _a(
        "AAT^MS", method="adapter", adapter__ratio=0.25, adapter__location="both", adapter__placement="mixed"
    ),
    "aat_prompt": _a(
        "prompt, from the second layer on",
        method="prompt",
        prompt__length=12,
        prompt__insertion="overwrite",
        layers__first=1,
    ),
    "aat_mlp_spatial_prompt": _a(
        "mlp, spatial and prompt together (here in every layer)",
        method="adapter+prompt",
        adapter__ratio=0.25,
        adapter__location="both",
        adapter__placement="mixed",
        prompt__length=12,
        prompt__insertion="overwrite",
    ),
}
"""Name -> published setting."""


def preset(name: str) -> dict[str, Any]:
    """The dotted keys of a published setting, for `petl.attach` and `MethodConfig.from_flat`.

    Raises `UserError` for a name that is not in `PRESETS`.
    """
    if name not in PRESETS:
        raise UserError(f"preset '{name}' is not known{nearest(name, PRESETS)}; there are: {', '.join(PRESETS)}")
    return dict(PRESETS[name].options)
