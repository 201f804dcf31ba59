"""Heads: what they compute, how they start, how many parameters they have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from petl import AudioModel, attach
from petl.config import MethodConfig
from petl.counts import head_parameters
from petl.frontend import AstFrontEnd
from petl.pooling import pooled
from tests.petl.models import FRAMES, HIDDEN, LABELS, MELS, TINY_SHAPE, inputs, tiny_backbone, trained

HEADS: list[dict[str, Any]] = [
    {},
    {"head.kind": "norm_linear"},
    {"head.kind": "projector", "head.width": 12},
]


def _classifier(flat: dict[str, Any], seed: int = 0) -> AudioModel:
    adapted = attach(tiny_backbone(), {"method": "linear", **flat}, seed=0)
    return AudioModel(adapted, LABELS, AstFrontEnd(mel_bins=MELS, frames=FRAMES), seed=seed)


@pytest.mark.parametrize("pooling", ["mean", "stats", "cls"])
@pytest.mark.parametrize("flat", HEADS, ids=str)
def test_what_a_head_computes(flat: dict[str, Any], pooling: str) -> None:
    model = trained(_classifier({**flat, "pooling": pooling}))
    logits = model(inputs())
    x_BND = model.adapted(inputs()).last_hidden_state
    t = {name.removeprefix("head."): p for name, p in model.trainable().items() if name.startswith("head.")}
    layout = model.adapted.layout
    if flat.get("head.kind") == "projector":
        x_BND = functional.linear(x_BND, t["projector.weight"], t["projector.bias"])
        expected = functional.linear(pooled(x_BND, layout, pooling), t["classifier.weight"], t["classifier.bias"])
    elif flat.get("head.kind") == "norm_linear":
        x_BP = pooled(x_BND, layout, pooling)
        x_BP = functional.layer_norm(x_BP, x_BP.shape[1:], t["norm.weight"], t["norm.bias"])
        expected = functional.linear(x_BP, t["linear.weight"], t["linear.bias"])
    else:
        expected = functional.linear(pooled(x_BND, layout, pooling), t["weight"], t["bias"])
    assert torch.equal(logits, expected)
    counted = head_parameters(MethodConfig.from_flat({"method": "linear", **flat, "pooling": pooling}), TINY_SHAPE, 3)
    assert sum(p.numel() for p in t.values()) == counted


@pytest.mark.parametrize("flat", HEADS, ids=str)
def test_how_a_head_starts(flat: dict[str, Any]) -> None:
    adapted = attach(tiny_backbone(), {"method": "linear", **flat}, seed=0)
    front_end = AstFrontEnd(mel_bins=MELS, frames=FRAMES)
    before = torch.get_rng_state()
    one, two, other = (AudioModel(adapted, LABELS, front_end, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(before, torch.get_rng_state())
    std = 0.01 if flat.get("head.kind") == "norm_linear" else 0.02
    for (name, a), b, c in zip(
        one.head.named_parameters(), two.head.parameters(), other.head.parameters(), strict=True
    ):
        assert torch.equal(a, b)
        if a.ndim == 2:
            assert not torch.equal(a, c)
            assert float(a.detach().std()) == pytest.approx(std, rel=0.3), name
        else:
            assert set(a.tolist()) == ({1.0} if name == "norm.weight" else {0.0})


def test_a_head_follows_the_backbones_number_format() -> None:
    adapted = attach(tiny_backbone().double(), {"method": "linear", "head.kind": "norm_linear"}, seed=0)
    model = AudioModel(adapted, LABELS, AstFrontEnd(mel_bins=MELS, frames=FRAMES), seed=0)
    assert model(inputs().double()).dtype == torch.float64
    assert adapted.shape.hidden == HIDDEN
