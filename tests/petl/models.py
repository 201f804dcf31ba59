"""Small backbones and the table of cases that every method is put through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from transformers import ASTConfig, ASTForAudioClassification, ASTModel

from petl import Adapted, attach
from petl.config import MethodConfig
from petl.counts import BackboneShape

HIDDEN, LAYERS, FFN, FRAMES, MELS = 32, 3, 48, 64, 32
TINY: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": FFN,
    "max_length": FRAMES,
    "num_mel_bins": MELS,
}
TINY_SHAPE = BackboneShape(hidden=HIDDEN, layers=LAYERS, heads=4, ffn=FFN, mel_bins=MELS, max_frames=FRAMES)
LABELS = ("dog", "rain", "sea")


M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Case:
    """One configuration; `identity`: whether it must equal the frozen backbone before training."""

    flat: dict[str, Any]
    identity: bool = True

    @property
    def method(self) -> MethodConfig:
        return MethodConfig.from_flat(self.flat)

    def __str__(self) -> str:
        short = (f"{k.rpartition('.')[2]}={v}" for k, v in self.flat.items() if k != "method")
        return "-".join([self.flat["method"], *short])


def _case(method: str, identity: bool = True, **options: Any) -> Case:
    flat = {k.replace("__", "."): v for k, v in options.items()}
    return Case({"method": method, **flat}, identity)


CASES: list[Case] = [
    _case("linear"),
    _case("linear", pooling="cls"),
    _case("adapter", adapter__width=4),
    _case("adapter", adapter__reduction=8, adapter__activation="relu", norms="none"),
    _case("adapter", adapter__width=4, adapter__location="attention"),
    _case("adapter", adapter__width=4, adapter__location="both", layers__first=1),
    _case("adapter", adapter__width=4, adapter__location="both", adapter__placement="sequential"),
    _case("adapter", adapter__width=4, adapter__location="layer", adapter__placement="sequential"),
    _case("adapter", adapter__width=4, adapter__location="layer", norms="final"),
    _case("adapter", identity=False, adapter__width=4, adapter__placement="sequential", adapter__residual=False),
    _case("adapter", identity=False, adapter__width=4, adapter__residual=True),
    _case("lora", lora__rank=3),
    _case("lora", lora__reduction=8, lora__scaling="alpha/RR", lora__targets="q,k,v,o"),
    _case("lora", lora__rank=2, lora__targets="fc1,fc2", norms="site+final", layers__last=1),
    _case("lora", lora__rank=2, lora__targets="q,k,v,o,fc1,fc2", norms="none", lora__alpha=1),
    _case("dense_moa", moa__experts=3, moa__reduction=8),
    _case("dense_moa", moa__experts=1, moa__reduction=16, moa__location="ffn"),
    _case("dense_moa", moa__experts=2, moa__reduction=8, moa__location="both", pooling="cls+dist"),
    _case("dense_moa", moa__experts=2, moa__reduction=8, moa__legacy_double_add=True),
    _case("soft_moa", moa__experts=3, moa__reduction=8),
    _case("soft_moa", moa__experts=2, moa__slots=2, moa__reduction=8, moa__normalize="soft_moe"),
    _case("soft_moa", moa__experts=2, moa__slots=2, moa__reduction=8, moa__normalize="published"),
    _case("soft_moa", moa__experts=4, moa__reduction=16, moa__location="both", layers__first=1, layers__last=1),
    _case("soft_moa", moa__experts=2, moa__reduction=8, moa__location="ffn", pooling="patches"),
    _case("soft_moa", moa__experts=2, moa__reduction=8, moa__legacy_double_add=True),
    _case("adapter+lora", adapter__width=4, lora__rank=2),
    _case("lora+soft_moa", lora__rank=2, moa__experts=2, moa__reduction=8),
    _case("adapter+lora+dense_moa", adapter__width=4, lora__rank=2, moa__experts=2, moa__reduction=8),
]


def tiny_backbone(seed: int = 0, **changed: Any) -> ASTModel:
    """A small AST whose every tensor, LayerNorms and positions included, is drawn from `seed`."""
    return drawn(ASTModel(ASTConfig(**{**TINY, **changed})), seed)


def tiny_tagger(seed: int = 0) -> ASTForAudioClassification:
    """The same with transformers' classification head."""
    return drawn(ASTForAudioClassification(ASTConfig(**TINY)), seed)


def drawn(model: nn.Module, seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            value = torch.randn(p.shape, generator=generator) * 0.15
            p.copy_(1 + value if "layernorm" in name and name.endswith("weight") else value)
    return model.eval()


def tiny_checkpoint(directory: Path, seed: int = 0) -> Path:
    """A checkpoint directory of `tiny_backbone(seed)`."""
    tiny_backbone(seed).save_pretrained(directory)
    return directory


def inputs(batch: int = 2, frames: int = FRAMES, seed: int = 1) -> Tensor:
    return torch.randn(batch, frames, MELS, generator=torch.Generator().manual_seed(seed))


def trained(model: M, seed: int = 2) -> M:
    """Move every trainable tensor away from its initial value, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in cast(Any, model).trainable().values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def adapted_tiny(case: Case, seed: int = 3) -> Adapted:
    return attach(tiny_backbone(), case.flat, seed=seed)


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
