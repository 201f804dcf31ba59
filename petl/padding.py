"""Keeping padding out of front ends that let it in: a clip gives the same, whatever it is batched with.

Transformers masks padding in the attention, but three of its front ends still see it:

* the first convolution of the base checkpoints is normalised over time (GroupNorm), padding included, so the
  statistics depend on the length of the batch; they were trained on crops without padding;
* Data2VecAudio adds positions by a stack of convolutions, and what the first makes of the padding reaches real
  frames through the next;
* the BatchNorm that some HuBERT checkpoints have in front of their positional convolution turns the zeros of the
  padding into other numbers.

With an attention mask, and only then, the statistics are taken over the real samples and the padding is zeroed
behind norm and convolutions. A clip without padding gives what the plain model gives (the statistics up to rounding).

B batch, S samples, C channels, T frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from petl.families import Family
from petl.layout import Tokens
from petl.methods.base import Undo
from petl.shape import BackboneShape


def guard_padding(backbone: nn.Module, family: Family, shape: BackboneShape, tokens: Tokens) -> list[Undo]:
    """Put the guards on that the backbone needs; returns what takes them off."""
    undo: list[Undo] = []
    if shape.samples and shape.convs[0].norm == "group" and isinstance(family.convs, str):
        norm = backbone.get_submodule(f"{family.convs}.0.layer_norm")
        guard = _MaskedGroupNorm(shape.convs[0].kernel, shape.convs[0].stride)
        undo.append(backbone.register_forward_pre_hook(_Lengths(guard), with_kwargs=True).remove)
        undo.append(norm.register_forward_hook(guard).remove)
    if family.position_convs is not None:
        for layer in backbone.get_submodule(family.position_convs).children():
            undo.append(layer.register_forward_hook(_ZeroPadding(tokens)).remove)
    if family.position_norm is not None:
        batch_norm = getattr(backbone.get_submodule(family.position_norm.rpartition(".")[0]), "batch_norm", None)
        if batch_norm is not None:
            undo.append(batch_norm.register_forward_hook(_ZeroPadding(tokens)).remove)
    return undo


class _Lengths:
    """Before the backbone: how many real samples each clip of the batch has."""

    def __init__(self, guard: _MaskedGroupNorm) -> None:
        self.guard = guard

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        mask_BS = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        self.guard.samples_B = None if mask_BS is None else mask_BS.sum(dim=1)


class _MaskedGroupNorm:
    """Recomputes a GroupNorm of one channel a group over the frames that come from real samples."""

    def __init__(self, kernel: int, stride: int) -> None:
        self.kernel, self.stride = kernel, stride
        self.samples_B: Tensor | None = None

    def __call__(self, host: nn.GroupNorm, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if self.samples_B is None:
            return None
        x_BCT = args[0].float() if args[0].dtype in (torch.float16, torch.bfloat16) else args[0]
        frames_B = torch.div(self.samples_B - self.kernel, self.stride, rounding_mode="floor") + 1
        real_B1T = (torch.arange(x_BCT.shape[2], device=x_BCT.device) < frames_B.clamp(min=1).unsqueeze(1)).unsqueeze(1)
        count_B11 = real_B1T.sum(dim=2, keepdim=True)
        mean_BC1 = (x_BCT * real_B1T).sum(dim=2, keepdim=True) / count_B11
        centred_BCT = (x_BCT - mean_BC1) * real_B1T
        variance_BC1 = centred_BCT.square().sum(dim=2, keepdim=True) / count_B11
        y_BCT = (x_BCT - mean_BC1) * torch.rsqrt(variance_BC1 + host.eps)
        return (y_BCT * host.weight.unsqueeze(1) + host.bias.unsqueeze(1)).to(output.dtype)


class _ZeroPadding:
    """Zeroes the padded frames of a convolution's output (B, C, T)."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def __call__(self, host: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        mask_BT = self.tokens.layout.mask_BT
        if mask_BT is None:
            return None
        return output.masked_fill(~mask_BT.unsqueeze(1), 0)
