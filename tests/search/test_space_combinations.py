"""Options that depend on options: what a space has to say about them, and which combinations are looked at."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from search.space import Params, Space, SpaceError, combinations, load_space, parse_space, tree
from search.space.parameters import Condition
from tests.search.spaces import spaces

_ROOT = Path(__file__).parents[2]
_HEAD = "schema: petl.space/1\nbudget: {trials: 1}\n"
_BLOCKS = "  adapter.block: {choice: [bottleneck, conformer, conv], when: {method: [adapter, adapter+lora]}}\n"


def _space(params: str, base: str = "") -> Space:
    return parse_space(f"{_HEAD}{f'base: {base}' if base else ''}\nparams:\n{params}", "demo.yaml")


@pytest.mark.parametrize(
    ("params", "base", "said"),
    [
        (
            "  method: {choice: [adapter, lora, adapter+lora]}\n" + _BLOCKS + "  adapter.kernel: {int: [3, 31]}\n",
            "",
            "line 7, params.adapter.kernel: it has no meaning with adapter.block 'bottleneck'; "
            "add when: {adapter.block: [conformer, conv]}",
        ),
        (
            "  method: {choice: [adapter, lora, adapter+lora]}\n  lora.rank: {int: [2, 8]}\n",
            "",
            "params.lora.rank: it has no meaning for method 'adapter'; add when: {method: [lora, adapter+lora]}",
        ),
        (
            "  method: {choice: [adapter, lora]}\n  adapter.kernel: {int: [3, 31], when: {method: adapter}}\n",
            "",
            "it has no meaning with adapter.block 'bottleneck'; leave it out, or give adapter.block: conformer, conv",
        ),
        (
            "  adapter.kernel: {int: [3, 31]}\n",
            "{method: adapter, adapter.block: tiny_attention}",
            "it has no meaning with adapter.block 'tiny_attention'; leave it out",
        ),
        (
            "  method: {choice: [prefix, linear]}\n  prefix.table: {fixed: embedding, when: {method: prefix}}\n"
            "  prefix.reparam: {choice: [true, false], when: {method: prefix}}\n"
            "  prefix.hidden: {int: [8, 16], when: {method: prefix}}\n",
            "",
            "params.prefix.hidden: it has no meaning with prefix.reparam false; add when: {prefix.reparam: true}",
        ),
        (
            "  method: {choice: [soft_moa, dense_moa]}\n  moa.expert: {choice: [bottleneck, conformer]}\n"
            "  moa.axis: {choice: [time, grid], when: {moa.expert: conformer}}\n",
            "",
            "params.moa.axis: it has no meaning for method 'soft_moa'; add when: {method: dense_moa}",
        ),
        (
            "  head.width: {int: [8, 16]}\n",
            "{method: linear}",
            "it has no meaning with head.kind 'linear'; leave it out, or give head.kind: projector",
        ),
        (
            "  method: {choice: [adapter]}\n  adapter.placement: {choice: [parallel, mixed]}\n"
            "  adapter.location: {choice: [ffn, both]}\n",
            "",
            "params.adapter.placement: adapter.placement 'mixed' is sequential at the attention",
        ),
        (
            "  method: {choice: [prefix]}\n  prefix.length: {int: [4, 30], default: 12}\n"
            "  prefix.split: {choice: [false, true]}\n",
            "",
            "params.prefix.length: prefix.length is 5, which does not split into as many keys as values",
        ),
        (
            "  method: {choice: [lora]}\n  lora.rank: {int: [4, 30]}\n",
            "{lora.reduction: 8}",
            "params.lora.rank: lora.rank and lora.reduction both set the rank",
        ),
        (
            "  method: {choice: [prompt, lora]}\n  pooling: {choice: [mean, prompts]}\n",
            "",
            "params.pooling: pooling 'prompts' needs prompts among the tokens, which method 'lora' does not give",
        ),
        (
            "  method: {choice: [prompt]}\n  pooling: {choice: [mean, cls+dist]}\n"
            "  prompt.insertion: {choice: [insert, replace_dist]}\n",
            "",
            "params.pooling: pooling 'cls+dist' needs the distillation token",
        ),
        (
            "  method: {choice: [adapter]}\n  adapter.order: {choice: [before, after]}\n"
            "  adapter.residual: {choice: [true, false]}\n  adapter.placement: {choice: [sequential, parallel]}\n",
            "",
            "params.adapter.residual: adapter.residual has no meaning with adapter.placement 'parallel' and",
        ),
        (
            "  method: {choice: [adapter, lora]}\n",
            "{adapter.block: conv, adapter.activation: relu}",
            "base.adapter.activation: it has no meaning with adapter.block 'conv'; leave it out",
        ),
    ],
)
def test_what_has_no_meaning_is_explained(params: str, base: str, said: str) -> None:
    with pytest.raises(SpaceError) as caught:
        _space(params, base)
    assert said in str(caught.value), str(caught.value)


def test_advice_is_good_advice() -> None:
    """What a message says to add makes the space sound."""
    text = "  method: {choice: [adapter, lora, adapter+lora]}\n" + _BLOCKS
    _space(text + "  adapter.kernel: {int: [3, 31], when: {adapter.block: [conformer, conv]}}\n")
    _space(text + "  lora.rank: {int: [2, 8], when: {method: [lora, adapter+lora]}}\n")


def test_fixed_options_stay_where_something_reads_them() -> None:
    text = "  method: {choice: [adapter, lora, adapter+lora]}\n" + _BLOCKS
    space = _space(text, "{adapter.kernel: 7, adapter.activation: relu, lora.rank: 4}")
    flat = space.flat(space.complete({"method": "adapter", "adapter.block": "conformer"}))
    assert flat == {"method": "adapter", "adapter.block": "conformer", "adapter.kernel": 7}
    assert "adapter.activation" in space.flat(space.complete({"method": "adapter+lora"}))
    assert "adapter.kernel" not in space.flat(space.complete({"method": "adapter+lora"}))
    assert space.flat(space.complete({"method": "lora"})) == {"method": "lora", "lora.rank": 4}


def test_a_clash_deep_in_a_large_space_is_found() -> None:
    """Far behind the first 500 ways in which conditions can fall out."""
    text = (_ROOT / "spaces" / "all.yaml").read_text()
    clash = "  prefix.split: {choice: [false, true], when: {method: adapter+prefix}}\n"
    wrong = text.replace("  partial.last:", f"{clash}  partial.last:")
    with pytest.raises(SpaceError, match=r"prefix\.length is 1, which does not split"):
        parse_space(wrong)


def test_large_spaces_are_read_fast() -> None:
    started = time.process_time()
    load_space(_ROOT / "spaces" / "all.yaml")
    assert time.process_time() - started < 2, "seconds; a third of one on an idle machine"


@settings(deadline=None, max_examples=40)
@given(spaces())
def test_values_that_can_stand_together_do(space: Space) -> None:
    """Covering pairs: each pair that some configuration has is in one of those that are looked at."""
    items = [(p.key, value) for p in space.params for value in p.domain.ends()]
    pairs = list(itertools.combinations(items, 2))
    covered = list(tree.covering(space.params, pairs))
    spread = {p.key: p.domain.ends() for p in space.params}
    for config in itertools.islice(tree.walk(space.params, spread), 300):
        for one, other in itertools.combinations(config.items(), 2):
            assert any(_has(found, one) and _has(found, other) for found in covered)
    for config in covered:
        assert space.complete(config) == config


def _has(params: Params, item: tuple[str, Any]) -> bool:
    return item[0] in params and params[item[0]] == item[1]


@settings(deadline=None, max_examples=40)
@given(spaces())
def test_small_spaces_are_walked_whole(space: Space) -> None:
    spread = tree.spreading(space.params)
    every = list(tree.walk(space.params, spread))
    assert len(every) > 500 or list(space.branches()) == every


def test_parameters_that_can_never_be_active() -> None:
    space = _space("  method: {choice: [soft_moa, lora]}\n  moa.experts: {int: [2, 4], when: {method: soft_moa}}\n")
    method, experts = space.params
    clashing = (Condition("method", ("lora",)), Condition("moa.experts", (3,)))
    lost = type(experts)("moa.slots", experts.domain, 2, clashing)
    assert tree.possible((method, experts, lost), "moa.experts")
    assert not tree.possible((method, experts, lost), "moa.slots")


def test_what_is_not_looked_at_is_said_and_judges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "  method: {choice: [lora, adapter]}\n" + _BLOCKS.replace(", adapter+lora", "")
    assert not _space(text, "{adapter.kernel: 7}").notes
    monkeypatch.setattr(combinations, "_MOST_TRIALS", 1)
    space = _space(text, "{adapter.kernel: 7}")
    assert [note for note in space.notes if "only the first 1 combinations of settings were checked" in note]
    with pytest.raises(SpaceError, match=r"base\.moa\.slots: it has no meaning for the methods of this space"):
        _space(text, "{moa.slots: 2}")


def test_norms_beside_full_fine_tuning() -> None:
    space = _space("  method: {choice: [full, lora]}\n", "{norms: none}")
    assert "norms" not in space.flat({"method": "full"}) and "norms" in space.flat({"method": "lora"})
    with pytest.raises(SpaceError, match=r"base\.norms: it has no meaning for the methods of this space \(full\)"):
        _space("  method: {choice: [full]}\n", "{norms: none}")
    with pytest.raises(SpaceError, match=r"norms: it has no meaning for method 'full'; add when: \{method: lora\}"):
        _space("  method: {choice: [full, lora]}\n  norms: {choice: [none, site]}\n")
