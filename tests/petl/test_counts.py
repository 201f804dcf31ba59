"""Parameter and token counts of AST-base against the published tables."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import ASTConfig, ASTModel

from petl import BackboneShape, MethodConfig, UserError, attach, trainable_parameters
from petl.counts import backbone_parameters

BASE = BackboneShape()

TABLE = [  # reduction, bottleneck Pfeiffer, Houlsby, LoRA q,v: 12 layers, with LayerNorms of the sites
    (16, 912_960, 1_825_920, 1_769_472),
    (32, 470_304, 940_608, 884_736),
    (48, 322_752, 645_504, 589_824),
    (64, 248_976, 497_952, 442_368),
    (96, 175_200, 350_400, 294_912),
    (128, 138_312, 276_624, 221_184),
    (192, 101_424, 202_848, 147_456),
]
SEVEN = {"moa.experts": 7, "moa.reduction": 128.0, "norms": "site"}
GOLDEN: list[tuple[dict[str, Any], int]] = [
    *(({"method": "adapter", "adapter.reduction": rr, "norms": "site"}, pf) for rr, pf, _, _ in TABLE),
    *(
        ({"method": "adapter", "adapter.reduction": rr, "adapter.location": "both", "norms": "site"}, ho)
        for rr, _, ho, _ in TABLE
    ),
    *(({"method": "lora", "lora.reduction": rr, "norms": "none"}, lora) for rr, _, _, lora in TABLE),
    ({"method": "dense_moa", **SEVEN}, 922_188),
    ({"method": "soft_moa", **SEVEN, "moa.slots": 1}, 922_104),
    ({"method": "soft_moa", **SEVEN, "moa.normalize": "published"}, 922_104 + 12),
    ({"method": "linear"}, 1_536),
]


@pytest.mark.parametrize(("flat", "expected"), GOLDEN, ids=str)
def test_published_counts(flat: dict[str, Any], expected: int) -> None:
    assert trainable_parameters(MethodConfig.from_flat(flat), BASE) == expected


def test_the_same_on_the_model_itself() -> None:
    with torch.device("meta"):
        backbone = ASTModel(ASTConfig())
    for flat, expected in GOLDEN:
        adapted = attach(backbone, flat, seed=0)
        assert sum(p.numel() for p in adapted.trainable().values()) == expected
        adapted.detach()


@pytest.mark.parametrize(("classes", "expected"), [(10, 9_226), (50, 39_986), (31, 25_375)])
def test_linear_probe_with_head(classes: int, expected: int) -> None:
    assert trainable_parameters(MethodConfig(), BASE, classes) == expected == 1_536 + 769 * classes


def test_final_norm_and_head_come_on_top() -> None:
    method = MethodConfig.from_flat({"method": "soft_moa", "moa.experts": 7, "moa.reduction": 128.0})
    assert trainable_parameters(method, BASE, 50) == 922_104 + 1_536 + 769 * 50


@pytest.mark.parametrize(
    ("frames", "tokens"),
    [(100, 110), (400, 470), (500, 590), (512, 602), (800, 950), (1024, 1214), (3000, 3590)],
)
def test_token_counts(frames: int, tokens: int) -> None:
    assert BASE.tokens(frames) == tokens
    assert ASTModel(ASTConfig(max_length=frames, num_hidden_layers=1)).embeddings.position_embeddings.shape[1] == tokens


@pytest.mark.parametrize(("frames", "expected"), [(400, 85_615_872), (1024, 85_254_912 + 768 * 1214)])
def test_the_backbone_itself(frames: int, expected: int) -> None:
    assert backbone_parameters(BASE, frames) == expected
    with torch.device("meta"):
        assert sum(p.numel() for p in ASTModel(ASTConfig(max_length=frames)).parameters()) == expected


def test_shape_from_a_configuration() -> None:
    assert BackboneShape.from_config(ASTConfig().to_dict()) == BASE
    assert BackboneShape.from_config({"model_type": BASE.family}) == BASE
    small = BackboneShape.from_config(ASTConfig(hidden_size=96, max_length=128, patch_size=[16, 16]).to_dict())
    assert (small.hidden, small.max_frames, small.patch) == (96, 128, 16)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "wav2vec2"}, "of type 'wav2vec2', not an AST"),
        ({}, "of type 'None'"),
        ({"model_type": BASE.family, "hidden_size": "768"}, "hidden_size = '768'"),
        ({"model_type": BASE.family, "num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ({"model_type": BASE.family, "patch_size": [16, 8]}, "patch_size"),
    ],
)
def test_configurations_that_are_no_ast(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        BackboneShape.from_config(config)


def test_too_few_frames() -> None:
    with pytest.raises(UserError, match="10 frames are shorter than one patch"):
        BASE.tokens(10)
    with pytest.raises(UserError, match="8 mel bins are fewer"):
        BackboneShape(mel_bins=8).tokens()
