"""Adapters inside a convolutional front end (SURE, arXiv 2303.03267), narrow convolutions of a few channels.

Where the convolutions have no GroupNorm over time (wav2vec2-large, HuBERT-large, …, and Whisper), one stands beside
each convolution: conv(x) + Up(GELU(Down(x))), before its normalisation and activation. Down has the kernel, stride,
padding and (if the layer has one) bias of the convolution itself, Up is 1 × 1. In front ends that begin with a
GroupNorm (wav2vec2-base, …) one follows each layer: y + Up(GELU(Down(y))) with two 1 × 1 convolutions on the
activations.

Up starts at zero, so an adapted model starts as the frozen one; the published code leaves torch's own initial values.
Convolutions are valid (no padding) on waveforms: frames that are made of real samples see nothing else.

B batch, C channels, T steps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from petl.config import MethodConfig
from petl.methods.base import AfterModule, Attachment, SiteMap, kaiming_uniform
from petl.shape import Conv


class FeatureAdapter(nn.Module):
    """x (B, inputs, T) -> Up(GELU(Down(x))) (B, outputs, T'), zero at the start.

    `down` is drawn as torch draws weights of convolutions, its bias zero.
    """

    def __init__(self, conv: Conv, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = nn.utils.skip_init(
            nn.Conv1d, conv.inputs, width, conv.kernel, stride=conv.stride, padding=conv.padding, bias=conv.bias
        )
        self.up = nn.utils.skip_init(nn.Conv1d, width, conv.outputs, 1)
        with torch.no_grad():
            shape = (width, conv.inputs, conv.kernel)
            self.down.weight.copy_(kaiming_uniform(shape, conv.inputs * conv.kernel, generator))
            if self.down.bias is not None:
                self.down.bias.zero_()
            self.up.weight.zero_()
            self.up.bias.zero_()

    def forward(self, x_BCT: Tensor) -> Tensor:
        return self.up(functional.gelu(self.down(x_BCT)))


class _Beside:
    """conv(x) + A(x)."""

    def __init__(self, adapter: FeatureAdapter) -> None:
        self.adapter = adapter

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        return output + self.adapter(args[0])


class _Behind:
    """y + A(y)."""

    def __init__(self, adapter: FeatureAdapter) -> None:
        self.adapter = adapter

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        return output + self.adapter(output)


def build(config: MethodConfig, sites: SiteMap, generator: torch.Generator) -> list[Attachment]:
    """One adapter per convolution of the front end, named `adapter`."""
    options, convs = config.feature_adapter, sites.shape.convs
    behind = any(conv.norm == "group" for conv in convs)
    attachments: list[Attachment] = []
    for index, conv in enumerate(convs):
        width = conv.outputs if index == 0 and options.published_first else options.width
        layer, own = _paths(sites.family.convs, index)
        sites.module(own)
        if behind:
            pointwise = Conv(conv.outputs, conv.outputs, kernel=1, stride=1)
            adapter = FeatureAdapter(pointwise, width, generator)
            attachments.append(AfterModule(layer, "adapter", adapter, _Behind(adapter)))
        else:
            adapter = FeatureAdapter(conv, width, generator)
            attachments.append(AfterModule(own, "adapter", adapter, _Beside(adapter)))
    return attachments


def _paths(convs: str | tuple[str, ...], index: int) -> tuple[str, str]:
    """Paths of a convolutional layer and of the convolution in it; one and the same where they stand alone."""
    if isinstance(convs, str):
        return f"{convs}.{index}", f"{convs}.{index}.conv"
    return convs[index], convs[index]
