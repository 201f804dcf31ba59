"""BatchNorm of tokens: against torch's on the tokens that are no padding, over workers, where there is too little."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from petl.layout import Layout, Tokens
from petl.methods.blocks.batchnorm import TokenBatchNorm
from tests.petl import by_hand

C = 5


def norm(seed: int = 5) -> TokenBatchNorm:
    module: TokenBatchNorm = by_hand.moved(TokenBatchNorm(C, Tokens(2, 0)), seed)
    return module


def batch(clips: int = 6, frames: int = 7, lead: int = 2, seed: int = 1) -> tuple[Tensor, Layout]:
    """Clips of different lengths, with tokens in front, far from zero mean and unit variance."""
    generator = torch.Generator().manual_seed(seed)
    x = 3 + 2 * torch.randn(clips, lead + frames, C, generator=generator, dtype=torch.float64)
    lengths = 1 + torch.arange(clips).unsqueeze(1) % frames
    return x, Layout(0, lead, frames, (1, frames), torch.arange(frames) < lengths)


def valid(x: Tensor, layout: Layout) -> Tensor:
    mask = layout.mask(x)
    return x.flatten(0, 1) if mask is None else x[mask]


@pytest.mark.parametrize("masked", [False, True])
def test_is_torchs_on_the_valid_tokens(masked: bool) -> None:
    ours = norm()
    theirs = nn.BatchNorm1d(C).double()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    for training in (True, True, False):
        ours.train(training), theirs.train(training)
        x, layout = batch(seed=2)
        if not masked:
            layout = Layout(layout.special, layout.prompts, layout.body, layout.grid)
        one, two = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
        y1, y2 = valid(ours(one, layout), layout), theirs(valid(two, layout))
        torch.testing.assert_close(y1, y2)
        for y in (y1, y2):
            (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        torch.testing.assert_close(one.grad, two.grad)
        for name in ("weight", "bias"):
            torch.testing.assert_close(getattr(ours, name).grad, getattr(theirs, name).grad)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        torch.testing.assert_close(ours.running_var, theirs.running_var)


@pytest.mark.parametrize("kept", [0, 1])
def test_too_few_values_are_normalised_by_the_running_statistics(kept: int) -> None:
    module = norm().train()
    before = copy.deepcopy(module.state_dict())
    x = torch.randn(1, 3, C, dtype=torch.float64, requires_grad=True)
    layout = Layout(0, 0, 3, (1, 3), torch.arange(3).unsqueeze(0) < kept)
    y = module(x, layout)
    torch.testing.assert_close(y, copy.deepcopy(module).eval()(x, layout))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    y[:, 0].sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad[:, 0].abs().min() > 0


def test_a_second_pass_over_a_checkpointed_layer_leaves_the_statistics() -> None:
    module, (x, layout) = norm().train(), batch()
    first = module(x, layout)
    before = copy.deepcopy(module.state_dict())
    module.tokens.recomputing = True
    assert torch.equal(module(x, layout), first)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module.tokens.recomputing = False
    module(x, layout)
    assert not torch.equal(module.running_mean, before["running_mean"])


def test_half_precision_sums_in_float32() -> None:
    """Sums over 20,000 tokens in bfloat16 would stop at 256 steps of their own size."""
    x = (3 + torch.randn(2, 10_000, C, generator=torch.Generator().manual_seed(0))).bfloat16()
    module = TokenBatchNorm(C, Tokens(0, 0)).train()
    y = module(x, Layout.sequence(10_000))
    assert y.dtype == torch.bfloat16
    assert y.float().mean((0, 1)).abs().max() < 0.01
    torch.testing.assert_close(module.running_mean, 0.1 * x.float().mean((0, 1)))


def step(module: TokenBatchNorm, x: Tensor, layout: Layout, weight: Tensor) -> dict[str, Any]:
    """One pass in training: gradients of a loss that is a sum over clips, and statistics after it."""
    leaf = x.clone().requires_grad_(True)
    (module(leaf, layout).sin() * weight).sum().backward()
    assert leaf.grad is not None and module.weight.grad is not None and module.bias.grad is not None
    return {
        "x": leaf.grad.tolist(),
        "weight": module.weight.grad.tolist(),
        "bias": module.bias.grad.tolist(),
        "mean": module.running_mean.tolist(),
        "var": module.running_var.tolist(),
    }


def whole() -> tuple[Tensor, Layout, Tensor]:
    x, layout = batch(clips=5)
    weight = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x)
    mask = layout.mask(x)
    assert mask is not None
    return x, layout, weight * mask.unsqueeze(-1)


def part(rank: int) -> tuple[Tensor, Layout, Tensor]:
    """Three clips for the first worker, two for the second."""
    x, layout, weight = whole()
    mine = slice(rank, None, 2)
    assert layout.mask_BT is not None
    return x[mine], Layout(0, layout.prompts, layout.body, layout.grid, layout.mask_BT[mine]), weight[mine]


_WORKER = """
import json, os, sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[3])
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=sys.argv[2], rank=rank, world_size=2)
torch.set_num_threads(1)
from tests.petl.test_batchnorm import norm, part, step
print("RESULT", json.dumps(step(norm().train(), *part(rank))), flush=True)
dist.barrier()
# Gloo's threads may still wind down when the interpreter ends, and abort it; what was to be shown has been.
os._exit(0)
"""


@pytest.mark.slow
def test_two_workers_normalise_as_one(tmp_path: Path) -> None:
    alone = step(norm().train(), *whole())
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(rank), f"file://{tmp_path / 'meet'}", str(root)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    parts = [json.loads(next(s for s in out.splitlines() if s.startswith("RESULT"))[7:]) for out in outputs]

    def close(found: Any, expected: Any) -> None:
        torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), torch.tensor(expected).double())

    for rank, found in enumerate(parts):
        close(found["x"], alone["x"][rank::2])
        close(found["mean"], alone["mean"])
        close(found["var"], alone["var"])
    for name in ("weight", "bias"):
        close([sum(pair) for pair in zip(parts[0][name], parts[1][name], strict=True)], alone[name])
