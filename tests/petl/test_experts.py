"""Mixtures of every kind of expert against loops over experts, tokens and slots in float64."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from petl import counts, plan
from petl.config import MethodConfig, MoaOptions
from petl.layout import Layout, Tokens
from petl.methods.dense_moa import DenseMoa
from petl.methods.soft_moa import SoftMoa
from petl.shape import BackboneShape
from tests.petl import by_hand
from tests.petl.by_hand import Batch, Clip, linear, total
from tests.petl.test_blocks import BATCHES, drawn, generator, layout_of, real

D, R, E, S = 12, 3, 2, 3
EXPERTS: list[dict[str, Any]] = [
    {"expert": "bottleneck"},
    {"expert": "convpass"},
    {"expert": "convpass", "kernel": 2},
    {"expert": "convpass", "legacy_discard_conv": True},
    {"expert": "conformer", "kernel": 3},
]


def name(value: Any) -> str:
    return "-".join(str(v) for v in value.values()) if isinstance(value, dict) else str(value)


def mixture(kind: Any, training: bool = False, hidden: int = D, **options: Any) -> Any:
    given = MoaOptions(**{"experts": E, "slots": S, "reduction": hidden / R, **options})
    module = by_hand.moved(kind(given, hidden, Tokens(0, 0), generator())).train(training)
    for inner in module.modules():
        if isinstance(inner, torch.nn.Dropout):
            inner.p = 0.0
    return module


def expert(experts: Any, i: int, axis: str) -> tuple[str, Any]:
    """Expert i as a block of its own: its kind, and the slices of the stacked tensors under the block's names."""

    def mine(vector: Tensor) -> Tensor:
        return vector.view(experts.experts, -1)[i]

    block = SimpleNamespace(
        activation="gelu",
        down=SimpleNamespace(weight=experts.down.weight[i], bias=mine(experts.down.bias)),
        up=SimpleNamespace(weight=experts.up.weight[i].T, bias=mine(experts.up.bias)),
    )
    if experts.core is None:
        return "bottleneck", block
    conv, kind = experts.core.conv, "convpass"
    core = SimpleNamespace(conv=None)
    if conv is not None:
        weight = conv.weight.unflatten(0, (experts.experts, -1))[i]
        core.conv = SimpleNamespace(weight=weight, bias=mine(conv.bias), axis=axis, groups=R // conv.weight.shape[1])
    if experts.norm is not None:
        kind = "conformer"
        block.norm = SimpleNamespace(weight=mine(experts.norm.weight), bias=mine(experts.norm.bias))
        norm = experts.core.batch_norm
        core.batch_norm = SimpleNamespace(
            training=norm.training,
            **{key: mine(getattr(norm, key)) for key in ("weight", "bias", "running_mean", "running_var")},
        )
    block.core = core
    return kind, block


def run(experts: Any, i: int, axis: str, xs: Batch, clips: list[Clip]) -> Batch:
    kind, block = expert(experts, i, axis)
    return by_hand.BLOCKS[kind](block, xs, clips)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("batch", ["grid", "prompts+frames"])
@pytest.mark.parametrize("options", EXPERTS, ids=name)
def test_dense_moa(options: dict[str, Any], batch: str, training: bool) -> None:
    clips, axes = BATCHES[batch]
    layout, x = layout_of(clips), drawn(len(clips), clips[0].tokens, D)
    for axis in axes:
        module = mixture(DenseMoa, training, axis=axis, **options)

        def ours(x: Tensor, module: Any = module) -> Tensor:
            return real(module(x, layout), clips)

        def formula(x: Tensor, module: Any = module, axis: str = axis) -> Tensor:
            parts = [run(module.experts, i, axis, list(x), clips) for i in range(E)]
            out = []
            for b, clip in enumerate(x):
                gates = torch.exp(linear(clip, module.router.weight, module.router.bias))
                gates = gates / gates.sum(-1, keepdim=True)
                out.append(total(gates[:, i : i + 1] * parts[i][b] for i in range(E)))
            return real(torch.stack(out), clips)

        by_hand.compare(module, ours, formula, x)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("normalize", ["none", "soft_moe", "published"])
@pytest.mark.parametrize("batch", ["grid", "frames"])
@pytest.mark.parametrize("options", EXPERTS, ids=name)
def test_soft_moa(options: dict[str, Any], batch: str, normalize: str, training: bool) -> None:
    clips, _ = BATCHES[batch]
    layout, x = layout_of(clips), drawn(len(clips), clips[0].tokens, D)
    module = mixture(SoftMoa, training, normalize=normalize, **options)

    def formula(x: Tensor) -> Tensor:
        phi, routed = module.phi, x
        if normalize != "none":
            routed = x / (x.square().sum(-1, keepdim=True).sqrt() + 1e-6)
            axis = {"soft_moe": 0, "published": 1}[normalize]
            phi = module.scale * phi / (phi.square().sum(axis, keepdim=True).sqrt() + 1e-6)
        slotted = routed if normalize == "published" else x
        logits = [torch.einsum("nd,des->nes", clip, phi) for clip in routed]
        filled = []  # per expert, per clip (S, D)
        for i in range(E):
            slots = []
            for b, clip in enumerate(clips):
                rows = []
                for j in range(S):
                    weights = {n: logits[b][n, i, j].exp() for n in clip.all_valid()}
                    norm = total(weights.values())
                    rows.append(total(weights[n] / norm * slotted[b, n] for n in weights))
                slots.append(torch.stack(rows))
            filled.append(run(module.experts, i, "time", slots, [Clip(0, (1, S))] * len(clips)))
        out = []
        for b in range(len(clips)):
            combine = logits[b].exp()
            combine = combine / combine.sum((1, 2), keepdim=True)
            out.append(total(combine[:, i, j : j + 1] * filled[i][b][j] for i in range(E) for j in range(S)))
        return real(torch.stack(out), clips)

    by_hand.compare(module, lambda x: real(module(x, layout), clips), formula, x)


@pytest.mark.parametrize("kind", [DenseMoa, SoftMoa])
@pytest.mark.parametrize("options", EXPERTS, ids=name)
def test_padding_changes_nothing(kind: Any, options: dict[str, Any]) -> None:
    for training in (False, True):
        module = mixture(kind, training, **options)
        x = drawn(1, 7, D)
        alone = module(x, Layout(0, 2, 5, (1, 5)))
        padded = torch.cat([x, 1e3 * drawn(1, 3, D)], dim=1)
        mask = torch.arange(8).unsqueeze(0) < 5
        module = mixture(kind, training, **options)  # with the same running statistics
        out = module(padded, Layout(0, 2, 8, (1, 8), mask))[:, :7]
        torch.testing.assert_close(out, alone, rtol=1e-9, atol=1e-10)


def test_a_clip_that_is_padding_alone_stays_finite() -> None:
    module = mixture(SoftMoa)
    layout = Layout(0, 0, 4, (1, 4), torch.tensor([[True] * 4, [False] * 4]))
    assert torch.isfinite(module(drawn(2, 4, D), layout)).all()


@pytest.mark.parametrize("kind", [DenseMoa, SoftMoa])
@pytest.mark.parametrize("options", EXPERTS, ids=name)
def test_every_parameter_trains(kind: Any, options: dict[str, Any]) -> None:
    module = mixture(kind, **options)
    module(drawn(2, 7, D), Layout.sequence(7)).square().sum().backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("kind", [DenseMoa, SoftMoa])
@pytest.mark.parametrize("options", EXPERTS, ids=name)
def test_start(kind: Any, options: dict[str, Any]) -> None:
    """Zero at the start but for conformers; drawn from the generator alone, experts apart from one another."""
    given = MoaOptions(experts=E, slots=S, reduction=D / R, **options)
    before = torch.get_rng_state()
    module = kind(given, D, Tokens(0, 0), generator()).eval()
    assert torch.equal(torch.get_rng_state(), before)
    out = module(drawn(2, 7, D).float(), Layout.sequence(7))
    assert bool((out == 0).all()) == (options["expert"] != "conformer")
    assert not torch.equal(module.experts.down.weight[0], module.experts.down.weight[1])


@pytest.mark.parametrize("method", ["dense_moa", "soft_moa"])
@pytest.mark.parametrize("axis", ["time", "grid"])
@pytest.mark.parametrize("options", EXPERTS, ids=name)
def test_counts(method: str, axis: Any, options: dict[str, Any]) -> None:
    given = MoaOptions(experts=3, slots=2, axis=axis, normalize="soft_moe", **options)
    config = MethodConfig(method=method, moa=given, norms="none")
    kind: Any = {"dense_moa": DenseMoa, "soft_moa": SoftMoa}[method]
    module = kind(given, 768, Tokens(0, 0), generator())
    found = sum(p.numel() for p in module.parameters())
    assert 12 * found == counts.trainable_parameters(config, BackboneShape())


def test_published_soft_moa_of_convpass() -> None:
    """Two experts of two slots at both sites of AST-base, with their LayerNorms: 595,608."""
    given = MoaOptions(experts=2, slots=2, expert="convpass", normalize="published", location="both")
    one = SoftMoa(given, 768, Tokens(0, 0), generator())
    sites = len(plan.moa_sites(given))
    assert 12 * sites * (sum(p.numel() for p in one.parameters()) + 2 * 768) == 595_608


def test_convpass_experts_drop_at_the_published_rate() -> None:
    options = MoaOptions(experts=E, slots=S, reduction=D / R, expert="convpass")
    module: Any = by_hand.moved(DenseMoa(options, D, Tokens(0, 0), generator())).train()
    assert module.experts.core.dropout.p == 0.1
    x = drawn(2, 7, D)
    assert not torch.equal(module(x, Layout.sequence(7)), module(x, Layout.sequence(7)))
    module.eval()
    assert torch.equal(module(x, Layout.sequence(7)), module(x, Layout.sequence(7)))


@pytest.mark.parametrize("kind", [DenseMoa, SoftMoa])
@pytest.mark.parametrize("options", EXPERTS, ids=name)
def test_half_precision(kind: Any, options: dict[str, Any]) -> None:
    module, x = mixture(kind, True, normalize="soft_moe", **options).float(), drawn(2, 14, D).float()
    layout = layout_of(BATCHES["grid"][0])
    exact = module(x, layout)
    with torch.autocast("cpu", torch.bfloat16):
        near = module(x, layout)
        near.float().square().sum().backward()
    torch.testing.assert_close(near.float(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


def test_compiles_without_graph_breaks() -> None:
    torch._dynamo.reset()
    module = mixture(SoftMoa, expert="convpass", normalize="soft_moe")
    x, layout = drawn(2, 7, D), Layout.sequence(7)
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x, layout), module(x, layout))
