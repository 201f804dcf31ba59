"""How large an adapter checkpoint is beside the full model, and that no backbone tensor is in it.

    uv run python benchmarks/checkpoint_size.py

Saves the adapter of every method on an AST-base-shaped backbone with random weights (50 classes) and the whole
backbone as safetensors. Every adapter file is checked: the numbers in it are exactly the trained ones, and no
tensor equals one of the backbone's (LayerNorms that train are moved first, as training would). Exits 1 when a
check fails. Writes `benchmarks/results/checkpoint_size.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import ASTConfig, ASTModel

from petl import AudioModel, BackboneShape, attach, save_adapter, trainable_parameters
from petl.frontend import AstFrontEnd

RESULTS = Path(__file__).parent / "results" / "checkpoint_size.json"
CLASSES = 50
METHODS: dict[str, dict[str, Any]] = {
    "linear probe": {"method": "linear"},
    "bottleneck, Pfeiffer, reduction 64": {"method": "adapter", "adapter.reduction": 64.0},
    "bottleneck, Houlsby, reduction 64": {
        "method": "adapter",
        "adapter.reduction": 64.0,
        "adapter.location": "both",
    },
    "LoRA q,v, reduction 128": {"method": "lora", "lora.reduction": 128.0},
    "Dense-MoA, 7 experts, reduction 128": {"method": "dense_moa", "moa.experts": 7, "moa.reduction": 128.0},
    "Soft-MoA, 7 experts, reduction 128": {"method": "soft_moa", "moa.experts": 7, "moa.reduction": 128.0},
}


def main() -> int:
    """Run, print, write; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.manual_seed(0)
    backbone = ASTModel(ASTConfig()).eval()
    for p in backbone.parameters():
        p.data.normal_(std=0.02)
    labels = [f"class {i}" for i in range(CLASSES)]
    rows: dict[str, dict[str, Any]] = {}
    sound = True
    with tempfile.TemporaryDirectory() as place:
        backbone.save_pretrained(Path(place) / "full")
        full = (Path(place) / "full" / "model.safetensors").stat().st_size
        for title, flat in METHODS.items():
            model = AudioModel(attach(backbone, flat, seed=0), labels, AstFrontEnd(), seed=0)
            with torch.no_grad():
                for p in model.trainable().values():
                    p.add_(0.01)
            directory = save_adapter(Path(place) / "adapter", model)
            tensors = load_file(directory / "adapter_model.safetensors")
            trained = trainable_parameters(model.adapted.method, BackboneShape(), CLASSES)
            frozen = list(model.adapted.original_state().values())
            shared = sum(any(t.shape == f.shape and torch.equal(t, f) for f in frozen) for t in tensors.values())
            sound &= shared == 0 and sum(t.numel() for t in tensors.values()) == trained
            size = sum(file.stat().st_size for file in directory.iterdir())
            rows[title] = {
                "bytes": size,
                "trained_parameters": trained,
                "share_of_full_percent": round(100 * size / full, 3),
                "backbone_tensors": shared,
            }
            model.adapted.detach()
    result = {"full_model_bytes": full, "shape": "AST-base", "classes": CLASSES, "adapters": rows, "sound": sound}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"full model {full / 2**20:.1f} MiB")
    for title, row in rows.items():
        print(
            f"  {title:<38} {row['bytes'] / 2**20:7.2f} MiB  {row['share_of_full_percent']:6.2f} %  "
            f"{row['trained_parameters']:>9,} trained numbers, {row['backbone_tensors']} backbone tensors"
        )
    print("only trained tensors inside" if sound else "WRONG: see the table")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
