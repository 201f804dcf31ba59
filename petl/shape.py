"""Sizes of a backbone, read from its `config.json` (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from petl.errors import UserError

AST_TYPE = "audio-spectrogram-transformer"


@dataclass(frozen=True)
class Conv:
    """One convolutional layer of a front end."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int = 0
    norm: str = "none"  # "layer" or "group": the normalisation behind it
    bias: bool = True


@dataclass(frozen=True)
class BackboneShape:
    """Sizes of a backbone. Defaults are those of AST-base.

    `pre_norm`: a LayerNorm stands in front of each sub-layer (behind it otherwise). The fields from `mel_bins` to
    `max_frames` describe spectrogram inputs; `convs` the convolutional front end of models that have one, and
    `samples` whether it reads a waveform. `spec_embed`: the backbone has a vector for masked frames, which trains
    only where latent SpecAugment runs (`masks_time`: it does when the backbone is in training mode). `key_bias`: the
    key projection has a bias; `qkv_bias`: it and those of queries and values have one.

    Parameters: `other` counts those outside of the transformer layers, the front-end convolutions and positions per
    token; `per_layer` those of a layer beyond attention, feed-forward and its two LayerNorms, and `first_layer` what
    the lowest layer has on top; `fixed` those that no method trains, per token of the sequence.
    """

    family: str = AST_TYPE
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    mel_bins: int = 128
    patch: int = 16
    frequency_stride: int = 10
    time_stride: int = 10
    max_frames: int = 1024
    pre_norm: bool = True
    samples: bool = False
    convs: tuple[Conv, ...] = ()
    spec_embed: bool = False
    masks_time: bool = False
    key_bias: bool = True
    qkv_bias: bool = True
    per_layer: int = 0
    first_layer: int = 0
    other: int = 0
    fixed: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> BackboneShape:
        """Read a transformers configuration.

        Raises `UnknownBackbone` for a family without a table of sites, `UserError` when a size is missing.
        """
        from petl.families import family_of

        return family_of(config.get("model_type")).shape(config)

    @property
    def attention_biases(self) -> int:
        """Scalars in the biases of the four projections of one layer."""
        return self.hidden * (1 + (2 if self.qkv_bias else 0) + (1 if self.qkv_bias and self.key_bias else 0))

    def layer_parameters(self, index: int = 1) -> int:
        """Parameters of transformer layer `index`: attention, feed-forward, two LayerNorms, and what else it has."""
        d, f = self.hidden, self.ffn
        own = self.per_layer + (self.first_layer if index == 0 else 0)
        return 4 * d * d + self.attention_biases + 2 * d * f + f + d + 4 * d + own

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

    def tokens(self, length: int | None = None) -> int:
        """Length of the token sequence for `length` input frames (or samples, where the model reads a waveform).

        An AST has a CLS and a distillation token in front of its patches. What is too short for the convolutions of
        another front end gives 0.
        """
        if self.family == AST_TYPE:
            f, t = self.grid(length)
            return 2 + f * t
        n = self.max_frames if length is None else length
        for conv in self.convs:
            n = (n + 2 * conv.padding - conv.kernel) // conv.stride + 1
        return max(0, n)
