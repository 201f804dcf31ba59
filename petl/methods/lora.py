"""LoRA: W x + b + (alpha / r) B A dropout(x), A drawn, B zero at the start (arXiv 2106.09685).

Tensors are named as peft names them (`lora_A.weight` (R, in), `lora_B.weight` (out, R)). The published code
scales by alpha / RR instead of alpha / r; `lora.scaling: alpha/RR` does the same. With `lora.shared` all targets of
a layer that have equal sizes use one pair, which carries the name of the first of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from petl import plan
from petl.attention import projection_calls
from petl.config import MethodConfig
from petl.methods.base import AfterModule, Attachment, SiteMap, kaiming_uniform


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
    """Adds the low-rank update to a linear map's output, or, merged, has it in the map's weight."""

    def __init__(self, update: Lora) -> None:
        self.update = update
        self.original: nn.Parameter | None = None  # the map's own weight, while the update is merged

    def __call__(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        return output if self.original is not None else output + self.update(args[0])

    def merge(self, host: nn.Linear) -> None:
        """Put a weight W + (alpha / r) B A in the place of the map's own, which is kept as it is."""
        if self.original is None:
            original = host.weight
            assert isinstance(original, nn.Parameter)
            self.original = original
            with torch.no_grad():
                merged = original + self.update.delta().to(original.dtype)
            host.weight = nn.Parameter(merged, requires_grad=False)

    def unmerge(self, host: nn.Linear) -> None:
        """Give the map its own weight back: the very same tensor."""
        if self.original is not None:
            if self.original.device != host.weight.device or self.original.dtype != host.weight.dtype:
                self.original.data = self.original.data.to(host.weight.device, host.weight.dtype)
            host.weight, self.original = self.original, None


def build(config: MethodConfig, sites: SiteMap, generator: torch.Generator) -> list[Attachment]:
    """One update per adapted layer and target projection."""
    options = config.lora
    rank = plan.lora_rank(options, sites.hidden)
    alpha = plan.lora_alpha(options, sites.hidden)
    attachments: list[Attachment] = []
    for layer in sites.adapted(config):
        if not {"q", "k", "v", "o"}.isdisjoint(options.target_names):
            attachments += projection_calls(sites, layer)
        for group in plan.lora_groups(options, sites.shape):
            host = sites.linear(sites.family.projection(layer, group[0]))
            update = Lora(host.in_features, host.out_features, rank, alpha, options.dropout, generator)
            for target in group:
                path = sites.family.projection(layer, target)
                sites.linear(path)
                module = update if target == group[0] else None
                attachments.append(AfterModule(path, "", module, AddUpdate(update)))
    return attachments
