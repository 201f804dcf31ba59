"""What every method must do on every family, one test per behaviour, over the table of cases."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from petl import Adapted, attach, trainable_parameters
from tests.petl.models import (
    CASES,
    CORE,
    HIDDEN,
    MODELS,
    PAIRS,
    SAMPLES,
    Case,
    TinyModel,
    adapted_tiny,
    bits,
    inputs,
    tiny_backbone,
    trained,
)


def _pairs(pairs: list[tuple[TinyModel, Case]]) -> Any:
    return pytest.mark.parametrize(("model", "case"), pairs, ids=str)


every_pair = _pairs(PAIRS)
core_first = pytest.mark.parametrize(
    ("model", "case"),
    [pytest.param(m, c, marks=[] if c in CORE else [pytest.mark.slow], id=f"{m}-{c}") for m, c in PAIRS],
)
"""Behaviours that hang on the kind of method: the options of each kind run with the slow tests."""
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def adapted_model(model: TinyModel, case: Case, seed: int = 3, backbone: nn.Module | None = None) -> Adapted:
    return attach(backbone if backbone is not None else model.build(), case.flat, seed=seed)


def hidden(model: Any, x: Tensor, **kwargs: Any) -> Tensor:
    return model(x, **kwargs).last_hidden_state


def length(model: TinyModel, case: Case) -> int:
    """Tokens that should come out."""
    method, tokens = case.method, model.shape.tokens(model.inputs().shape[1] if model.shape.samples else None)
    if "prompt" in method.methods and method.prompt.insertion != "overwrite":
        tokens += method.prompt.length - (method.prompt.insertion == "replace_dist")
    return tokens


@every_pair
def test_calls_and_returns_what_the_backbone_does(model: TinyModel, case: Case) -> None:
    adapted = adapted_model(model, case).eval()
    x = model.inputs()
    out = adapted(x)
    assert type(out) is type(model.build()(x))
    assert out.last_hidden_state.shape == (2, length(model, case), HIDDEN)
    assert torch.isfinite(out.last_hidden_state).all()
    layout = adapted.layout
    assert layout.special + layout.prompts + layout.body == out.last_hidden_state.shape[1]
    assert torch.equal(hidden(adapted, x), out.last_hidden_state)
    assert hidden(adapted, model.inputs(batch=1)).shape[0] == 1


@every_pair
def test_starts_as_the_frozen_backbone(model: TinyModel, case: Case) -> None:
    """To the last bit, in evaluation mode and while training."""
    x = model.inputs()
    adapted = adapted_model(model, case)
    frozen = model.build().requires_grad_(False)
    if model.kind == "WavLM":
        # torch multiplies its permuted gate inputs in another order when their weight wants a gradient.
        for name, p in frozen.named_parameters():
            p.requires_grad_(name in adapted.trainable())
    before = hidden(frozen, x)
    after = hidden(adapted.eval(), x)
    same = before.shape == after.shape and torch.equal(before, after)
    assert same == case.identity
    if case.identity and case.method.frozen_eval:
        assert torch.equal(before, hidden(adapted.train(), x))


@every_pair
def test_every_trainable_parameter_gets_a_gradient(model: TinyModel, case: Case) -> None:
    adapted = adapted_model(model, case).train()
    if not case.method.frozen_eval:
        adapted.eval()  # LayerDrop may leave out a layer in a single step
    hidden(adapted, model.inputs()).square().mean().backward()
    assert adapted.trainable()
    for name, p in adapted.trainable().items():
        assert torch.isfinite(p).all(), name
        assert p.grad is not None and torch.isfinite(p.grad).all(), name


@every_pair
def test_no_gradient_stays_zero_once_training_moves(model: TinyModel, case: Case) -> None:
    dead: set[str] | None = None
    for seed in range(2, 20):  # the one ReLU of a narrow gate may be shut for two clips, but not for all
        adapted = trained(adapted_model(model, case), seed).eval()
        out = hidden(adapted, model.inputs(seed=seed))
        (out * torch.randn(out.shape[1:], generator=torch.Generator().manual_seed(seed))).sum().backward()
        zero = {n for n, p in adapted.trainable().items() if p.grad is None or not p.grad.any()}
        dead = zero if dead is None else dead & zero
        if not dead:
            break
    assert dead is not None
    allowed = {n for n in dead if case.flat.get("moa.experts") == 1 and ".router." in n}  # softmax of one is 1
    allowed |= {n for n in dead if n.endswith("k_proj.bias")}  # softmax does not see what all keys have in common
    assert dead == allowed


@every_pair
def test_the_backbone_is_frozen_and_comes_back(model: TinyModel, case: Case) -> None:
    """Attach, train, detach: the very same bits, modules, hooks, flags, modes and configuration."""
    backbone = model.build()
    backbone.train()
    first = next(iter(backbone.children()))
    first.eval()
    first.requires_grad_(False)
    before, modules = bits(backbone), dict(backbone.named_modules())
    parameters = dict(backbone.named_parameters())
    flags = {n: p.requires_grad for n, p in backbone.named_parameters()}
    modes = {n: m.training for n, m in backbone.named_modules()}
    attributes = {n: set(vars(m)) for n, m in backbone.named_modules()}
    config, implementation = backbone.config.to_dict(), backbone.config._attn_implementation

    adapted = adapted_model(model, case, backbone=backbone)
    training = {id(p) for p in adapted.parameters() if p.requires_grad}
    assert training == {id(p) for p in adapted.trainable().values()}
    optimiser = torch.optim.AdamW(adapted.trainable().values(), lr=0.01)
    torch.manual_seed(0)
    for _ in range(2):
        hidden(adapted.train(), model.inputs()).square().mean().backward()
        optimiser.step()
    state = adapted.original_state()
    assert all(torch.equal(before[name], state[name]) for name in before)
    assert adapted.detach() is backbone

    assert dict(backbone.named_modules()) == modules
    after = bits(backbone)
    assert after.keys() == before.keys() and all(torch.equal(before[n], after[n]) for n in before)
    assert all(p is parameters[n] for n, p in backbone.named_parameters())
    assert {n: p.requires_grad for n, p in backbone.named_parameters()} == flags
    assert {n: m.training for n, m in backbone.named_modules()} == modes
    assert {n: set(vars(m)) for n, m in backbone.named_modules()} == attributes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.modules())
    assert all(p.grad is None for p in backbone.parameters())
    assert (backbone.config.to_dict(), backbone.config._attn_implementation) == (config, implementation)
    x = model.inputs()
    assert torch.equal(hidden(backbone.eval(), x), hidden(model.build(), x))
    attach(backbone, {"method": "linear"})  # and it takes another method


@every_pair
def test_counts_in_closed_form(model: TinyModel, case: Case) -> None:
    real = sum(p.numel() for p in adapted_model(model, case).trainable().values())
    assert trainable_parameters(case.method, model.shape) == real


@core_first
def test_state_goes_round(model: TinyModel, case: Case) -> None:
    one = trained(adapted_model(model, case)).train()
    x = model.inputs()
    hidden(one, x)  # moves running statistics, where there are any
    other = adapted_model(model, case, seed=9).eval()
    other.load_adapter_state(one.adapter_state())
    assert torch.equal(hidden(one.eval(), x), hidden(other, x))


@core_first
def test_only_what_is_added_changes_mode(model: TinyModel, case: Case) -> None:
    adapted = adapted_model(model, case).train()
    assert all(m.training for m in adapted.added.modules())
    if case.method.frozen_eval:
        assert not any(m.training for m in adapted.backbone.modules())
    else:
        assert all(m.training != isinstance(m, nn.BatchNorm1d) for m in adapted.backbone.modules())
    adapted.eval()
    assert not any(m.training for m in adapted.modules())


@core_first
def test_initial_values_depend_on_the_seed_alone(model: TinyModel, case: Case) -> None:
    backbone = model.build()
    torch.manual_seed(1)
    one = adapted_model(model, case, seed=5, backbone=backbone).adapter_state()
    torch.manual_seed(2)
    twin = model.build()
    before = torch.get_rng_state()
    two = adapted_model(model, case, seed=5, backbone=twin).adapter_state()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = adapted_model(model, case, seed=6).adapter_state()
    drawn = any(not torch.equal(one[name], other[name]) for name in one)
    only_copies = set(case.method.methods) <= {"linear", "full", "partial", "bitfit"}
    assert drawn != only_copies


@core_first
def test_a_deep_copy_is_wired_to_itself(model: TinyModel, case: Case) -> None:
    adapted = trained(adapted_model(model, case)).eval()
    x = model.inputs()
    before = hidden(adapted, x).detach()
    twin = copy.deepcopy(adapted)
    assert torch.equal(hidden(twin, x), before)
    trained(twin)
    assert torch.equal(hidden(adapted, x), before)
    assert not torch.equal(hidden(twin, x), before)
    twin.detach()
    assert torch.equal(hidden(adapted, x), before)


@core_first
def test_bfloat16_autocast(model: TinyModel, case: Case) -> None:
    x = model.inputs()
    adapted = adapted_model(model, case)
    with torch.autocast("cpu", torch.bfloat16):
        out = hidden(adapted.eval(), x)
        frozen = hidden(model.build().requires_grad_(False), x)
        assert torch.isfinite(out).all()
        assert torch.equal(out, frozen) or not case.identity or model.kind == "WavLM"
        moved = hidden(trained(adapted).train() if case.method.frozen_eval else trained(adapted), x)
        moved.float().square().mean().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in adapted.trainable().values())


@core_first
def test_gradient_checkpointing_changes_nothing(model: TinyModel, case: Case) -> None:
    found = []
    for checkpointed in (False, True):
        adapted = trained(adapted_model(model, case))
        adapted.gradient_checkpointing(checkpointed)
        adapted.train(case.method.frozen_eval)
        torch.manual_seed(4)  # dropout of the added modules
        one, two = hidden(adapted, model.inputs()), hidden(adapted, model.inputs(batch=1, seed=5))
        (one.square().mean() + two.square().mean()).backward()  # the first layout is long gone by now
        grads = {name: p.grad for name, p in adapted.trainable().items()}
        found.append((grads, dict(adapted.added.named_buffers())))
        adapted.detach()
    (plain, statistics), (saving, kept) = found
    for name, gradient in plain.items():
        again = saving[name]
        assert gradient is not None and again is not None
        assert torch.equal(gradient, again), name
    assert all(torch.equal(statistics[name], kept[name]) for name in statistics)


@_pairs([(m, c) for m, c in PAIRS if m.masked])
def test_a_clip_does_not_depend_on_what_it_is_batched_with(model: TinyModel, case: Case) -> None:
    adapted = trained(adapted_model(model, case).double()).eval()
    short, long = model.inputs(batch=1, seed=2).double()[:, : SAMPLES // 2], model.inputs(batch=1, seed=3).double()
    alone = hidden(adapted, short, attention_mask=torch.ones(1, short.shape[1], dtype=torch.long))
    for filler in (0.0, 100.0):  # what stands in the padding is nobody's business beyond the convolutions' reach
        batch, mask = torch.full((2, long.shape[1]), 0.0).double(), torch.zeros(2, long.shape[1], dtype=torch.long)
        batch[0], mask[0] = long[0], 1
        batch[1, : short.shape[1]], mask[1, : short.shape[1]] = short[0], 1
        batch[1, short.shape[1] + 16 :] = filler
        out = hidden(adapted, batch, attention_mask=mask)[1:, : alone.shape[1]]
        torch.testing.assert_close(out, alone, rtol=1e-9, atol=1e-9)
    assert torch.equal(adapted.layout.mask_BT.sum(1), torch.tensor([long_frames(model), alone.shape[1] - front(case)]))  # type: ignore[union-attr]


def long_frames(model: TinyModel) -> int:
    return model.shape.tokens(SAMPLES)


def front(case: Case) -> int:
    prompts = "prompt" in case.method.methods and case.method.prompt.insertion != "overwrite"
    return case.method.prompt.length if prompts else 0


@pytest.mark.parametrize("model", [m for m in MODELS if m.kind not in ("AST", "Whisper")], ids=str)
def test_the_backbone_trains_in_train_mode_when_asked(model: TinyModel) -> None:
    flat = {"method": "lora", "lora.rank": 2, "backbone_mode": "train"}
    adapted = attach(model.build(), flat, seed=0).train()
    assert all(m.training != isinstance(m, nn.BatchNorm1d) for m in adapted.backbone.modules())
    x = model.inputs()
    assert not torch.equal(hidden(adapted, x), hidden(adapted, x))
    assert torch.equal(hidden(adapted.eval(), x), hidden(adapted, x))
    still = attach(model.build(), {"method": "full", "backbone_mode": "eval"}, seed=0).train()
    assert not any(m.training for m in still.backbone.modules())


# -- what only an AST is asked for -----------------------------------------------------------------------------


@every_case
def test_recorded_hidden_states_are_the_adapted_ones(case: Case) -> None:
    adapted = trained(adapted_tiny(case)).eval()
    out = adapted(inputs(), output_hidden_states=True)
    last = adapted.backbone.layernorm(out.hidden_states[-1])
    assert torch.equal(last, out.last_hidden_state)
    assert torch.equal(adapted(input_values=inputs()).last_hidden_state, out.last_hidden_state)


COMPILED = [c for c in CASES if c.method.methods[0] not in ("linear", "full", "partial", "bitfit")]


@pytest.mark.slow
@pytest.mark.parametrize("case", COMPILED, ids=str)
def test_compiles_without_graph_breaks(case: Case) -> None:
    torch._dynamo.reset()
    adapted = trained(adapted_tiny(case)).eval()
    x = inputs()
    plain = hidden(adapted, x)
    compiled = torch.compile(adapted, fullgraph=True, backend="aot_eager")
    out = hidden(compiled, x)
    torch.testing.assert_close(out, plain, rtol=1e-5, atol=1e-5)
    out.square().mean().backward()
    assert all(p.grad is not None for p in adapted.trainable().values())


@pytest.mark.slow  # inductor needs a C++ compiler and its time
@pytest.mark.parametrize("flat", [{"method": "soft_moa", "moa.reduction": 8.0}], ids=str)
def test_compiles_for_real(flat: dict[str, Any]) -> None:
    """With the default backend, which generates code."""
    torch._dynamo.reset()
    adapted = trained(attach(tiny_backbone(), flat, seed=0)).eval()
    x = inputs()
    out = hidden(torch.compile(adapted, fullgraph=True), x)
    torch.testing.assert_close(out, hidden(adapted, x), rtol=1e-5, atol=1e-5)


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
