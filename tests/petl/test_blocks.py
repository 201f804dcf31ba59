"""The adapter blocks against their formulas in float64, over every layout of tokens; padding, draws, counts."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from petl import counts, plan
from petl.config import AdapterOptions
from petl.layout import Layout, Tokens
from petl.methods.blocks import adapter_block
from tests.petl import by_hand
from tests.petl.by_hand import Clip

D = 48  # wide enough for a gate of several units
TOKENS = Tokens(0, 0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def block(hidden: int = D, **options: Any) -> Any:
    return adapter_block(AdapterOptions(**options), hidden, TOKENS, generator())


KINDS: list[dict[str, Any]] = [
    {"block": "bottleneck", "width": 5},
    {"block": "bottleneck", "width": 5, "activation": "relu", "init": "published"},
    {"block": "conformer", "width": 5, "kernel": 5},
    {"block": "conformer", "width": 1, "kernel": 4, "layernorm": False},
    {"block": "convpass", "width": 4},
    {"block": "convpass", "width": 4, "kernel": 2},
    {"block": "convpass", "width": 4, "legacy_discard_conv": True},
    {"block": "conv"},
    {"block": "conv", "width": 4, "kernel": 4},
    {"block": "conv", "width": 48, "kernel": 0, "gate": False},
    {"block": "tiny_attention"},
    {"block": "tiny_external_attention", "width": 3},
    {"block": "tiny_conformer", "width": 6},
    {"block": "tiny_conformer", "width": 5},
]


def name(value: Any) -> str:
    return (
        "-".join(f"{k}={v}" if k != "block" else v for k, v in value.items()) if isinstance(value, dict) else str(value)
    )


def convolves(options: dict[str, Any]) -> bool:
    return options["block"] in ("conformer", "convpass", "conv", "tiny_conformer")


GRID = [Clip(2, (3, 4))] * 2
PROMPTED = [Clip(5, (2, 5))] * 2
FRAMES = [Clip(0, (1, 9), (True,) * 9), Clip(0, (1, 9), (True,) * 5 + (False,) * 4)]
PROMPTED_FRAMES = [Clip(2, (1, 6), (True,) * 4 + (False,) * 2), Clip(2, (1, 6), (True,) * 6)]
BATCHES: dict[str, tuple[list[Clip], tuple[str, ...]]] = {
    "grid": (GRID, ("time", "grid", "sequence")),
    "prompts": (PROMPTED, ("time", "grid")),
    "frames": (FRAMES, ("time", "sequence")),
    "prompts+frames": (PROMPTED_FRAMES, ("time", "sequence")),
}


def layout_of(clips: list[Clip]) -> Layout:
    clip = clips[0]
    mask = torch.tensor([c.real for c in clips]) if clip.real else None
    return Layout(min(clip.lead, 2), max(clip.lead - 2, 0), clip.grid[0] * clip.grid[1], clip.grid, mask)


def real(y: Tensor, clips: list[Clip]) -> Tensor:
    """The tokens that are no padding, one after the other."""
    return torch.stack([row[n] for row, clip in zip(y, clips, strict=True) for n in clip.all_valid()])


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("options", KINDS, ids=name)
def test_block(options: dict[str, Any], batch: str, training: bool) -> None:
    clips, axes = BATCHES[batch]
    layout = layout_of(clips)
    if training and options["block"] not in ("tiny_external_attention",):
        options = {**options, "dropout": 0.0}
    x = drawn(len(clips), clips[0].tokens, D)
    for axis in axes if convolves(options) else ("time",):
        module = by_hand.moved(block(**options, axis=axis)).train(training)

        def ours(x: Tensor, module: Any = module) -> Tensor:
            return real(module(x, layout), clips)

        def formula(x: Tensor, module: Any = module) -> Tensor:
            return real(torch.stack(by_hand.BLOCKS[options["block"]](module, list(x), clips)), clips)

        by_hand.compare(module, ours, formula, x)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("options", KINDS, ids=name)
def test_padding_changes_nothing(options: dict[str, Any], training: bool) -> None:
    """A clip alone and the same clip with padding of whatever content; in training, too, where it is all there is."""
    lead, frames = 3, 5
    module = by_hand.moved(block(**options)).train(training)
    x = drawn(1, lead + frames, D)
    alone = _quiet(module)(x, Layout(0, lead, frames, (1, frames)))
    for more in (1, 4):
        padded = torch.cat([x, 1e4 * drawn(1, more, D)], dim=1)
        mask = torch.arange(frames + more).unsqueeze(0) < frames
        out = _quiet(module)(padded, Layout(0, lead, frames + more, (1, frames + more), mask))
        torch.testing.assert_close(out[:, : lead + frames], alone, rtol=1e-10, atol=1e-10)


def _quiet(module: Any) -> Any:
    """A copy without dropout."""
    module = copy.deepcopy(module)
    for inner in module.modules():
        if isinstance(inner, torch.nn.Dropout):
            inner.p = 0.0
        elif isinstance(getattr(inner, "dropout", None), float):
            inner.dropout = 0.0
    return module


@pytest.mark.parametrize("options", KINDS, ids=name)
def test_every_parameter_trains(options: dict[str, Any]) -> None:
    """In evaluation mode, where no BatchNorm takes the bias in front of it off again.

    A gate of one unit is dead for half of all weights, so there are several draws of them.
    """
    reached: set[str] = set()
    for seed in range(8):
        module = by_hand.moved(block(**options), seed).eval()
        module(drawn(2, 14, D, seed=seed), layout_of(GRID)).square().sum().backward()
        reached |= {key for key, p in module.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached == set(dict(module.named_parameters()))


@pytest.mark.parametrize("options", KINDS, ids=name)
def test_zero_init_is_the_zero_function(options: dict[str, Any]) -> None:
    module = block(**{**options, "init": "zero"}).eval()
    assert module(drawn(2, 14, D).float(), layout_of(GRID)).abs().max() == 0


@pytest.mark.parametrize("options", KINDS, ids=name)
def test_published_init_is_no_zero_function_and_comes_from_the_generator_alone(options: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    one = block(**{**options, "init": "published"}).eval()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    two = block(**{**options, "init": "published"}).eval()
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert one(drawn(2, 14, D).float(), layout_of(GRID)).abs().max() > 0


def test_what_is_drawn() -> None:
    """Deviations of the published initial values at the width of AST-base."""
    conv = block(768, block="conv")
    assert conv.down.weight.std().item() == pytest.approx(math.sqrt(2 / 6), rel=0.05)
    assert conv.middle.weight.std().item() == pytest.approx(math.sqrt(2 / 5), rel=0.05)
    assert conv.up.weight.std().item() == pytest.approx(math.sqrt(2 / 3), rel=0.05)
    assert conv.gate.squeeze.weight.std().item() == pytest.approx(0.02, rel=0.05)
    conformer = block(768, block="conformer")
    for tensor, fan in ((conformer.down, 768), (conformer.core.conv, 31), (conformer.up, 8)):
        for values in (tensor.weight, tensor.bias):
            assert 0.5 / math.sqrt(fan) < values.abs().max().item() <= 1 / math.sqrt(fan)
    convpass = block(768, block="convpass", init="published")
    assert convpass.down.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 774), rel=0.02)
    assert convpass.core.conv.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 36), rel=0.1)
    assert convpass.up.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.count_nonzero(convpass.up.bias) == torch.count_nonzero(convpass.core.conv.bias) == 0
    assert block(768, block="tiny_attention").up.weight.abs().max().item() == pytest.approx(0.01, rel=0.05)
    assert block(768, block="tiny_external_attention").values.weight.std().item() == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize("axis", ["time", "grid", "sequence"])
@pytest.mark.parametrize("options", [{"block": k["block"]} for k in KINDS[::2]] + KINDS, ids=name)
def test_counts(options: dict[str, Any], axis: Any) -> None:
    d = 768
    given = AdapterOptions(**options, axis=axis)
    width, kernel = plan.adapter_width(given, d), plan.adapter_kernel(given)
    module = adapter_block(given, d, TOKENS, generator())
    found = sum(p.numel() for p in module.parameters())
    assert found == counts.block_parameters(given.block, d, width, kernel, given)


def test_published_sizes() -> None:
    """Conformer RR96 k31 and SURE's ConvAdapter at d = 1024."""
    assert sum(p.numel() for p in block(768, block="conformer").parameters()) == 270_720 // 12 - 2 * 768
    assert sum(p.numel() for p in block(1024, block="conv").parameters()) == 141_824


@pytest.mark.parametrize("options", KINDS, ids=name)
def test_dropout_at_the_published_rate(options: dict[str, Any]) -> None:
    """Two passes in training differ exactly where the published block drops; the option overrides the rate."""
    drops = options["block"] in ("convpass", "tiny_attention", "tiny_conformer")
    x, layout = drawn(2, 14, D), layout_of(GRID)
    module = by_hand.moved(block(**options)).train()
    assert torch.equal(module(x, layout), module(x, layout)) != drops
    if options["block"] != "tiny_external_attention":
        module = by_hand.moved(block(**options, dropout=0.5 if not drops else 0.0)).train()
        assert torch.equal(module(x, layout), module(x, layout)) == drops


@pytest.mark.parametrize("options", KINDS, ids=name)
def test_half_precision(options: dict[str, Any]) -> None:
    """Under bfloat16 autocast, outputs and gradients are finite and near those of float32."""
    module = by_hand.moved(block(**{**options, "init": "published"})).float().eval()
    x, layout = drawn(2, 14, D).float(), layout_of(GRID)
    exact = module(x, layout)
    with torch.autocast("cpu", torch.bfloat16):
        near = module(x, layout)
        near.float().square().sum().backward()
    torch.testing.assert_close(near.float(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())


def test_external_attention_of_sharp_scores_stays_finite() -> None:
    """Where a plain softmax over many tokens is zero for all units, 0 / 0 would follow."""
    module = block(block="tiny_external_attention")
    with torch.no_grad():
        module.keys.weight.normal_(0, 100, generator=generator())
    x = drawn(1, 14, D).float()
    scores = module.keys(module.norm(x)).softmax(1)
    assert (scores.sum(-1) == 0).any()
    assert torch.isfinite(module(x, layout_of(GRID[:1]))).all()


@pytest.mark.parametrize("axis", ["time", "grid"])
def test_tokens_in_front_never_mix(axis: str) -> None:
    """What one special token is changes neither another one nor a patch, nor the other way round."""
    module = by_hand.moved(block(block="conv", gate=False, axis=axis)).eval()
    x, layout = drawn(1, 17, D), layout_of([Clip(5, (3, 4))])
    y = module(x, layout)
    for n in range(5):
        changed = x.clone()
        changed[:, n] += drawn(D, seed=2)
        moved = (module(changed, layout) != y).any(-1)[0]
        assert moved.nonzero().flatten().tolist() == [n]


def test_rows_wrap_in_the_published_sequence_alone() -> None:
    """The last patch of a row and the first of the next are neighbours in `sequence` only."""
    x, layout = drawn(1, 14, D), layout_of(GRID[:1])
    changed = x.clone()
    changed[:, 2 + 3] += 1  # the end of the first row
    touched = {}
    for axis in ("time", "grid", "sequence"):
        module = by_hand.moved(block(block="convpass", width=4, axis=axis)).eval()
        touched[axis] = (module(changed, layout) != module(x, layout)).any(-1)[0].nonzero().flatten().tolist()
    assert touched == {"time": [4, 5], "grid": [4, 5, 8, 9], "sequence": [4, 5, 6]}


@pytest.mark.slow
def test_compiles_without_graph_breaks() -> None:
    torch._dynamo.reset()
    module = by_hand.moved(block(block="conformer", width=4, kernel=3)).train()
    x, layout = drawn(2, 9, D), layout_of(FRAMES)
    plain = copy.deepcopy(module)
    expected = plain(x, layout)
    expected.square().sum().backward()
    out = torch.compile(module, fullgraph=True)(x, layout)
    out.square().sum().backward()
    torch.testing.assert_close(out, expected)
    for (key, a), b in zip(module.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-9, msg=key)
    for a, b in zip(module.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)
