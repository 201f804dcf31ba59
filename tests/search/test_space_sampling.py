"""What a space proposes can be trained; what is active follows from `when`; what is written is read back."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petl.errors import ConfigError
from search.space import Choice, FloatRange, IntRange, Params, Space, dump, load_space, parse_space
from search.space.naming import short_name
from tests.search.spaces import spaces

optuna.logging.set_verbosity(optuna.logging.ERROR)
_MOA = Path(__file__).parents[2] / "spaces" / "moa.yaml"
_UNHURRIED = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])


def _study(space: Space, seed: int = 0) -> optuna.Study:
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))


def _draws(space: Space, count: int, seed: int = 0) -> list[Params]:
    study = _study(space, seed)
    return [space.suggest(study.ask()) for _ in range(count)]


@_UNHURRIED
@given(spaces())
def test_a_space_is_read_back_as_it_was_written(space: Space) -> None:
    again = parse_space(dump(space))
    assert again == space
    assert again.digest() == space.digest()
    assert dump(again) == dump(space)


@_UNHURRIED
@given(spaces(), st.integers(0, 99))
def test_every_proposal_can_be_trained_and_holds_exactly_the_active_parameters(space: Space, seed: int) -> None:
    for params in _draws(space, 5, seed):
        config = space.trial_config(params)
        assert config.to_flat().items() >= {k: v for k, v in params.items() if v is not None}.items()
        above: Params = {}
        for parameter in space.params:
            active = all(c.key in above and above[c.key] in c.values for c in parameter.when)
            assert (parameter.key in params) == active
            if active:
                above[parameter.key] = params[parameter.key]
                assert parameter.domain.normal(params[parameter.key]) == params[parameter.key]


@_UNHURRIED
@given(spaces(), st.data())
def test_completing_keeps_what_is_given_and_is_idempotent(space: Space, data: st.DataObject) -> None:
    [params] = _draws(space, 1, data.draw(st.integers(0, 99)))
    assert space.complete(params) == params
    parents = {k: v for k, v in params.items() if space.is_parent(k)}
    partial = parents | {k: v for k, v in params.items() if data.draw(st.booleans())}
    full = space.complete(partial)
    assert full.keys() == params.keys()
    assert full.items() >= partial.items()
    assert space.complete(full) == full


@_UNHURRIED
@given(spaces(), st.integers(0, 99))
def test_optuna_sees_the_same_configuration(space: Space, seed: int) -> None:
    study = _study(space)
    [params] = _draws(space, 1, seed)
    study.enqueue_trial(space.to_optuna(params))
    asked = study.ask()
    assert space.suggest(asked) == params
    assert space.from_optuna(asked.params) == params
    assert asked.distributions == space.distributions(params)
    rebuilt = optuna.trial.create_trial(
        value=0.5, params=space.to_optuna(params), distributions=space.distributions(params)
    )
    study.add_trial(rebuilt)
    assert space.from_optuna(study.trials[-1].params) == params


@_UNHURRIED
@given(spaces(), st.integers(0, 99))
def test_the_key_survives_json_and_reordering(space: Space, seed: int) -> None:
    [params] = _draws(space, 1, seed)
    stored = json.loads(json.dumps(params))
    assert space.key(dict(reversed(stored.items()))) == space.key(params)
    for name, value in params.items():
        if isinstance(value, float):
            value = float(f"{value:.12g}")  # off the edge where the last of the digits that count turns over
            assert space.key({**params, name: value * (1 + 1e-15)}) == space.key({**params, name: value})
            assert space.key({**params, name: value * (1 + 1e-9) + 1e-9}) != space.key(params)


@_UNHURRIED
@given(spaces())
def test_the_size_is_the_number_of_different_configurations(space: Space) -> None:
    size = space.size()
    if any(isinstance(p.domain, FloatRange) and p.domain.low < p.domain.high for p in space.params):
        assert size is None
        return
    seen: set[str] = set()
    if size is None or size > 3000:
        return
    for params in _everything(space):
        seen.add(space.key(params))
    assert size == len(seen)


def _everything(space: Space) -> list[Params]:
    """All configurations, by brute force: parameter after parameter, every value of the active ones."""
    found: list[Params] = [{}]
    for parameter in space.params:
        domain = parameter.domain
        values = range(domain.low, domain.high + 1, domain.step) if isinstance(domain, IntRange) else domain.ends()
        active = [
            [{**params, parameter.key: value} for value in values] for params in found if parameter.active(params)
        ]
        idle = [params for params in found if not parameter.active(params)]
        found = [*idle, *itertools.chain.from_iterable(active)]
    return found


def test_ordered_choices_are_positions_to_optuna_and_others_are_categories() -> None:
    space = load_space(_MOA)
    params = space.complete({"method": "soft_moa", "moa.reduction": 32})
    told = space.to_optuna(params)
    ordered = space.parameter("moa.reduction").domain
    assert isinstance(ordered, Choice)
    assert told["moa.reduction"] == ordered.values.index(32)
    assert told["moa.location"] == "attention"
    distributions = space.distributions(params)
    assert isinstance(distributions["moa.reduction"], optuna.distributions.IntDistribution)
    assert isinstance(distributions["moa.location"], optuna.distributions.CategoricalDistribution)
    assert distributions["optim.lr"].log


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_tpe_can_work_on_the_conditional_space() -> None:
    space = load_space(_MOA)
    sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=5, seed=0)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    methods = set()
    for _ in range(60):
        asked = study.ask()
        params = space.suggest(asked)
        methods.add(params["method"])
        study.tell(asked, 1.0 if params["method"] == "lora" else 0.0)
    last = [space.from_optuna(trial.params)["method"] for trial in study.trials[-30:]]
    assert last.count("lora") > 2 * 30 / 5, "twice as often as chance: the sampler learns through our mapping"
    assert len(methods) > 1


def test_defaults_that_are_not_given() -> None:
    assert IntRange(2, 64, log=True).middle() == 11
    assert IntRange(1, 10, step=3).middle() in (4, 7)
    assert FloatRange(1e-4, 1e-2, log=True).middle() == pytest.approx(1e-3)
    assert FloatRange(0, 1).middle() == 0.5
    assert Choice(("b", "a")).middle() == "b"


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"method": "soft_moa"}, "soft_moa-e7-r128"),
        ({"method": "soft_moa", "moa.slots": 2, "moa.location": "both"}, "soft_moa-e7-s2-r128-both"),
        ({"method": "dense_moa", "moa.experts": 3, "moa.reduction": 16}, "dense_moa-e3-r16"),
        ({"method": "adapter", "adapter.location": "attention"}, "adapter-r64-attn"),
        ({"method": "lora", "lora.reduction": 32}, "lora-r32"),
        ({"method": "linear"}, "linear"),
    ],
)
def test_short_names(params: Params, expected: str) -> None:
    space = load_space(_MOA)
    assert space.short_name(space.complete(params)) == expected


def test_short_names_of_ranks_targets_layers_and_joined_methods() -> None:
    head = (
        "schema: petl.space/1\nbudget: {trials: 1}\nbase: {method: adapter+lora, layers.first: 2, adapter.width: 8}\n"
    )
    space = parse_space(head + "params:\n  lora.rank: {int: [2, 64], default: 12}\n  lora.targets: 'q,k'\n")
    assert space.short_name(space.complete({})) == "adapter+lora-w8-k12-qk-l2totop"


@pytest.mark.parametrize(
    ("flat", "expected"),
    [
        ({"method": "full"}, "full"),
        ({"method": "partial"}, "partial-half"),
        ({"method": "partial", "partial.last": 3}, "partial-top3"),
        ({"method": "adapter", "adapter.block": "conformer", "adapter.kernel": 8}, "adapter-conformer-x8"),
        ({"method": "adapter", "adapter.block": "tiny_external_attention", "adapter.width": 8}, "adapter-tinyext-w8"),
        (
            {"method": "adapter", "adapter.ratio": 0.25, "adapter.location": "both", "adapter.placement": "mixed"},
            "adapter-c0.25-both-mixed",
        ),
        (
            {"method": "adapter", "adapter.placement": "sequential", "adapter.residual": False},
            "adapter-seq-nores",
        ),
        ({"method": "adapter", "adapter.block": "conv", "adapter.gate": False}, "adapter-conv-nogate"),
        ({"method": "lora", "lora.rank": 4, "lora.targets": "q,k", "lora.shared": True}, "lora-k4-qk-shared"),
        ({"method": "prompt", "prompt.length": 25, "prompt.deep": True}, "prompt-n25"),
        (
            {"method": "prompt", "prompt.length": 9, "prompt.deep": False, "prompt.insertion": "replace_dist"},
            "prompt-n9-shallow-nodist",
        ),
        (
            {"method": "prefix", "prefix.length": 30, "prefix.table": "embedding", "prefix.reparam": True},
            "prefix-n30-embedding-mlp",
        ),
        (
            {"method": "soft_moa", "moa.experts": 3, "moa.slots": 2, "moa.expert": "convpass", "moa.kernel": 5},
            "soft_moa-e3-s2-convpass-x5",
        ),
        ({"method": "feature_adapter", "feature_adapter.width": 8}, "feature_adapter-w8"),
        ({"method": "adapter+prompt", "adapter.width": 4, "prompt.length": 5}, "adapter+prompt-w4-n5"),
        ({"method": "linear", "pooling": "cls+dist", "norms": "site+final"}, "linear-ln_site_final-cls_dist"),
        ({"method": "lora", "lora.rank": 2, "seed": 3}, "lora-k2-seed3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_short_names_of_options(flat: Params, expected: str) -> None:
    assert short_name(flat) == expected
    assert re.fullmatch(r"[A-Za-z0-9._+-]+", expected)


def test_what_a_space_fixes_for_all_names_none() -> None:
    head = "schema: petl.space/1\nbudget: {trials: 1}\nbase: {norms: none, head.kind: norm_linear, seed: 4}\n"
    space = parse_space(head + "params:\n  method: {choice: [linear, lora]}\n  pooling: {choice: [mean, stats]}\n")
    assert space.short_name(space.complete({"pooling": "stats"})) == "linear-stats"
    assert space.short_name(space.complete({"method": "lora"})) == "lora"


def test_fixed_options_of_other_methods_stay_out() -> None:
    text = _MOA.read_text().replace("  train.batch_size: 32", "  train.batch_size: 32\n  moa.normalize: soft_moe\n ")
    space = parse_space(text)
    assert "moa.normalize" not in space.flat(space.complete({"method": "lora"}))
    assert space.trial_config(space.complete({"method": "soft_moa"})).method.moa.normalize == "soft_moe"


def test_complete_explains_what_it_refuses() -> None:
    space = load_space(_MOA)
    with pytest.raises(ConfigError, match=r"'moa\.slots' is not active here: it needs method = soft_moa"):
        space.complete({"method": "dense_moa", "moa.slots": 2})
    with pytest.raises(ConfigError, match=r"optim.lr: 1 is outside 0.0001 to 0.02"):
        space.complete({"optim.lr": 1})
    with pytest.raises(ConfigError, match=r"'optim.lrr' is not sampled by this space \(did you mean 'optim.lr'\?\)"):
        space.complete({"optim.lrr": 1})
