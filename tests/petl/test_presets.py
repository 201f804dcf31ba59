"""Published settings: they are configurations, and their counts are the published ones."""

from __future__ import annotations

import pytest

import petl
from petl import PRESETS, BackboneShape, ConfigError, MethodConfig, UserError, trainable_parameters
from petl.config import METHODS
from petl.presets import SOURCES

AST = BackboneShape()  # AST-base
WAV2VEC2 = BackboneShape.from_config({"model_type": "wav2vec2"})  # base
XLSR = BackboneShape.from_config(
    {
        "model_type": "wav2vec2",
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "do_stable_layer_norm": True,
        "feat_extract_norm": "layer",
        "conv_bias": True,
    }
)
FINAL = 2 * 768  # the LayerNorm behind the last layer


def _count(name: str, shape: BackboneShape, classes: int | None = None) -> int:
    return trainable_parameters(MethodConfig.from_flat(petl.preset(name)), shape, classes)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_configuration_that_some_backbone_can_have(name: str) -> None:
    config = MethodConfig.from_flat(petl.preset(name))
    assert petl.preset(name).items() <= config.to_flat().items()
    assert PRESETS[name].lr > 0 and "arXiv" in PRESETS[name].source
    sizes = []
    for shape in (AST, XLSR):
        try:
            sizes.append(trainable_parameters(config, shape, 10))
        except ConfigError as error:
            assert error.key in ("method", "pooling", "prompt.insertion", "full.feature_encoder")
    assert sizes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bitfit", 102_144),
        ("pfeiffer", 248_976 + FINAL),
        ("houlsby", 497_952 + FINAL),
        ("conformer_pfeiffer", 270_720 + FINAL),
        ("conformer_houlsby", 541_440 + FINAL),
        ("conformer_pfeiffer_k8", 268_512 + FINAL),
        ("lora_petl_ast", 221_184 + FINAL),
        ("spt_300", 230_400 + FINAL),
        ("dpt_25", 230_400 + FINAL),
        ("prefix_24", 221_184 + FINAL),
        ("dense_moa_7", 922_188 + FINAL),
        ("soft_moa_7", 922_104 + FINAL),
        ("soft_moa_convpass", 595_608 + FINAL),
    ],
)
def test_counts_of_petl_ast(name: str, expected: int) -> None:
    assert _count(name, AST) == expected


def test_counts_of_petl_ast_on_wav2vec2() -> None:
    assert _count("p_linear", WAV2VEC2, 31) == 23_839
    assert _count("pfeiffer", WAV2VEC2) == 230_544
    assert _count("conformer_pfeiffer", WAV2VEC2) == 252_288
    assert _count("p_top3", WAV2VEC2) == 3 * 7_087_872
    assert _count("p_linear", AST, 50) == 39_986
    assert trainable_parameters(MethodConfig.from_flat(petl.preset("p_full")), AST, 31, frames=400) == (
        85_615_872 + 769 * 31
    )


@pytest.mark.parametrize(
    ("classes", "conv", "bottleneck", "lora", "prefix"),
    [
        (5, 3_667_461, 25_466_373, 3_802_629, 1_738_245),
        (7, 3_667_975, 25_466_887, 3_803_143, 1_738_759),
        (10, 3_668_746, 25_467_658, 3_803_914, 1_739_530),
        (11, 3_669_003, 25_467_915, 3_804_171, 1_739_787),
        (107, 3_693_675, 25_492_587, 3_828_843, 1_764_459),
        (24, 3_672_344, 25_471_256, 3_807_512, 1_743_128),
    ],
)
def test_counts_of_sure(classes: int, conv: int, bottleneck: int, lora: int, prefix: int) -> None:
    names = ("sure_conv_adapter", "sure_bottleneck", "sure_lora", "sure_prefix")
    assert tuple(_count(name, XLSR, classes) for name in names) == (conv, bottleneck, lora, prefix)
    assert _count("sure_linear", XLSR, classes) == 262_400 + 257 * classes


def test_counts_of_narrower_conv_adapters() -> None:
    found = [_count(f"sure_conv_adapter_d{part}", XLSR, 10) for part in (4, 8, 16)]
    assert found == [3_638_026, 3_622_666, 3_614_986]


@pytest.mark.parametrize("classes", [50, 10, 35, 30, 20])
def test_counts_of_aat(classes: int) -> None:
    head = 1_536 + 769 * classes
    assert _count("aat_head", AST, classes) == head
    assert _count("aat_mlp", AST, classes) == 3_550_464 + head
    assert _count("aat_spatial", AST, classes) == 3_550_464 + head
    assert _count("aat_mlp_spatial", AST, classes) == 7_100_928 + head
    assert _count("aat_partial", AST, classes) == 6 * 7_087_872 + head
    # The published count holds 12 more prompts, which no token of the published code ever comes from.
    assert _count("aat_prompt", AST, classes) == 110_592 - 12 * 768 + head


def test_names() -> None:
    assert petl.preset("aat_mlp_spatial")["adapter.placement"] == "mixed"
    assert set(SOURCES) == set(METHODS)
    with pytest.raises(UserError, match=r"preset 'pfeifer' is not known \(did you mean 'pfeiffer'\?\)"):
        petl.preset("pfeifer")
    petl.preset("pfeiffer")["method"] = "lora"
    assert petl.preset("pfeiffer")["method"] == "adapter", "what is handed out is a copy"
