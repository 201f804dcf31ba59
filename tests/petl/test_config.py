"""Method options: what is accepted, what is said, and the round trip through dotted keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petl import METHODS, ConfigError, MethodConfig
from petl.config import KeyInfo, method_keys
from petl.plan import adapter_width, expert_width, lora_alpha, lora_rank, lora_sites, norm_sites
from tests.petl.models import CASES, Case

KEYS = {info.key: info for info in method_keys()}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_round_trip(case: Case) -> None:
    config = case.method
    flat = config.to_flat()
    assert MethodConfig.from_flat(flat) == config
    assert case.flat.items() <= flat.items()
    assert all(config.applies(key) for key in flat)


def test_defaults_are_the_linear_probe() -> None:
    assert MethodConfig.from_flat({}) == MethodConfig()
    assert MethodConfig().to_flat() == {"method": "linear", "pooling": "mean"}


@pytest.mark.parametrize(
    ("flat", "key", "said"),
    [
        ({"metod": "lora"}, "metod", "did you mean 'method'"),
        ({"method": "lora", "lora.rnak": 3}, "lora.rnak", r"did you mean 'lora\.rank'"),
        ({"method": "softmoa"}, None, "did you mean 'soft_moa'"),
        ({"method": "lora+lora"}, None, "twice"),
        ({"method": "linear+lora"}, None, "joins nothing"),
        ({"method": "dense_moa+soft_moa"}, None, "use one"),
        ({"method": ""}, None, "not known"),
        ({"method": "lora", "lora.rank": "four"}, "lora.rank", "'four'"),
        ({"method": "lora", "lora.rank": 4.5}, "lora.rank", r"4\.5"),
        ({"method": "lora", "lora.rank": True}, "lora.rank", "True"),
        ({"method": "lora", "lora.rank": 0}, "lora.rank", "greater than or equal to 1"),
        ({"method": "lora", "lora.rank": 4, "lora.reduction": 8}, "lora", "both set the rank"),
        ({"method": "lora", "lora.targets": "q,w"}, "lora", "'w'"),
        ({"method": "lora", "lora.targets": "q,q"}, "lora", "twice"),
        ({"method": "adapter", "adapter.width": 4, "adapter.reduction": 8}, "adapter", "both set the bottleneck"),
        ({"method": "adapter", "adapter.location": "fnn"}, "adapter.location", "'ffn'"),
        ({"method": "lora", "layers.first": 3, "layers.last": 1}, "layers", r"layers\.last \(1\) is below"),
        ({"method": "lora", "moa.experts": 3}, "moa.experts", "no meaning for method 'lora'"),
        ({"method": "dense_moa", "moa.slots": 2}, "moa.slots", "no meaning for method 'dense_moa'"),
        ({"method": "linear", "layers.first": 1}, "layers.first", "no meaning for method 'linear'"),
        ({"pooling": "max"}, "pooling", "'max'"),
    ],
    ids=str,
)
def test_mistakes_are_named(flat: dict[str, Any], key: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        MethodConfig.from_flat(flat)
    assert caught.value.key == key


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


def test_trained_norms_follow_the_published_choice() -> None:
    expected = {
        "linear": {"final"},
        "lora": {"final"},
        "adapter": {"site", "final"},
        "dense_moa": {"site", "final"},
        "soft_moa": {"site", "final"},
    }
    assert {name: set(MethodConfig(method=name).trained_norms) for name in METHODS} == expected


@pytest.mark.parametrize(
    ("flat", "sites"),
    [
        ({"method": "linear"}, ()),
        ({"method": "lora"}, ()),
        ({"method": "lora", "norms": "site"}, ("attention",)),
        ({"method": "lora", "lora.targets": "o,fc2", "norms": "site+final"}, ("attention", "ffn")),
        ({"method": "adapter"}, ("ffn",)),
        ({"method": "adapter", "adapter.location": "layer"}, ()),
        ({"method": "adapter", "norms": "none"}, ()),
        ({"method": "soft_moa"}, ("attention",)),
        # In a combination each method keeps its own habit: LoRA trains no LayerNorm of its sites.
        ({"method": "adapter+lora"}, ("ffn",)),
        ({"method": "adapter+lora", "norms": "site"}, ("attention", "ffn")),
    ],
    ids=str,
)
def test_sites_whose_norms_train(flat: dict[str, Any], sites: tuple[str, ...]) -> None:
    assert norm_sites(MethodConfig.from_flat(flat)) == sites


def test_widths() -> None:
    def config(**flat: Any) -> MethodConfig:
        return MethodConfig.from_flat({k.replace("__", "."): v for k, v in flat.items()})

    assert adapter_width(config(method="adapter").adapter, 768) == 12
    assert adapter_width(config(method="adapter", adapter__reduction=96).adapter, 768) == 8
    assert adapter_width(config(method="adapter", adapter__width=5).adapter, 768) == 5
    assert expert_width(config(method="soft_moa").moa, 768) == 6
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
