"""What a mixture of 7 experts costs beside one bottleneck adapter of the same total width.

    uv run python benchmarks/mixture_cost.py [--rounds 7]

AST-base shape with random weights, experts of width 6 (reduction 128) against one adapter of width 42, all
at the attention, parallel, GELU. Forward and backward are timed on one CPU thread in seconds of processor time
(other programs on the machine do not count), the variants taking turns in one process: for the whole network
(a training step without the optimiser), which is what the bar of 1.5 is about, and for the added module alone,
where nothing hides behind the backbone. The latter is mostly page faults of fresh memory and moves with the
load of the machine. Every round gives one ratio per variant; printed are their median and range. Before the
timing every mixture is compared with its equation computed expert by expert in a loop, outputs and gradients.
Exits 1 when a median ratio is above the bar or an equality check fails. Writes
`benchmarks/results/mixture_cost.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ASTConfig, ASTModel
from transformers import __version__ as transformers_version

from petl import attach
from petl.config import MoaOptions
from petl.layout import Layout, Tokens
from petl.methods.blocks.bottleneck import Bottleneck
from petl.methods.dense_moa import DenseMoa
from petl.methods.experts import Experts
from petl.methods.soft_moa import SoftMoa

BAR = 1.5
HIDDEN, EXPERTS, WIDTH, SLOTS = 768, 7, 6, 1
BATCH, FRAMES, TOKENS = 2, 500, 590
OPTIONS = MoaOptions(experts=EXPERTS, slots=SLOTS, reduction=128.0)  # width 6 each
SEQUENCE = Layout.sequence(TOKENS)
RESULTS = Path(__file__).parent / "results" / "mixture_cost.json"

METHODS: dict[str, dict[str, Any]] = {
    "adapter": {"method": "adapter", "adapter.width": EXPERTS * WIDTH, "adapter.location": "attention"},
    "dense_moa": {"method": "dense_moa", "moa.experts": EXPERTS, "moa.reduction": 128.0},
    "soft_moa": {"method": "soft_moa", "moa.experts": EXPERTS, "moa.slots": SLOTS, "moa.reduction": 128.0},
}


def main() -> int:
    """Run, print, write; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of the whole step (default: 7)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    differences = {"dense_moa": _difference(_dense(), _dense_loop), "soft_moa": _difference(_soft(), _soft_loop)}
    equal = all(value < 1e-5 for value in differences.values())
    module = _ratios(_module_steps(), 10 * given.rounds)
    step = _ratios(_network_steps(), given.rounds)
    within = all(row["ratio_median"] <= BAR for row in step.values())

    result = {
        "bar": BAR,
        "within_bar": within,
        "equality": {"max_relative_difference_to_expert_loop": differences, "equal": equal},
        "setting": {
            "shape": "AST-base",
            "batch": BATCH,
            "tokens": TOKENS,
            "experts": EXPERTS,
            "width_per_expert": WIDTH,
            "slots": SLOTS,
            "site": "attention, 12 layers",
            "dtype": "float32",
        },
        "whole_step": step,
        "module_alone": module,
        "environment": {
            "cpu": _cpu(),
            "threads": 1,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers_version,
        },
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    for title, table in (("whole training step", step), ("added module alone", module)):
        print(f"\n{title}, {BATCH} x {TOKENS} tokens, 1 thread")
        for name, row in table.items():
            low, high = row["ratio_range"]
            milliseconds = row["cpu_seconds_median"] * 1e3
            print(f"  {name:<10} {milliseconds:9.1f} ms   x {row['ratio_median']:.3f} ({low:.3f} to {high:.3f})")
    print(
        f"\nlargest relative difference to the loop over experts: {differences} -> {'equal' if equal else 'DIFFERENT'}"
    )
    print(f"bar {BAR}x on the whole step: {'kept' if within else 'MISSED'}")
    return 0 if equal and within else 1


def _ratios(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, dict[str, Any]]:
    """Time the steps in turn; every round's seconds are divided by the adapter's of the same round."""
    for run in steps.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:  # nobody is always first
            started = time.process_time()
            steps[name]()
            seconds[name].append(time.process_time() - started)
    table = {}
    for name, values in seconds.items():
        ratios = [value / base for value, base in zip(values, seconds["adapter"], strict=True)]
        table[name] = {
            "cpu_seconds_median": round(statistics.median(values), 6),
            "ratio_median": round(statistics.median(ratios), 4),
            "ratio_range": [round(min(ratios), 4), round(max(ratios), 4)],
            "rounds": rounds,
        }
    return table


def _network_steps() -> dict[str, Callable[[], None]]:
    """Forward and backward of the adapted network; one backbone, which each variant puts on and takes off."""
    backbone = ASTModel(ASTConfig(max_length=FRAMES)).eval()
    x_BTM = torch.randn(BATCH, FRAMES, 128)
    models = {}
    for name, flat in METHODS.items():
        adapted = attach(backbone, flat, seed=0)
        _away_from_zero(adapted.added)
        models[name] = (flat, adapted.adapter_state())
        adapted.detach()

    def step(name: str) -> Callable[[], None]:
        flat, state = models[name]

        def run() -> None:
            adapted = attached[name]
            adapted(x_BTM).last_hidden_state.square().mean().backward()
            for p in adapted.trainable().values():
                p.grad = None

        twin = ASTModel(ASTConfig(max_length=FRAMES)).eval()
        twin.load_state_dict(backbone.state_dict(), assign=True)  # the same storage: no variant has warmer weights
        attached[name] = attach(twin, flat, seed=0)
        attached[name].load_adapter_state(state)
        return run

    attached: dict[str, Any] = {}
    return {name: step(name) for name in METHODS}


def _module_steps() -> dict[str, Callable[[], None]]:
    """Forward and backward of the module alone, with a gradient for its input."""
    modules = {
        "adapter": Bottleneck(HIDDEN, EXPERTS * WIDTH, torch.Generator().manual_seed(0)),
        "dense_moa": _dense(),
        "soft_moa": _soft(),
    }
    x_BND = torch.randn(BATCH, TOKENS, HIDDEN, requires_grad=True)
    upstream_BND = torch.randn(BATCH, TOKENS, HIDDEN)

    def step(module: nn.Module) -> Callable[[], None]:
        _away_from_zero(module)

        def run() -> None:
            module(x_BND, SEQUENCE).backward(upstream_BND)
            x_BND.grad = None
            module.zero_grad()

        return run

    return {name: step(module) for name, module in modules.items()}


def _dense() -> DenseMoa:
    return DenseMoa(OPTIONS, HIDDEN, Tokens(0, 0), torch.Generator().manual_seed(0))


def _soft() -> SoftMoa:
    return SoftMoa(OPTIONS, HIDDEN, Tokens(0, 0), torch.Generator().manual_seed(0))


def _away_from_zero(module: nn.Module) -> None:
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.02 * torch.randn(p.shape))


def _difference(module: nn.Module, loop: Callable[[Any, Tensor], Tensor]) -> float:
    """Largest difference to the loop in output and gradients, relative to the largest value of each."""
    _away_from_zero(module)
    found = []
    for function in (lambda x: module(x, Layout.sequence(x.shape[1])), lambda x: loop(module, x)):
        x_BND = torch.randn(BATCH, 60, HIDDEN, generator=torch.Generator().manual_seed(1), requires_grad=True)
        module.zero_grad()
        y_BND = function(x_BND)
        y_BND.square().sum().backward()
        assert x_BND.grad is not None
        found.append([y_BND.detach(), x_BND.grad, *(p.grad.clone() for p in module.parameters() if p.grad is not None)])
    pairs = zip(*found, strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def _expert(experts: Experts, i: int, x: Tensor) -> Tensor:
    hidden = functional.gelu(functional.linear(x, experts.down.weight[i], experts.down.bias.view(EXPERTS, -1)[i]))
    return hidden @ experts.up.weight[i] + experts.up.bias.view(EXPERTS, -1)[i]


def _dense_loop(moa: DenseMoa, x_BND: Tensor) -> Tensor:
    gates_BNE = moa.router(x_BND).softmax(-1)
    out = torch.zeros_like(x_BND)
    for i in range(EXPERTS):
        out = out + gates_BNE[..., i : i + 1] * _expert(moa.experts, i, x_BND)
    return out


def _soft_loop(moa: SoftMoa, x_BND: Tensor) -> Tensor:
    logits_BNE = x_BND @ moa.phi[:, :, 0]
    out = torch.zeros_like(x_BND)
    for i in range(EXPERTS):
        slot_BD = (logits_BNE[..., i].softmax(1).unsqueeze(-1) * x_BND).sum(1)
        combine_BN1 = logits_BNE.softmax(2)[..., i : i + 1]
        out = out + combine_BN1 * _expert(moa.experts, i, slot_BD).unsqueeze(1)
    return out


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
