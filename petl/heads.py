"""Task heads: what turns the tokens of a backbone into logits, around the pooling.

A head has two parts: `project` runs on every token before pooling, the call itself on the pooled vector (or, for
sequences, on every token). Heads that tell speakers apart end in a `Cosine` instead of a linear map.

B batch, N tokens, D model width, P width of what is pooled, C numbers of the head (classes, say).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petl.config import HeadOptions
from petl.outputs import Output

STD = 0.02
NORM_STD = 0.01


class Cosine(nn.Module):
    """Cosines between an embedding and a direction of each class while training; the embedding itself, of length 1,
    otherwise: whoever speaks later is none of the classes.

    W (C, E) from N(0, 0.02²), without bias (Wang et al. 2018, arXiv 1801.05599, section 2.2).
    """

    def __init__(self, inputs: int, classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, inputs).normal_(0, STD, generator=generator))

    def forward(self, x_BE: Tensor) -> Tensor:
        """(B, E) -> (B, C) in training mode, (B, E) in evaluation mode."""
        unit_BE = nn.functional.normalize(x_BE.float(), dim=-1)
        if not self.training:
            return unit_BE
        # bfloat16 tells cosines near 1 apart by 0.004, which a scale of 30 makes a tenth of a nat.
        with torch.autocast(x_BE.device.type, enabled=False):
            return unit_BE @ nn.functional.normalize(self.weight.float(), dim=-1).T


class CosineHead(Cosine):
    """`Cosine` on the pooled vector itself."""

    def project(self, x_BND: Tensor) -> Tensor:
        return x_BND


class LinearHead(nn.Linear):
    """W x + b, W drawn from N(0, 0.02²), b zero."""

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__(inputs, outputs, device="meta")
        self.to_empty(device="cpu")
        _normal(self, generator)

    def project(self, x_BND: Tensor) -> Tensor:
        return x_BND


class NormLinearHead(nn.Module):
    """W LayerNorm(x) + b, as AAT (arXiv 2401.10544): W from N(0, 0.01²) cut at ±2, b zero."""

    def __init__(self, inputs: int, output: Output, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.linear: nn.Module
        if output.embeds:
            self.linear = Cosine(inputs, output.size, generator)
            return
        linear = nn.utils.skip_init(nn.Linear, inputs, output.size)
        with torch.no_grad():
            nn.init.trunc_normal_(linear.weight, std=NORM_STD, generator=generator)
            linear.bias.zero_()
        self.linear = linear

    def project(self, x_BND: Tensor) -> Tensor:
        return x_BND

    def forward(self, x_BP: Tensor) -> Tensor:
        return self.linear(self.norm(x_BP))


class ProjectorHead(nn.Module):
    """V pool(W x + a) + b, no activation, as SURE (arXiv 2303.03267) and transformers' sequence classifiers.

    W (width, D) and V (C, width; 2 width where pooling gives mean and deviation) from N(0, 0.02²), a and b zero.
    """

    def __init__(
        self, hidden: int, width: int, pooled_vectors: int, output: Output, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.projector = nn.utils.skip_init(nn.Linear, hidden, width)
        _normal(self.projector, generator)
        self.classifier: nn.Module
        if output.embeds:
            self.classifier = Cosine(pooled_vectors * width, output.size, generator)
            return
        linear = nn.utils.skip_init(nn.Linear, pooled_vectors * width, output.size)
        _normal(linear, generator)
        self.classifier = linear

    def project(self, x_BND: Tensor) -> Tensor:
        return self.projector(x_BND)

    def forward(self, x_BP: Tensor) -> Tensor:
        return self.classifier(x_BP)


Head = LinearHead | CosineHead | NormLinearHead | ProjectorHead


def build_head(options: HeadOptions, hidden: int, pooling: str, output: Output, generator: torch.Generator) -> Head:
    """The head of `head.kind` on tokens of width `hidden`, on the CPU in float32."""
    vectors = 2 if pooling == "stats" and not output.sequence else 1
    if options.kind == "projector":
        return ProjectorHead(hidden, options.width, vectors, output, generator)
    if options.kind == "norm_linear":
        return NormLinearHead(vectors * hidden, output, generator)
    if output.embeds:
        return CosineHead(vectors * hidden, output.size, generator)
    return LinearHead(vectors * hidden, output.size, generator)


def _normal(linear: nn.Linear, generator: torch.Generator) -> None:
    with torch.no_grad():
        linear.weight.normal_(0, STD, generator=generator)
        linear.bias.zero_()
