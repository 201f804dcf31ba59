"""What each method costs per training step, as a ratio to the frozen backbone's own forward and backward pass.

    uv run python benchmarks/method_cost.py [--rounds 5] [--device cuda --dtype bfloat16 [--compile]]

AST-base shape with random weights; needs torch and transformers alone, so it runs on a GPU machine that has neither
Ray nor MLflow. One copy of the backbone per method, all on the same storage, take turns in one process; every
round gives one ratio per method and the median counts. On a CPU seconds of processor time of one thread are taken,
so that other programs on the machine do not count; on a GPU wall-clock time between synchronisations. Every variant,
the frozen backbone included, carries a gradient down to the CLS token, so all backward passes are equally deep; the
optimiser is left out. `empty` has this project's hooks around all 24 sub-layers, with nothing in them.

Memory: on a CPU the bytes of distinct tensors that autograd keeps for the backward pass, weights left out; on a
GPU the peak of allocated memory less what was allocated before the step.

Equality: `empty` and every method that promises it must give the frozen backbone's output to the last bit in float32
(eager). Exits 1 when a median ratio is above its bar or an equality check fails. Writes
`benchmarks/results/method_cost_<device>[_<dtype>][_compiled].json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ASTConfig, ASTModel
from transformers import __version__ as transformers_version

from petl import attach
from petl.families import family_of
from petl.layout import Tokens
from petl.methods.base import Join, joined
from petl.shape import BackboneShape

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Entry:
    """One row: dotted keys, the highest allowed ratio, and whether it starts as the frozen backbone."""

    flat: dict[str, Any]
    bar: float | None = None
    identity: bool = False


_LAYER = {"adapter.location": "layer", "adapter.placement": "sequential"}
ENTRIES: dict[str, Entry] = {
    "frozen": Entry({}, identity=True),
    "empty": Entry({"method": "linear", "norms": "none"}, 1.02, True),
    "linear probe": Entry({"method": "linear"}, identity=True),
    "BitFit": Entry({"method": "bitfit"}, identity=True),
    "bottleneck RR64": Entry({"method": "adapter"}, 1.10, True),
    "bottleneck RR64, both": Entry({"method": "adapter", "adapter.location": "both"}, None, True),
    "conformer RR96 k31": Entry({"method": "adapter", "adapter.block": "conformer"}, 1.35),
    "convpass RR128": Entry({"method": "adapter", "adapter.block": "convpass"}, None, True),
    "ConvAdapter d/2": Entry({"method": "adapter", "adapter.block": "conv", **_LAYER}, 1.35),
    "tiny attention": Entry({"method": "adapter", "adapter.block": "tiny_attention", **_LAYER}),
    "tiny external attention": Entry({"method": "adapter", "adapter.block": "tiny_external_attention", **_LAYER}),
    "tiny conformer": Entry({"method": "adapter", "adapter.block": "tiny_conformer", **_LAYER}),
    "AAT mlp + spatial": Entry(
        {
            "method": "adapter",
            "adapter.placement": "mixed",
            "adapter.location": "both",
            "adapter.ratio": 0.25,
            "norms": "none",
        },
        None,
        True,
    ),
    "LoRA q,v r6": Entry({"method": "lora", "lora.reduction": 128.0}, 1.15, True),
    "LoRA all six r8": Entry({"method": "lora", "lora.rank": 8, "lora.targets": "q,k,v,o,fc1,fc2"}, None, True),
    "prompts, deep, 25": Entry({"method": "prompt"}),
    "prompts, shallow, 300": Entry({"method": "prompt", "prompt.length": 300, "prompt.deep": False}),
    "prefix 12+12": Entry({"method": "prefix", "prefix.split": True}),
    "Dense-MoA 7": Entry({"method": "dense_moa"}, 1.5, True),
    "Soft-MoA 7x1": Entry({"method": "soft_moa"}, 1.15, True),
    "adapter + LoRA": Entry({"method": "adapter+lora"}, None, True),
    "upper half": Entry({"method": "partial"}, None, True),
    "full fine-tuning": Entry({"method": "full"}, None, True),
}


class Variant:
    """A backbone with a method on it that takes steps; weights are shared with the other variants."""

    def __init__(self, name: str, entry: Entry, base: ASTModel, given: argparse.Namespace) -> None:
        self.given = given
        backbone = ASTModel(base.config).eval()
        backbone.load_state_dict(base.state_dict(), assign=True)
        backbone.to(given.device).requires_grad_(False)
        backbone.embeddings.cls_token = nn.Parameter(backbone.embeddings.cls_token.detach().clone())
        self.parameters = 0
        self.model: Any = backbone
        if entry.flat:
            self.model = attach(backbone, entry.flat, seed=0)
            self.parameters = sum(p.numel() for p in self.model.trainable().values())
        if name == "empty":
            _put_empty_hooks(backbone)
        backbone.embeddings.cls_token.requires_grad_(True)
        self.start = self._output().detach()
        if entry.flat:
            _away_from_zero(self.model)
        self.run = torch.compile(self.model, fullgraph=True) if given.compile else self.model

    def _output(self) -> Tensor:
        with torch.no_grad():
            return self.model(self.given.input).last_hidden_state

    def step(self) -> None:
        """Forward and backward."""
        narrow = self.given.dtype != "float32"
        with torch.autocast(self.given.device, getattr(torch, self.given.dtype), enabled=narrow):
            hidden = self.run(self.given.input).last_hidden_state
        hidden.float().square().mean().backward()
        for p in self.model.parameters():
            p.grad = None

    def memory(self) -> int:
        """Bytes a step needs beyond the weights; see the module's docstring."""
        if self.given.device == "cuda":
            self.step()
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self.step()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - before
        weights = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            hidden = self.model(self.given.input).last_hidden_state
        total = sum(kept.values())
        hidden.sum().backward()
        for p in self.model.parameters():
            p.grad = None
        return total


def main() -> int:
    """Run, print, write; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--batch", type=int, help="clips (default: 2 on a CPU, 32 on a GPU)")
    parser.add_argument("--frames", type=int, help="input frames (default: 512 on a CPU, 1024 on a GPU)")
    parser.add_argument("--only", action="append", help="a row of the table (repeatable; default: all)")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    on_gpu = given.device == "cuda"
    given.batch, given.frames = given.batch or (32 if on_gpu else 2), given.frames or (1024 if on_gpu else 512)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = ASTModel(ASTConfig(max_length=given.frames)).eval()
    given.input = torch.randn(given.batch, given.frames, 128).to(given.device)
    chosen = {n: e for n, e in ENTRIES.items() if not given.only or n in (*given.only, "frozen")}

    variants = {name: Variant(name, entry, base, given) for name, entry in chosen.items()}
    frozen = variants["frozen"].start
    equal = {n: torch.equal(frozen, variants[n].start) for n, entry in chosen.items() if entry.identity}
    memory = {name: variant.memory() for name, variant in variants.items()}
    seconds = _seconds({name: variant.step for name, variant in variants.items()}, given)
    rows = {}
    for name, entry in chosen.items():
        ratios = [mine / theirs for mine, theirs in zip(seconds[name], seconds["frozen"], strict=True)]
        median = statistics.median(ratios)
        rows[name] = {
            "ratio_median": round(median, 4),
            "ratio_range": [round(min(ratios), 4), round(max(ratios), 4)],
            "bar": entry.bar,
            "within_bar": entry.bar is None or median <= entry.bar,
            "trained_parameters": variants[name].parameters,
            "memory_bytes": memory[name],
            "memory_ratio": round(memory[name] / memory["frozen"], 3),
            "equals_frozen_at_start": equal.get(name),
            "seconds_median": round(statistics.median(seconds[name]), 6),
            "configuration": entry.flat,
        }
    _write(rows, given)
    _print(rows, given)
    kept = all(row["within_bar"] for row in rows.values())
    print(f"bars: {'kept' if kept else 'MISSED'}; equality: {'holds' if all(equal.values()) else 'BROKEN'}")
    return 0 if kept and all(equal.values()) else 1


def _seconds(steps: dict[str, Callable[[], None]], given: argparse.Namespace) -> dict[str, list[float]]:
    """Time the steps in turn, nobody always first."""
    for _ in range(3 if given.device == "cuda" else 1):
        for step in steps.values():
            step()
    found: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    repeats = 10 if given.device == "cuda" else 1
    for turn in range(given.rounds):
        start = turn * len(names) // given.rounds
        for name in names[start:] + names[:start]:
            found[name].append(_one(steps[name], repeats, given.device))
    return found


def _one(step: Callable[[], None], repeats: int, device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    started = clock()
    for _ in range(repeats):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (clock() - started) / repeats


def _put_empty_hooks(backbone: ASTModel) -> None:
    shape = BackboneShape.from_config(backbone.config.to_dict())
    family = family_of(shape.family)
    tokens = Tokens(family.special, 0)
    tokens.watch(backbone, family, shape)
    for layer in range(shape.layers):
        for site in ("attention", "ffn"):
            for attachment in joined(family.block(layer, site), "empty", None, Join(), tokens):
                attachment.attach(backbone)


def _away_from_zero(adapted: Any) -> None:
    """Zeros could make a multiplication cheaper than it is in training."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in adapted.trainable().values():
            p.add_(0.01 * torch.randn(p.shape, generator=generator).to(p.device))


def _print(rows: dict[str, dict[str, Any]], given: argparse.Namespace) -> None:
    how = f"{given.batch} x {given.frames} frames, {given.device}, {given.dtype}" + (", compiled" * given.compile)
    print(f"\nstep (forward and backward) of AST-base, {how}; ratio to the frozen backbone\n")
    print(f"{'':<26}{'ratio':>8}{'range':>18}{'bar':>7}{'trained':>13}{'memory':>9}")
    for name, row in rows.items():
        low, high = row["ratio_range"]
        bar = "" if row["bar"] is None else f"{row['bar']:.2f}" + ("" if row["within_bar"] else "!")
        span = f"{low:.3f}-{high:.3f}"
        print(
            f"{name:<26}{row['ratio_median']:>8.3f}{span:>18}{bar:>7}{row['trained_parameters']:>13,}"
            f"{row['memory_ratio']:>8.2f}x"
        )


def _write(rows: dict[str, dict[str, Any]], given: argparse.Namespace) -> None:
    parts = ["method_cost", given.device]
    parts += [given.dtype] if given.dtype != "float32" else []
    parts += ["compiled"] if given.compile else []
    out = given.out or RESULTS / ("_".join(parts) + ".json")
    setting = {k: getattr(given, k) for k in ("batch", "frames", "device", "dtype", "compile", "rounds")}
    device = torch.cuda.get_device_name() if given.device == "cuda" else _cpu()
    environment = {
        "device": device,
        "threads": 1,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers_version,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    result = {"setting": {"shape": "AST-base", **setting}, "methods": rows, "environment": environment}
    out.write_text(json.dumps(result, indent=2) + "\n")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    sys.exit(main())
