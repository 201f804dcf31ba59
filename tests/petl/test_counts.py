"""Parameter and token counts against the published tables and logs, by formula and on the models themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import ASTConfig, ASTModel, Wav2Vec2Config, Wav2Vec2Model

from petl import BackboneShape, MethodConfig, UserError, attach, trainable_parameters
from petl.counts import backbone_parameters, head_parameters

BASE = BackboneShape()
WAV2VEC2_CONFIG = Wav2Vec2Config()
XLSR_CONFIG = Wav2Vec2Config(
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    feat_extract_norm="layer",
    conv_bias=True,
    do_stable_layer_norm=True,
    mask_time_prob=0.05,
)
WAV2VEC2, XLSR = (BackboneShape.from_config(c.to_dict()) for c in (WAV2VEC2_CONFIG, XLSR_CONFIG))

Row = tuple[dict[str, Any], int]

SITE: dict[str, Any] = {"method": "adapter", "norms": "site"}
CONFORMER: dict[str, Any] = {**SITE, "adapter.block": "conformer"}
CONVPASS: dict[str, Any] = {**SITE, "adapter.block": "convpass"}
BOTH: dict[str, Any] = {"adapter.location": "both"}
TABLE = [
    # reduction, bottleneck Pfeiffer, Houlsby, conformer (kernel 31) Pfeiffer, Houlsby, kernel 8, convpass, LoRA q,v:
    # 12 layers, with the LayerNorms of the sites
    (16, 912_960, 1_825_920, 1_393_920, 2_787_840, 1_380_672, 996_480, 1_769_472),
    (32, 470_304, 940_608, 720_000, 1_440_000, 713_376, 491_328, 884_736),
    (48, 322_752, 645_504, 495_360, 990_720, 490_944, 332_160, 589_824),
    (64, 248_976, 497_952, 383_040, 766_080, 379_728, 254_304, 442_368),
    (96, 175_200, 350_400, 270_720, 541_440, 268_512, 177_600, 294_912),
    (128, 138_312, 276_624, 214_560, 429_120, 212_904, 139_680, 221_184),
    (192, 101_424, 202_848, 158_400, 316_800, 157_296, 102_048, 147_456),
]


def _table() -> list[Row]:
    rows: list[Row] = []
    for rr, pfeiffer, houlsby, conformer, conformers, short, convpass, lora in TABLE:
        size = {"adapter.reduction": rr}
        rows += [
            ({**SITE, **size}, pfeiffer),
            ({**SITE, **size, **BOTH}, houlsby),
            ({**CONFORMER, **size}, conformer),
            ({**CONFORMER, **size, **BOTH}, conformers),
            ({**CONFORMER, **size, "adapter.kernel": 8}, short),
            ({**CONVPASS, **size}, convpass),
            ({"method": "lora", "lora.reduction": rr, "norms": "none"}, lora),
        ]
    return rows


SEVEN: dict[str, Any] = {"moa.experts": 7, "moa.reduction": 128, "norms": "site"}
TWO: dict[str, Any] = {"moa.experts": 2, "moa.slots": 2, "moa.expert": "convpass", "moa.location": "both"}
PETL_AST: list[Row] = [
    ({"method": "linear"}, 1_536),
    ({"method": "bitfit"}, 102_144),
    ({"method": "prompt", "prompt.length": 300, "prompt.deep": False, "norms": "none"}, 230_400),
    ({"method": "prompt", "prompt.length": 25, "norms": "none"}, 230_400),
    ({"method": "prefix", "prefix.length": 24, "prefix.split": True, "norms": "none"}, 221_184),
    ({"method": "dense_moa", **SEVEN}, 922_188),
    ({"method": "soft_moa", **SEVEN, "moa.slots": 1}, 922_104),
    ({"method": "soft_moa", **SEVEN, "moa.normalize": "published"}, 922_104 + 12),
    ({"method": "soft_moa", **TWO, "moa.reduction": 128, "moa.normalize": "published", "norms": "site"}, 595_608),
]
"""arXiv 2312.03694 and 2402.00828: no final LayerNorm (but for the first two) and no head."""

QUARTER: dict[str, Any] = {"method": "adapter", "adapter.ratio": 0.25, "norms": "none"}
AAT: list[Row] = [
    (QUARTER, 3_550_464),
    ({**QUARTER, "adapter.location": "both", "adapter.placement": "mixed"}, 7_100_928),
    ({"method": "partial"}, 6 * 7_087_872),
    ({"method": "prompt", "prompt.length": 12, "prompt.insertion": "overwrite", "norms": "none"}, 110_592),
]
"""arXiv 2401.10544, no head. Its prompts train 11 layers, and it counts an unused set as large as a twelfth."""

LAYER: dict[str, Any] = {"method": "adapter", "adapter.location": "layer", "adapter.placement": "sequential"}
SURE: dict[str, Row] = {
    "conv": ({**LAYER, "adapter.block": "conv"}, 3_403_776),
    "bottleneck": ({**LAYER, "adapter.width": 512, "adapter.activation": "relu"}, 25_202_688),
    "lora": ({"method": "lora", "lora.rank": 8, "lora.alpha": 1, "lora.targets": "q,k,v,o,fc1,fc2"}, 3_538_944),
    "prefix": ({"method": "prefix", "prefix.length": 30, "prefix.table": "embedding"}, 1_474_560),
}
"""arXiv 2303.03267 on XLSR, no head."""


@pytest.mark.parametrize(("flat", "expected"), [*_table(), *PETL_AST, *AAT], ids=str)
def test_published_counts_on_ast(flat: dict[str, Any], expected: int) -> None:
    assert trainable_parameters(MethodConfig.from_flat(flat), BASE) == expected


def test_the_same_on_the_model_itself() -> None:
    with torch.device("meta"):
        backbone = ASTModel(ASTConfig())
    for flat, expected in [*_table()[::3], *PETL_AST, *AAT]:
        adapted = attach(backbone, flat, seed=0)
        assert sum(p.numel() for p in adapted.trainable().values()) == expected, flat
        adapted.detach()


@pytest.mark.parametrize("name", SURE)
def test_published_counts_on_xlsr(name: str) -> None:
    flat, expected = SURE[name]
    assert trainable_parameters(MethodConfig.from_flat(flat), XLSR) == expected
    with torch.device("meta"):
        backbone = Wav2Vec2Model(XLSR_CONFIG)
    assert sum(p.numel() for p in attach(backbone, flat, seed=0).trainable().values()) == expected


@pytest.mark.parametrize(
    ("block", "expected"),
    [  # of one layer and site, d = 1024
        ("tiny_attention", 2 * 1024 + 3 * 1024 + 3 + 8 + 2 * 1024),
        ("tiny_external_attention", 2 * 1024 + 16 * 1024),
    ],
)
def test_small_blocks(block: str, expected: int) -> None:
    flat = {**LAYER, "adapter.block": block, "layers.first": 3, "layers.last": 3}
    assert trainable_parameters(MethodConfig.from_flat(flat), XLSR) == expected


PROJECTOR = {"head.kind": "projector", "head.width": 256}
LOGGED = [
    # data set, classes, ConvAdapter, bottleneck, LoRA, prefix: SURE's own logs, with the head
    ("SER ESD", 5, 3_667_461, 25_466_373, 3_802_629, 1_738_245),
    ("SER MELD", 7, 3_667_975, 25_466_887, 3_803_143, 1_738_759),
    ("SR ESD", 10, 3_668_746, 25_467_658, 3_803_914, 1_739_530),
    ("KS", 11, 3_669_003, 25_467_915, 3_804_171, 1_739_787),
    ("SR VCTK", 107, 3_693_675, 25_492_587, 3_828_843, 1_764_459),
    ("IC", 24, 3_672_344, 25_471_256, 3_807_512, 1_743_128),
    ("ASR", 30, 3_434_526, 25_233_438, 3_569_694, 1_505_310),
    ("PR", 74, 3_479_626, 25_278_538, 3_614_794, 1_550_410),
    ("SF", 143, 3_550_351, 25_349_263, 3_685_519, 1_621_135),
]


@pytest.mark.parametrize(("task", "classes", "conv", "bottleneck", "lora", "prefix"), LOGGED)
def test_sure_with_its_heads(task: str, classes: int, conv: int, bottleneck: int, lora: int, prefix: int) -> None:
    """Two linear maps for clips; one on every frame, of the size of a linear head, where a sequence is transcribed."""
    head = {} if task in ("ASR", "PR", "SF") else PROJECTOR
    for name, expected in (("conv", conv), ("bottleneck", bottleneck), ("lora", lora), ("prefix", prefix)):
        method = MethodConfig.from_flat({**SURE[name][0], **head})
        assert trainable_parameters(method, XLSR, classes) == expected
        assert head_parameters(method, XLSR, classes) == (262_400 + 257 * classes if head else 1025 * classes)


@pytest.mark.parametrize(("reduction", "expected"), [(2, 3_668_746), (4, 3_638_026), (8, 3_622_666), (16, 3_614_986)])
def test_sure_widths_of_the_conv_adapter(reduction: int, expected: int) -> None:
    flat = {**SURE["conv"][0], "adapter.reduction": reduction, **PROJECTOR}
    assert trainable_parameters(MethodConfig.from_flat(flat), XLSR, 10) == expected


@pytest.mark.parametrize(("classes", "expected"), [(30, 311_259_294), (143, 311_375_119)])
def test_sure_full_fine_tuning(classes: int, expected: int) -> None:
    """Frozen convolutions; the vector of masked frames trains, as latent SpecAugment runs."""
    flat = {"method": "full", "full.feature_encoder": False, "backbone_mode": "train"}
    method = MethodConfig.from_flat(flat)
    assert trainable_parameters(method, XLSR, classes) == expected
    with torch.device("meta"):
        backbone = Wav2Vec2Model(XLSR_CONFIG)
    adapted = attach(backbone, method, seed=0)
    assert sum(p.numel() for p in adapted.trainable().values()) + 1025 * classes == expected
    quiet = MethodConfig.from_flat({**flat, "backbone_mode": "eval"})
    assert trainable_parameters(quiet, XLSR, classes) == expected - 1024


@pytest.mark.parametrize(
    ("flat", "classes", "expected"),
    [
        ({"method": "linear"}, 31, 23_839),
        ({"method": "linear"}, 4, 3_076),
        ({"method": "adapter", "adapter.reduction": 64}, None, 230_544),
        ({"method": "adapter", "adapter.block": "conformer", "adapter.reduction": 96}, None, 252_288),
        ({"method": "adapter", "adapter.width": 48}, None, 894_528),
        ({"method": "adapter", "adapter.block": "conformer", "adapter.width": 32}, None, 926_208),
        ({"method": "partial", "partial.last": 3}, 31, 3 * 7_087_872 + 769 * 31),
    ],
    ids=str,
)
def test_petl_ast_on_wav2vec2(flat: dict[str, Any], classes: int | None, expected: int) -> None:
    """The LayerNorms stay frozen on models that read waveforms."""
    method = MethodConfig.from_flat(flat)
    assert trainable_parameters(method, WAV2VEC2, classes) == expected
    with torch.device("meta"):
        backbone = Wav2Vec2Model(WAV2VEC2_CONFIG)
    adapted = attach(backbone, method, seed=0)
    assert sum(p.numel() for p in adapted.trainable().values()) == expected - (769 * classes if classes else 0)


MILLIONS = [
    # data set, classes, frames, head, full, AAT^M, AAT^MS, partial, prompt
    ("ESC-50", 50, 512, 0.040, 87.295, 3.590, 7.141, 42.567, 0.151),
    ("US8K", 10, 400, 0.009, 87.163, 3.560, 7.110, 42.536, 0.120),
    ("SC v2", 35, 128, 0.028, 86.933, 3.579, 7.129, 42.556, 0.139),
    ("SC v1", 30, 128, 0.025, 86.930, 3.575, 7.126, 42.552, 0.135),
    ("GTZAN", 10, 3000, 0.009, 89.559, 3.560, 7.110, 42.536, 0.120),
    ("OpenMIC", 20, 1024, 0.017, 87.742, 3.567, 7.118, 42.544, 0.128),
]


@pytest.mark.parametrize(("name", "classes", "frames", "head", "full", "mlp", "both", "partial", "prompt"), MILLIONS)
def test_aat(
    name: str,
    classes: int,
    frames: int,
    head: float,
    full: float,
    mlp: float,
    both: float,
    partial: float,
    prompt: float,
) -> None:
    """The published head is a LayerNorm and a linear map; full fine-tuning counts two unused 1000-way heads."""
    published: list[tuple[dict[str, Any], float, int]] = [
        ({"method": "linear", "norms": "none"}, head, 0),
        ({"method": "full"}, full, 2 * 769_000),
        *((row[0], value, 0) for row, value in zip(AAT, (mlp, both, partial, prompt), strict=True)),
    ]
    for flat, millions, unused in published:
        method = MethodConfig.from_flat({**flat, "head.kind": "norm_linear", "pooling": "cls+dist"})
        count = trainable_parameters(method, BASE, classes, frames) + unused
        assert abs(count / 1e6 - millions) <= 1e-3, flat


@pytest.mark.parametrize(("classes", "expected"), [(10, 9_226), (50, 39_986), (31, 25_375)])
def test_linear_probe_with_head(classes: int, expected: int) -> None:
    assert trainable_parameters(MethodConfig(), BASE, classes) == expected == 1_536 + 769 * classes


def test_final_norm_and_head_come_on_top() -> None:
    method = MethodConfig.from_flat({"method": "soft_moa", "moa.experts": 7, "moa.reduction": 128.0})
    assert trainable_parameters(method, BASE, 50) == 922_104 + 1_536 + 769 * 50


def test_statistics_double_what_the_head_sees() -> None:
    linear = MethodConfig(pooling="stats")
    assert head_parameters(linear, XLSR, 7) == 2 * 1024 * 7 + 7
    two = MethodConfig.from_flat({"pooling": "stats", **PROJECTOR})
    assert head_parameters(two, XLSR, 7) == 1024 * 256 + 256 + 2 * 256 * 7 + 7


@pytest.mark.parametrize(
    ("frames", "tokens"),
    [(100, 110), (128, 146), (400, 470), (500, 590), (512, 602), (800, 950), (1024, 1214), (3000, 3590)],
)
def test_token_counts(frames: int, tokens: int) -> None:
    assert BASE.tokens(frames) == tokens
    assert ASTModel(ASTConfig(max_length=frames, num_hidden_layers=1)).embeddings.position_embeddings.shape[1] == tokens


@pytest.mark.parametrize(("samples", "frames"), [(40_000, 124), (16_000, 49), (400, 1), (399, 0), (10, 0), (1, 0)])
def test_frames_of_a_waveform(samples: int, frames: int) -> None:
    """SURE's clips of 2.5 s have 124 frames."""
    assert WAV2VEC2.tokens(samples) == XLSR.tokens(samples) == frames


def test_frames_of_whisper() -> None:
    shape = BackboneShape.from_config({"model_type": "whisper"})
    assert (shape.tokens(), shape.tokens(100), shape.tokens(2)) == (1500, 50, 1)


@pytest.mark.parametrize(("frames", "expected"), [(400, 85_615_872), (1024, 85_254_912 + 768 * 1214)])
def test_the_backbone_itself(frames: int, expected: int) -> None:
    assert backbone_parameters(BASE, frames) == expected
    assert trainable_parameters(MethodConfig(method="full"), BASE, 31, frames) == expected + 769 * 31
    with torch.device("meta"):
        assert sum(p.numel() for p in ASTModel(ASTConfig(max_length=frames)).parameters()) == expected


def test_fixed_positions_do_not_count() -> None:
    """Full fine-tuning of a Whisper encoder leaves its sinusoids, however many of them are in use."""
    shape = BackboneShape.from_config({"model_type": "whisper"})
    full = MethodConfig(method="full")
    counts = {trainable_parameters(full, shape, frames=frames) for frames in (None, 3000, 100)}
    assert counts == {backbone_parameters(shape) - 1500 * 384}


def test_shape_from_a_configuration() -> None:
    assert BackboneShape.from_config(ASTConfig().to_dict()) == BASE
    assert BackboneShape.from_config({"model_type": BASE.family}) == BASE
    small = BackboneShape.from_config(ASTConfig(hidden_size=96, max_length=128, patch_size=[16, 16]).to_dict())
    assert (small.hidden, small.max_frames, small.patch) == (96, 128, 16)


@pytest.mark.parametrize(
    ("config", "said"),
    [
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
