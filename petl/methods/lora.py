"""LoRA: W x + b + (alpha / r) B A dropout(x), A drawn, B zero at the start (arXiv 2106.09685).

Tensors are named as peft names them (`lora_A.weight` (R, in), `lora_B.weight` (out, R)). The published code
scales by alpha / RR instead of alpha / r; `lora.scaling: alpha/RR` does the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from petl import plan
from petl.config import MethodConfig
from petl.methods.base import Addition, SiteMap, kaiming_uniform


class Lora(nn.Module):
    """x (…, in) -> scaling · B A dropout(x) (…, out)."""

    def __init__(
        self, inputs: int, outputs: int, rank: int, alpha: float, dropout: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.lora_A = nn.utils.skip_init(nn.Linear, inputs, rank, bias=False)
        self.lora_B = nn.utils.skip_init(nn.Linear, rank, outputs, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.scaling = alpha / rank
        with torch.no_grad():
            self.lora_A.weight.copy_(kaiming_uniform((rank, inputs), inputs, generator))
            self.lora_B.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.lora_B(self.lora_A(self.dropout(x))) * self.scaling

    def delta(self) -> Tensor:
        """The weight (out, in) this update amounts to outside of training."""
        return (self.lora_B.weight @ self.lora_A.weight) * self.scaling


class AddUpdate:
    """Adds the low-rank update to a linear map's output."""

    def __init__(self, update: Lora) -> None:
        self.update = update

    def __call__(self, host: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + self.update(args[0])


def build(config: MethodConfig, sites: SiteMap, generator: torch.Generator) -> list[Addition]:
    """One update per adapted layer and target projection."""
    options = config.lora
    rank = plan.lora_rank(options, sites.hidden)
    alpha = plan.lora_alpha(options, sites.hidden)
    additions = []
    for layer in sites.adapted(config):
        for target in options.target_names:
            path = sites.family.path(layer, target)
            host = sites.linear(path)
            update = Lora(host.in_features, host.out_features, rank, alpha, options.dropout, generator)
            additions.append(Addition(path, "", update, AddUpdate(update)))
    return additions
