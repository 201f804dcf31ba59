"""LoRA beyond what every method does: dropout, merging into the weights, shared pairs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from petl import UserError, attach
from tests.petl.models import AST_TINY, MODELS, TinyModel, bits, inputs, tiny_backbone, trained

ALL = {"method": "lora", "lora.rank": 3, "lora.targets": "q,k,v,o,fc1,fc2", "lora.dropout": 0.3}


def test_dropout_acts_in_training_only() -> None:
    adapted = trained(attach(tiny_backbone(), ALL, seed=0))
    x_BTM = inputs()
    assert torch.equal(adapted.eval()(x_BTM).last_hidden_state, adapted(x_BTM).last_hidden_state)
    adapted.train()
    assert not torch.equal(adapted(x_BTM).last_hidden_state, adapted(x_BTM).last_hidden_state)


@pytest.mark.parametrize("model", MODELS, ids=str)
@pytest.mark.parametrize(
    "flat",
    [
        ALL,
        {**ALL, "lora.shared": True},
        {"method": "adapter+lora", "adapter.width": 4, "lora.rank": 2},
        {"method": "partial+lora", "partial.last": 2, "lora.rank": 2},
        {
            "method": "adapter+lora",
            "adapter.width": 4,
            "adapter.placement": "sequential",
            "adapter.init": "published",
            "lora.targets": "fc1,fc2",
        },
    ],
    ids=["all", "shared", "with an adapter", "on trained weights", "inside an adapted block"],
)
def test_merging_changes_nothing_but_the_cost(model: TinyModel, flat: dict[str, Any]) -> None:
    backbone = model.build().double()
    before = bits(backbone)
    adapted = trained(attach(backbone, flat, seed=0)).eval()
    x = model.inputs().double()
    plain = adapted(x).last_hidden_state
    stored = adapted.adapter_state()
    assert adapted.merge() is adapted and adapted.merged
    torch.testing.assert_close(adapted(x).last_hidden_state, plain, rtol=1e-9, atol=1e-9)
    changed = f"{adapted.family.projection(0, adapted.method.lora.target_names[-1])}.weight"
    assert not torch.equal(bits(backbone)[changed], before[changed])
    assert all(torch.equal(t, before[n]) for n, t in adapted.original_state().items() if n in before)
    assert all(torch.equal(stored[n], t) for n, t in adapted.adapter_state().items())
    twin = copy.deepcopy(adapted)
    assert not adapted.train().merged  # as training needs
    assert torch.equal(adapted.eval()(x).last_hidden_state, plain)
    assert torch.equal(adapted.merge().unmerge()(x).last_hidden_state, plain)
    moved = {name: tensor + 0.1 for name, tensor in stored.items()}
    adapted.merge().load_adapter_state(moved)
    assert adapted.merged
    wanted = attach(model.build().double(), flat, seed=1).eval()
    wanted.load_adapter_state(moved)
    torch.testing.assert_close(adapted(x).last_hidden_state, wanted(x).last_hidden_state, rtol=1e-9, atol=1e-9)
    adapted.merge().detach()
    assert all(torch.equal(before[n], t) for n, t in backbone.state_dict().items())
    assert torch.equal(twin.unmerge()(x).last_hidden_state, plain)  # and its copy was on its own


def test_merging_needs_updates() -> None:
    with pytest.raises(UserError, match="no LoRA updates"):
        attach(tiny_backbone(), {"method": "linear"}).merge()


def test_a_shared_pair_is_one_pair() -> None:
    """As the published code once had it: one A, B for q and k."""
    flat = {"method": "lora", "lora.rank": 3, "lora.targets": "q,k", "lora.shared": True, "norms": "none"}
    adapted = trained(attach(tiny_backbone(), flat, seed=0)).eval()
    assert {name.partition(".attention.")[2] for name in adapted.trainable()} == {
        "q_proj.lora_A.weight",
        "q_proj.lora_B.weight",
    }
    x_BTM = AST_TINY.inputs()
    shared = adapted(x_BTM).last_hidden_state
    state = adapted.adapter_state()
    apart = attach(tiny_backbone(), {k: v for k, v in flat.items() if k != "lora.shared"}, seed=1).eval()
    apart.load_adapter_state({**state, **{name.replace("q_proj", "k_proj"): tensor for name, tensor in state.items()}})
    assert torch.equal(apart(x_BTM).last_hidden_state, shared)
