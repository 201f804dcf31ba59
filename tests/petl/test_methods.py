"""What every method must do, one test per behaviour, over the table of cases."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from petl import attach, trainable_parameters
from tests.petl.models import (
    CASES,
    HIDDEN,
    TINY_SHAPE,
    Case,
    adapted_tiny,
    bits,
    inputs,
    tiny_backbone,
    trained,
)

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
def test_calls_and_returns_what_the_backbone_does(case: Case) -> None:
    adapted = adapted_tiny(case)
    x_BTM = inputs()
    out = adapted(x_BTM)
    tokens = TINY_SHAPE.tokens()
    assert out.last_hidden_state.shape == (2, tokens, HIDDEN)
    assert out.pooler_output.shape == (2, HIDDEN)
    assert torch.isfinite(out.last_hidden_state).all()
    assert torch.equal(adapted(input_values=x_BTM).last_hidden_state, out.last_hidden_state)


@every_case
def test_starts_as_the_frozen_backbone(case: Case) -> None:
    x_BTM = inputs()
    before = tiny_backbone()(x_BTM).last_hidden_state
    after = adapted_tiny(case)(x_BTM).last_hidden_state
    assert torch.equal(before, after) == case.identity


@every_case
def test_every_trainable_parameter_gets_a_gradient_from_the_start(case: Case) -> None:
    adapted = adapted_tiny(case)
    adapted(inputs()).last_hidden_state.square().mean().backward()
    for name, p in adapted.trainable().items():
        assert torch.isfinite(p).all(), name
        assert p.grad is not None and torch.isfinite(p.grad).all(), name


@every_case
def test_no_gradient_stays_zero_once_training_moves(case: Case) -> None:
    adapted = trained(adapted_tiny(case))
    (adapted(inputs()).last_hidden_state * torch.randn(HIDDEN)).sum().backward()
    dead = {n for n, p in adapted.trainable().items() if p.grad is None or not p.grad.any()}
    # With one expert the router's softmax is the constant 1, so its parameters cannot matter.
    allowed = {n for n in dead if ".router." in n} if case.flat.get("moa.experts") == 1 else set()
    assert dead == allowed


@every_case
def test_the_backbone_is_frozen(case: Case) -> None:
    adapted = adapted_tiny(case)
    training = {id(p) for p in adapted.parameters() if p.requires_grad}
    assert training == {id(p) for p in adapted.trainable().values()}
    originals = bits(tiny_backbone())
    optimiser = torch.optim.AdamW(adapted.trainable().values(), lr=0.01)
    for _ in range(2):
        adapted.train()(inputs()).last_hidden_state.square().mean().backward()
        optimiser.step()
    state = adapted.original_state()
    assert state.keys() == originals.keys()
    assert all(torch.equal(originals[name], state[name]) for name in originals)


@every_case
def test_counts_in_closed_form(case: Case) -> None:
    real = sum(p.numel() for p in adapted_tiny(case).trainable().values())
    assert trainable_parameters(case.method, TINY_SHAPE) == real
    assert trainable_parameters(case.method, TINY_SHAPE, 5) == real + 5 * HIDDEN + 5


@every_case
def test_state_goes_round(case: Case) -> None:
    one = trained(adapted_tiny(case))
    other = adapted_tiny(case, seed=9)
    other.load_adapter_state(one.adapter_state())
    x_BTM = inputs()
    assert torch.equal(one(x_BTM).last_hidden_state, other(x_BTM).last_hidden_state)


@every_case
def test_detach_gives_back_the_very_same_backbone(case: Case) -> None:
    backbone = tiny_backbone()
    backbone.train()
    backbone.layers[0].eval()
    backbone.embeddings.requires_grad_(False)
    before, modules = bits(backbone), dict(backbone.named_modules())
    flags = {n: p.requires_grad for n, p in backbone.named_parameters()}
    modes = {n: m.training for n, m in backbone.named_modules()}

    adapted = trained(attach(backbone, case.flat, seed=0))
    adapted(inputs()).last_hidden_state.sum().backward()
    assert adapted.detach() is backbone

    assert dict(backbone.named_modules()) == modules
    after = bits(backbone)
    assert after.keys() == before.keys() and all(torch.equal(before[n], after[n]) for n in before)
    assert {n: p.requires_grad for n, p in backbone.named_parameters()} == flags
    assert {n: m.training for n, m in backbone.named_modules()} == modes
    assert not any(m._forward_hooks for m in backbone.modules())
    assert all(p.grad is None for p in backbone.parameters())
    assert torch.equal(backbone.eval()(inputs()).last_hidden_state, tiny_backbone()(inputs()).last_hidden_state)
    attach(backbone, {"method": "linear"})  # and it takes another method


@every_case
def test_only_the_added_modules_change_mode(case: Case) -> None:
    adapted = adapted_tiny(case).train()
    trained_norms = set(adapted.added.modules())
    assert all(m.training for m in adapted.added.modules())
    assert not any(m.training for m in adapted.backbone.modules() if m not in trained_norms)
    adapted.eval()
    assert not any(m.training for m in adapted.modules())


@every_case
def test_initial_values_depend_on_the_seed_alone(case: Case) -> None:
    torch.manual_seed(1)
    one = adapted_tiny(case, seed=5).adapter_state()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    two = adapted_tiny(case, seed=5).adapter_state()
    other = adapted_tiny(case, seed=6).adapter_state()
    assert all(torch.equal(one[name], two[name]) for name in one)
    drawn_names = [n for n in one if n.endswith(("down.weight", "lora_A.weight", "phi", "router.weight"))]
    assert all(not torch.equal(one[name], other[name]) for name in drawn_names)
    assert bool(drawn_names) == (case.flat["method"] != "linear")
    # Building the tiny backbone draws from the global generator; attaching must not.
    backbone = tiny_backbone()
    before = torch.get_rng_state()
    attach(backbone, case.flat, seed=5)
    assert torch.equal(before, torch.get_rng_state())


@every_case
def test_a_deep_copy_is_wired_to_itself(case: Case) -> None:
    adapted = trained(adapted_tiny(case))
    x_BTM = inputs()
    before = adapted(x_BTM).last_hidden_state
    twin = copy.deepcopy(adapted)
    assert torch.equal(twin(x_BTM).last_hidden_state, before)
    trained(twin)
    assert torch.equal(adapted(x_BTM).last_hidden_state, before)
    assert not torch.equal(twin(x_BTM).last_hidden_state, before)
    twin.detach()
    assert torch.equal(adapted(x_BTM).last_hidden_state, before)


@every_case
def test_recorded_hidden_states_are_the_adapted_ones(case: Case) -> None:
    adapted = trained(adapted_tiny(case))
    out = adapted(inputs(), output_hidden_states=True)
    last = adapted.backbone.layernorm(out.hidden_states[-1])
    assert torch.equal(last, out.last_hidden_state)


@pytest.mark.parametrize("method", ["dense_moa", "soft_moa"])
@pytest.mark.parametrize("normalize", ["none", "soft_moe", "published"])
def test_a_mixture_trains_and_its_experts_part(method: str, normalize: str) -> None:
    """Zero up-projections everywhere are a start, not a trap."""
    flat = {"method": method, "moa.experts": 3, "moa.reduction": 8, "norms": "none"}
    if method == "soft_moa":
        flat["moa.normalize"] = normalize
    elif normalize != "none":
        pytest.skip("Dense-MoA has no normalisation")
    adapted = attach(tiny_backbone(), flat, seed=0)
    x_BTM, target = inputs(8), torch.randn(8, HIDDEN, generator=torch.Generator().manual_seed(4))
    optimiser = torch.optim.AdamW(adapted.trainable().values(), lr=1e-2)
    start = adapted.adapter_state()
    losses = []
    for _ in range(30):
        loss = functional.mse_loss(adapted(x_BTM).last_hidden_state.mean(1), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    for name, p in adapted.trainable().items():
        assert not torch.equal(start[name], p), name
        if name.endswith("up.weight"):
            gaps = torch.pdist(p.detach().flatten(1))
            assert gaps.min() > 0.05 * p.detach().norm() / p.shape[0], name


def test_lora_dropout_acts_in_training_only() -> None:
    case = Case({"method": "lora", "lora.rank": 4, "lora.dropout": 0.5})
    adapted = trained(adapted_tiny(case))
    x_BTM = inputs()
    assert torch.equal(adapted.eval()(x_BTM).last_hidden_state, adapted(x_BTM).last_hidden_state)
    adapted.train()
    assert not torch.equal(adapted(x_BTM).last_hidden_state, adapted(x_BTM).last_hidden_state)


def test_works_in_bfloat16_autocast() -> None:
    for case in CASES:
        adapted = adapted_tiny(case)
        with torch.autocast("cpu", torch.bfloat16):
            out = adapted(inputs()).last_hidden_state
        assert torch.isfinite(out).all()
        with torch.autocast("cpu", torch.bfloat16):
            frozen = tiny_backbone()(inputs()).last_hidden_state
        assert torch.equal(out, frozen) or not case.identity, str(case)


def test_gradient_checkpointing_changes_nothing() -> None:
    for case in CASES:
        plain, saving = trained(adapted_tiny(case)), trained(adapted_tiny(case))
        saving.backbone.activation_checkpointing_enable({"use_reentrant": False})
        for layer in saving.backbone.layers:
            layer.training = True  # the switch transformers looks at; nothing else in an AST layer does
        for model in (plain, saving):
            model(inputs()).last_hidden_state.square().mean().backward()
        for (name, a), b in zip(plain.trainable().items(), saving.trainable().values(), strict=True):
            assert a.grad is not None and b.grad is not None
            assert torch.equal(a.grad, b.grad), (str(case), name)
