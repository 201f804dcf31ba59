"""Where bfloat16 pays on this processor: an adapter's training step in float32 against bfloat16 autocast, by width.

    uv run python benchmarks/cpu_precision.py

Two AST layers on 512 frames (602 tokens), a bottleneck adapter (reduction 16) in each, batch 2, one thread; the
two formats alternate, CPU time is compared. Equality: the outputs differ by no more than bfloat16's rounding.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import torch
from transformers import ASTConfig, ASTModel

import petl
from search.environment import processor
from trainables.precision import CPU_WIDTH

STEPS = 9
SHAPES = ((128, 4), (192, 3), (256, 4), (384, 6), (768, 12))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = []
    for width, heads in SHAPES:
        config = ASTConfig(
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_length=512,
        )
        adapted = petl.attach(ASTModel(config).eval(), {"method": "adapter", "adapter.reduction": 16.0}, seed=0)
        x_BTM = torch.randn(2, 512, 128)
        taken: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
        outputs = {}
        for _ in range(STEPS):
            for dtype, times in taken.items():
                began = time.process_time()
                with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
                    outputs[dtype] = adapted(x_BTM).last_hidden_state.float()
                outputs[dtype].square().mean().backward()
                times.append(time.process_time() - began)
        exact, rounded = (outputs[dtype].detach() for dtype in taken)
        difference = float((exact - rounded).norm() / exact.norm())
        assert difference < 0.03, f"the formats disagree by {difference:.3f} at width {width}"
        ratios = [a / b for a, b in zip(taken[torch.float32][1:], taken[torch.bfloat16][1:], strict=True)]
        rows.append({"width": width, "speedup": statistics.median(ratios), "difference": difference})
        print(f"width {width:>4}: bfloat16 is {rows[-1]['speedup']:.2f}x as fast, outputs differ by {difference:.4f}")
    result = {
        "amx": bool(torch.cpu._is_amx_tile_supported()),
        "processor": processor(),
        "torch": torch.__version__,
        "threads": 1,
        "chosen_from_width": CPU_WIDTH,
        "rows": rows,
    }
    target = Path(__file__).parent / "results" / "cpu_precision.json"
    target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
