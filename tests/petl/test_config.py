"""Method options: what is accepted, what is said, and the round trip through dotted keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petl import METHODS, ConfigError, MethodConfig
from petl.config import READ_WITH, method_keys, readers, why_unread
from petl.keys import KeyInfo
from petl.plan import (
    adapter_kernel,
    adapter_width,
    expert_kernel,
    expert_width,
    lora_alpha,
    lora_rank,
    lora_sites,
    prefix_pairs,
    trained_norms,
)
from tests.petl.models import CASES, FEATURES, LAYERS, MODELS, TINY_SHAPE, Case

KEYS = {info.key: info for info in method_keys()}


@pytest.mark.parametrize("case", [*CASES, *FEATURES], ids=str)
def test_round_trip(case: Case) -> None:
    config = case.method
    flat = config.to_flat()
    assert MethodConfig.from_flat(flat) == config
    assert case.flat.items() <= flat.items()
    assert all(config.applies(key) for key in flat)


def test_defaults_are_the_linear_probe() -> None:
    assert MethodConfig.from_flat({}) == MethodConfig()
    assert MethodConfig().to_flat() == {"method": "linear", "head.kind": "linear"}


@pytest.mark.parametrize(
    ("flat", "key", "said"),
    [
        ({"metod": "lora"}, "metod", "did you mean 'method'"),
        ({"method": "lora", "lora.rnak": 3}, "lora.rnak", r"did you mean 'lora\.rank'"),
        ({"method": "softmoa"}, "method", "did you mean 'soft_moa'"),
        ({"method": "lora+lora"}, "method", "twice"),
        ({"method": "linear+lora"}, "method", "joins nothing"),
        ({"method": "dense_moa+soft_moa"}, "method", "use one"),
        ({"method": "full+bitfit"}, "method", "trains every weight already"),
        ({"method": ""}, "method", "not known"),
        ({"method": "lora", "lora.rank": "four"}, "lora.rank", "'four'"),
        ({"method": "lora", "lora.rank": 4.5}, "lora.rank", r"4\.5"),
        ({"method": "lora", "lora.rank": True}, "lora.rank", "True"),
        ({"method": "lora", "lora.rank": 0}, "lora.rank", "greater than or equal to 1"),
        ({"method": "lora", "lora.rank": 4, "lora.reduction": 8}, "lora.rank", "both set the rank"),
        ({"method": "lora", "lora.targets": "q,w"}, "lora.targets", "'w'"),
        ({"method": "lora", "lora.targets": "q,q"}, "lora.targets", "twice"),
        ({"method": "adapter", "adapter.width": 4, "adapter.reduction": 8}, "adapter.reduction", "both set the width"),
        ({"method": "adapter", "adapter.width": 4, "adapter.ratio": 0.5}, "adapter.width", "and adapter.ratio both"),
        ({"method": "adapter", "adapter.location": "fnn"}, "adapter.location", "'ffn'"),
        ({"method": "adapter", "adapter.placement": "mixed"}, "adapter.placement", "needs adapter.location 'both'"),
        (
            {"method": "adapter", "adapter.location": "layer", "adapter.placement": "hydra"},
            "adapter.placement",
            "no meaning with adapter.location 'layer'",
        ),
        (
            {"method": "adapter", "adapter.location": "layer", "adapter.order": "after"},
            "adapter.order",
            "no meaning with adapter.location 'layer'",
        ),
        (
            {"method": "adapter", "adapter.order": "after", "adapter.residual": True},
            "adapter.residual",
            "keeps the sub-layer's output anyway",
        ),
        (
            {"method": "adapter", "adapter.block": "conformer", "adapter.kernel": 0},
            "adapter.kernel",
            "leaves out the middle convolution of block 'conv'",
        ),
        ({"method": "lora", "layers.first": 3, "layers.last": 1}, "layers.last", r"layers\.last \(1\) is below"),
        ({"method": "lora", "moa.experts": 3}, "moa.experts", "no meaning for method 'lora'"),
        ({"method": "dense_moa", "moa.slots": 2}, "moa.slots", "no meaning for method 'dense_moa'"),
        ({"method": "soft_moa", "moa.expert": "conformer", "moa.axis": "time"}, "moa.axis", "for method 'soft_moa'"),
        ({"method": "soft_moa", "moa.kernel": 3}, "moa.kernel", "with moa.expert 'bottleneck'"),
        ({"method": "linear", "layers.first": 1}, "layers.first", "no meaning for method 'linear'"),
        ({"method": "adapter", "adapter.kernel": 3}, "adapter.kernel", "with adapter.block 'bottleneck'"),
        ({"method": "adapter", "adapter.block": "conv", "adapter.activation": "relu"}, "adapter.activation", "'conv'"),
        ({"method": "prefix", "prefix.hidden": 8}, "prefix.hidden", "with prefix.reparam false"),
        ({"method": "prefix", "prefix.length": 5, "prefix.split": True}, "prefix.length", "use an even number"),
        ({"method": "prefix", "prefix.reparam": True}, "prefix.reparam", "needs prefix.table 'embedding'"),
        ({"head.width": 8}, "head.width", "with head.kind 'linear'"),
        ({"method": "partial", "partial.last": "top"}, "partial.last", "a valid integer or 'half', found 'top'"),
        ({"pooling": "max"}, "pooling", "'max'"),
        ({"pooling": "prompts"}, "pooling", "needs prompts among the tokens, which method 'linear' does not give"),
        (
            {"method": "prompt", "prompt.insertion": "overwrite", "pooling": "prompts"},
            "pooling",
            "which prompt.insertion 'overwrite' does not give",
        ),
        (
            {"method": "prompt", "prompt.insertion": "replace_dist", "pooling": "cls+dist"},
            "pooling",
            "needs the distillation token",
        ),
    ],
    ids=str,
)
def test_mistakes_are_named(flat: dict[str, Any], key: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        MethodConfig.from_flat(flat)
    assert caught.value.key == key


def test_what_reads_an_option() -> None:
    blocks = ("conformer", "convpass", "conv")
    whole = {"adapter.legacy_discard_conv": (False,)}
    assert readers("adapter.kernel") == {"method": ("adapter",), "adapter.block": blocks, **whole}
    assert readers("moa.slots") == {"method": ("soft_moa",)}
    assert readers("pooling") == {}
    assert why_unread("lora.rank", {"method": "adapter+lora"}) == ""
    assert why_unread("adapter.kernel", {"method": "adapter"}) == "with adapter.block 'bottleneck'"
    assert why_unread("adapter.kernel", {"method": "adapter", "adapter.block": "conv"}) == ""
    assert why_unread("head.width", {}) == "with head.kind 'linear'"
    for method in ("full", "full+lora"):
        assert why_unread("norms", {"method": method}) == f"for method '{method}'"
    assert why_unread("norms", {"method": "lora"}) == ""


@pytest.mark.parametrize("key", ["adapter.kernel", "adapter.axis", "moa.kernel", "moa.axis"])
def test_a_convolution_that_is_discarded_has_no_options(key: str) -> None:
    section = key.partition(".")[0]
    block, method = ("adapter.block", "adapter") if section == "adapter" else ("moa.expert", "dense_moa")
    value: Any = 5 if key.endswith("kernel") else "sequence"
    flat: dict[str, Any] = {"method": method, block: "convpass", key: value}
    MethodConfig.from_flat(flat)
    flat[f"{section}.legacy_discard_conv"] = True
    with pytest.raises(ConfigError, match=rf"'{key}' has no meaning with {section}\.legacy_discard_conv true"):
        MethodConfig.from_flat(flat)
    # Beside another block the switch is not read itself, so it switches nothing off.
    assert why_unread(key, {**flat, block: "conformer"}) == ""


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_are_finite(value: float) -> None:
    for flat in ({"method": "lora", "lora.alpha": value}, {"method": "adapter", "adapter.reduction": value}):
        key = list(flat)[1]
        with pytest.raises(ConfigError, match=rf"{key}: .*finite"):
            KEYS[key].check(value)
        with pytest.raises(ConfigError, match=rf"{key}: .*finite"):
            MethodConfig.from_flat(flat)


@pytest.mark.parametrize("info", method_keys(), ids=lambda info: info.key)
def test_every_key_is_read_by_some_configuration(info: KeyInfo) -> None:
    """What `readers` asks for is enough, and each part of it is needed."""
    needs = readers(info.key)
    flat: dict[str, Any] = {parent: values[0] for parent, values in needs.items()}
    flat.setdefault("method", "linear")
    if flat.keys() & {"adapter.legacy_discard_conv", "moa.legacy_discard_conv"}:  # read by one block only
        flat |= {"adapter.block": "convpass"} if info.key.startswith("adapter") else {"moa.expert": "convpass"}
    assert why_unread(info.key, flat) == ""
    for parent in needs:
        assert parent in KEYS
        other = {**flat, parent: "full" if parent == "method" else object()}
        if needs.get("method") != ("full",):
            assert why_unread(info.key, other)


def test_options_that_others_switch_on_exist() -> None:
    for key, needs in READ_WITH.items():
        assert key in KEYS
        for parent, values in needs.items():
            for value in values:
                KEYS[parent].check(value)


@pytest.mark.parametrize("info", method_keys(), ids=lambda info: info.key)
def test_every_key_accepts_its_default(info: KeyInfo) -> None:
    info.check(info.default)


def test_keys_check_single_values() -> None:
    KEYS["moa.experts"].check(7)
    KEYS["lora.alpha"].check(16)
    for key, wrong in (("moa.experts", 0), ("moa.experts", 7.0), ("moa.normalize", "l2"), ("lora.dropout", 1.0)):
        with pytest.raises(ConfigError, match=key):
            KEYS[key].check(wrong)
    assert KEYS["moa.experts"].methods == ("dense_moa", "soft_moa")
    assert KEYS["pooling"].methods == ()


def _norms(flat: dict[str, Any]) -> set[tuple[int, str]]:
    """(layer, site) of the LayerNorms that train on the tiny AST."""
    return {(layer, site) for layer, site, _ in trained_norms(MethodConfig.from_flat(flat), TINY_SHAPE)}


_FINAL = {(-1, "final")}
_FFN = {(layer, "ffn") for layer in range(LAYERS)}
_ATTENTION = {(layer, "attention") for layer in range(LAYERS)}


def test_trained_norms_follow_the_published_choice() -> None:
    expected = {
        "linear": _FINAL,
        "full": set(),  # they are weights of the backbone, which all train
        "partial": set(),
        "bitfit": _FINAL | _FFN | _ATTENTION,
        "lora": _FINAL,
        "prompt": _FINAL,
        "prefix": _FINAL,
        "adapter": _FINAL | _FFN,
        "dense_moa": _FINAL | _ATTENTION,
        "soft_moa": _FINAL | _ATTENTION,
        "feature_adapter": set(),
    }
    assert {name: _norms({"method": name}) for name in METHODS} == expected
    bitfit = trained_norms(MethodConfig(method="bitfit"), TINY_SHAPE)
    assert {tensor for _, _, tensor in bitfit} == {"bias"}


def test_models_of_waveforms_train_no_norms_unless_asked() -> None:
    shape = next(model for model in MODELS if model.name == "wav2vec2-stable").shape
    assert trained_norms(MethodConfig(method="adapter"), shape) == frozenset()
    assert trained_norms(MethodConfig(method="adapter", norms="final"), shape)


@pytest.mark.parametrize(
    ("flat", "expected"),
    [
        ({"method": "lora", "norms": "site"}, _ATTENTION),
        ({"method": "lora", "lora.targets": "o,fc2", "norms": "site+final"}, _ATTENTION | _FFN | _FINAL),
        ({"method": "adapter", "adapter.location": "layer"}, _FINAL),
        ({"method": "adapter", "norms": "none"}, set()),
        ({"method": "adapter", "layers.first": 1, "layers.last": 1, "norms": "site"}, {(1, "ffn")}),
        # In a combination each method keeps its own habit: LoRA trains no LayerNorm of its sites.
        ({"method": "adapter+lora"}, _FFN | _FINAL),
        ({"method": "adapter+lora", "norms": "site"}, _ATTENTION | _FFN),
        ({"method": "partial+adapter", "partial.last": 1, "norms": "site"}, {(0, "ffn"), (1, "ffn")}),
    ],
    ids=str,
)
def test_norms_that_train(flat: dict[str, Any], expected: set[tuple[int, str]]) -> None:
    assert _norms(flat) == expected


def test_widths() -> None:
    def config(**flat: Any) -> MethodConfig:
        return MethodConfig.from_flat({k.replace("__", "."): v for k, v in flat.items()})

    assert adapter_width(config(method="adapter").adapter, 768) == 12
    assert adapter_width(config(method="adapter", adapter__reduction=96).adapter, 768) == 8
    assert adapter_width(config(method="adapter", adapter__width=5).adapter, 768) == 5
    assert adapter_width(config(method="adapter", adapter__ratio=0.25).adapter, 768) == 192
    by_block = {"bottleneck": 12, "conformer": 8, "convpass": 6, "conv": 384, "tiny_conformer": 24}
    by_block |= {"tiny_attention": 1, "tiny_external_attention": 8}
    assert {b: adapter_width(config(method="adapter", adapter__block=b).adapter, 768) for b in by_block} == by_block
    kernels = {"conformer": 31, "convpass": 3, "conv": 5}
    assert {b: adapter_kernel(config(method="adapter", adapter__block=b).adapter) for b in kernels} == kernels
    with pytest.raises(ConfigError, match=r"adapter\.reduction gives a width of 11, but .* divides the hidden size"):
        adapter_width(config(method="adapter", adapter__block="conv", adapter__reduction=12).adapter, 128)
    assert expert_width(config(method="soft_moa").moa, 768) == 6
    assert expert_kernel(config(method="soft_moa", moa__expert="conformer").moa) == 31
    assert prefix_pairs(config(method="prefix", prefix__split=True).prefix) == 12
    assert prefix_pairs(config(method="prefix").prefix) == 24
    assert lora_rank(config(method="lora").lora, 768) == 12
    assert lora_rank(config(method="lora", lora__reduction=128).lora, 768) == 6
    assert lora_sites(config(method="lora", lora__targets="fc1").lora) == ("ffn",)
    published = {"method": "lora", "lora__scaling": "alpha/RR", "lora__alpha": 8}
    assert lora_alpha(config(**published, lora__reduction=128).lora, 768) / 6 == 8 / 128
    assert lora_alpha(config(**published, lora__rank=6).lora, 768) / 6 == 8 / 128
    assert lora_alpha(config(method="lora", lora__alpha=8).lora, 768) == 8


_JSON = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers()))


@given(st.dictionaries(st.sampled_from(sorted(KEYS)) | st.text(max_size=6), _JSON, max_size=4))
def test_anything_is_accepted_or_refused_in_words(flat: dict[str, Any]) -> None:
    try:
        config = MethodConfig.from_flat(flat)
    except ConfigError as error:
        assert str(error)
    else:
        assert MethodConfig.from_flat(config.to_flat()) == config
