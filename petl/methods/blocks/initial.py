"""Initial values of the published blocks, drawn from a generator that is passed in."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from petl.methods.base import kaiming_uniform


def normal(shape: tuple[int, ...], deviation: float, generator: torch.Generator) -> Tensor:
    """N(0, deviation)."""
    return torch.empty(shape).normal_(0, deviation, generator=generator)


def kaiming_normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """N(0, √(2 / fan_in)) for the weight (outputs, inputs per group, *kernel) of a convolution."""
    return normal(shape, math.sqrt(2 / math.prod(shape[1:])), generator)


def xavier_uniform(shape: tuple[int, ...], fans: int, generator: torch.Generator) -> Tensor:
    """U(-b, b) with b = √(6 / fans), `fans` being inputs plus outputs, each times the area of the kernel."""
    bound = math.sqrt(6 / fans)
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def linear(weight_OI: Tensor, bias_O: Tensor | None) -> nn.Linear:
    """A linear map that starts with these values."""
    outputs, inputs = weight_OI.shape
    module = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias_O is not None)
    with torch.no_grad():
        module.weight.copy_(weight_OI)
        if bias_O is not None:
            module.bias.copy_(bias_O)
    return module


def torch_linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear map drawn as torch draws one: weight and bias from U(-1/√inputs, 1/√inputs)."""
    weight = kaiming_uniform((outputs, inputs), inputs, generator)
    return linear(weight, kaiming_uniform((outputs,), inputs, generator))


def zeroed(module: nn.Module) -> None:
    """Set every parameter of a module to zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
