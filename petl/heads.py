"""Task heads: what turns the tokens of a backbone into logits, around the pooling.

A head has two parts: `project` runs on every token before pooling, the call itself on the pooled vector.

B batch, N tokens, D model width, P width of what is pooled, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petl.config import HeadOptions

STD = 0.02
NORM_STD = 0.01


class LinearHead(nn.Linear):
    """W x + b, W drawn from N(0, 0.02²), b zero."""

    def __init__(self, inputs: int, classes: int, generator: torch.Generator) -> None:
        super().__init__(inputs, classes, device="meta")
        self.to_empty(device="cpu")
        _normal(self, generator)

    def project(self, x_BND: Tensor) -> Tensor:
        return x_BND


class NormLinearHead(nn.Module):
    """W LayerNorm(x) + b, as AAT (arXiv 2401.10544): W from N(0, 0.01²) cut at ±2, b zero."""

    def __init__(self, inputs: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.linear = nn.utils.skip_init(nn.Linear, inputs, classes)
        with torch.no_grad():
            nn.init.trunc_normal_(self.linear.weight, std=NORM_STD, generator=generator)
            self.linear.bias.zero_()

    def project(self, x_BND: Tensor) -> Tensor:
        return x_BND

    def forward(self, x_BP: Tensor) -> Tensor:
        return self.linear(self.norm(x_BP))


class ProjectorHead(nn.Module):
    """V pool(W x + a) + b, no activation, as SURE (arXiv 2303.03267) and transformers' sequence classifiers.

    W (width, D) and V (C, width; 2 width where pooling gives mean and deviation) from N(0, 0.02²), a and b zero.
    """

    def __init__(self, hidden: int, width: int, pooled_vectors: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.projector = nn.utils.skip_init(nn.Linear, hidden, width)
        self.classifier = nn.utils.skip_init(nn.Linear, pooled_vectors * width, classes)
        _normal(self.projector, generator)
        _normal(self.classifier, generator)

    def project(self, x_BND: Tensor) -> Tensor:
        return self.projector(x_BND)

    def forward(self, x_BP: Tensor) -> Tensor:
        return self.classifier(x_BP)


Head = LinearHead | NormLinearHead | ProjectorHead


def build_head(options: HeadOptions, hidden: int, pooling: str, classes: int, generator: torch.Generator) -> Head:
    """The head of `head.kind` on tokens of width `hidden`, on the CPU in float32."""
    vectors = 2 if pooling == "stats" else 1
    if options.kind == "projector":
        return ProjectorHead(hidden, options.width, vectors, classes, generator)
    kind = NormLinearHead if options.kind == "norm_linear" else LinearHead
    return kind(vectors * hidden, classes, generator)


def _normal(linear: nn.Linear, generator: torch.Generator) -> None:
    with torch.no_grad():
        linear.weight.normal_(0, STD, generator=generator)
        linear.bias.zero_()
