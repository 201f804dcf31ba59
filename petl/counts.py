"""Trainable parameters of a configuration in closed form, so a space is checked without a model (torch-free).

Per layer and site, with hidden size d, width r, experts n, slots s (biases included): bottleneck 2dr + r + d;
LoRA r (in + out) per projection; Dense-MoA n (2dr + r + d) + dn + n; Soft-MoA n (2dr + r + d) + dns, and one
scale when it normalises; a LayerNorm 2d; the head dC + C.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from petl import plan
from petl.config import MethodConfig
from petl.errors import UserError
from petl.sites import AST


@dataclass(frozen=True)
class BackboneShape:
    """Sizes of a backbone, read from its `config.json`. Defaults are those of AST-base."""

    family: str = AST.name
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    mel_bins: int = 128
    patch: int = 16
    frequency_stride: int = 10
    time_stride: int = 10
    max_frames: int = 1024

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read a transformers configuration; `UserError` when it is not an AST or misses a size."""
        found = config.get("model_type")
        if found != AST.name:
            raise UserError(f"the backbone is of type '{found}', not an AST; supported: '{AST.name}'")
        sizes = {}
        for name, key, default in _CONFIG_KEYS:
            value = config.get(key, default)
            if isinstance(value, (list, tuple)) and len(set(value)) == 1:
                value = value[0]
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"the backbone's config.json has {key} = {value!r}; a whole number above 0 is needed")
            sizes[name] = value
        return cls(family=AST.name, **sizes)

    def grid(self, frames: int | None = None) -> tuple[int, int]:
        """Patches along frequency and along time for an input of `frames` frames (default: `max_frames`).

        Raises `UserError` when not even one patch fits.
        """
        frames = self.max_frames if frames is None else frames
        if frames < self.patch:
            raise UserError(f"{frames} frames are shorter than one patch of the backbone ({self.patch} frames)")
        if self.mel_bins < self.patch:
            raise UserError(f"{self.mel_bins} mel bins are fewer than one patch of the backbone spans ({self.patch})")
        return (
            (self.mel_bins - self.patch) // self.frequency_stride + 1,
            (frames - self.patch) // self.time_stride + 1,
        )

    def tokens(self, frames: int | None = None) -> int:
        """Length of the token sequence: CLS, distillation token, patches."""
        f, t = self.grid(frames)
        return 2 + f * t


_CONFIG_KEYS = (
    ("hidden", "hidden_size", 768),
    ("layers", "num_hidden_layers", 12),
    ("heads", "num_attention_heads", 12),
    ("ffn", "intermediate_size", 3072),
    ("mel_bins", "num_mel_bins", 128),
    ("patch", "patch_size", 16),
    ("frequency_stride", "frequency_stride", 10),
    ("time_stride", "time_stride", 10),
    ("max_frames", "max_length", 1024),
)


def backbone_parameters(shape: BackboneShape, frames: int | None = None) -> int:
    """Parameters of the frozen backbone itself (with query, key and value biases)."""
    d = shape.hidden
    embeddings = d * (shape.patch * shape.patch + 1) + 2 * d + d * shape.tokens(frames)
    layer = 4 * (d * d + d) + 2 * d * shape.ffn + shape.ffn + d + 4 * d
    return embeddings + shape.layers * layer + 2 * d


def trainable_parameters(method: MethodConfig, shape: BackboneShape, classes: int | None = None) -> int:
    """Number of trained scalars: method, unfrozen LayerNorms and, when `classes` is given, the linear head.

    Raises `ConfigError` for layers or widths that do not fit the backbone.
    """
    d = shape.hidden
    per_layer = sum(_PER_LAYER[name](method, shape) for name in method.methods if name in _PER_LAYER)
    per_layer += 2 * d * len(plan.norm_sites(method))
    total = per_layer * len(plan.adapted_layers(method, shape.layers))
    total += 2 * d if plan.final_norm(method) else 0
    total += d * classes + classes if classes is not None else 0
    return total


def _bottleneck(d: int, r: int) -> int:
    return 2 * d * r + r + d


def _adapter(method: MethodConfig, shape: BackboneShape) -> int:
    r = plan.adapter_width(method.adapter, shape.hidden)
    return len(plan.adapter_sites(method.adapter)) * _bottleneck(shape.hidden, r)


def _lora(method: MethodConfig, shape: BackboneShape) -> int:
    ends = dict.fromkeys("qkvo", 2 * shape.hidden) | dict.fromkeys(("fc1", "fc2"), shape.hidden + shape.ffn)
    r = plan.lora_rank(method.lora, shape.hidden)
    return sum(r * ends[target] for target in method.lora.target_names)


def _dense_moa(method: MethodConfig, shape: BackboneShape) -> int:
    d, n = shape.hidden, method.moa.experts
    r = plan.expert_width(method.moa, d)
    return len(plan.moa_sites(method.moa)) * (n * _bottleneck(d, r) + d * n + n)


def _soft_moa(method: MethodConfig, shape: BackboneShape) -> int:
    d, n, s = shape.hidden, method.moa.experts, method.moa.slots
    r = plan.expert_width(method.moa, d)
    scale = 0 if method.moa.normalize == "none" else 1
    return len(plan.moa_sites(method.moa)) * (n * _bottleneck(d, r) + d * n * s + scale)


_PER_LAYER = {"adapter": _adapter, "lora": _lora, "dense_moa": _dense_moa, "soft_moa": _soft_moa}
"""Base method -> parameters it adds to one adapted layer (the linear probe adds none)."""
