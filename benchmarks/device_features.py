"""What features of whole batches save: `FrontEnd.collate_waveforms` against one clip after the other.

    uv run python benchmarks/device_features.py [--rounds 9] [--clips 32] [--seconds 10] [--device cuda]

Both sides start from the same waveforms on the device and end with the same normalised model input there. One by one
is `torchaudio.compliance.kaldi.fbank` for the AST, `FrontEnd.extract` for Whisper, and then `FrontEnd.collate`; for
Whisper on a GPU, whose `extract` is for the CPU, the waveforms are on the CPU and the input is copied. The sides take
turns in one process, one thread; a CPU is measured in processor seconds, so that other programs do not count, a GPU in
wall-clock time between synchronisations. `alike` clips fill the input, `mixed` ones have from a tenth of its length
on. On a CPU a batch is computed clip by clip, too, for one clip is what stays in its caches; there the two sides do
the same work but for the filters, which torchaudio makes anew for each clip. Beside each ratio stands the largest
difference of the two inputs, which has to stay within 1e-4. Exits 1 when it does not. Writes
`benchmarks/results/device_features_<device>.json`.
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
from torch import Tensor
from torchaudio.compliance import kaldi

from petl.frontend import AstFrontEnd, FrontEnd, ModelInput, WhisperFrontEnd

RESULTS = Path(__file__).parent / "results"
_ALLOWED = 1e-4


def waveforms(clips: int, seconds: float, alike: bool, device: str) -> tuple[Tensor, Tensor]:
    """Tones with noise, (B, S) padded with zeros, and their lengths (on the CPU)."""
    generator = torch.Generator().manual_seed(0)
    size = round(16000 * seconds)
    lengths_B = torch.full((clips,), size) if alike else torch.linspace(size / 10, size, clips).long()
    pitch_B = 200 + 3000 * torch.rand(clips, generator=generator)
    waves_BS = 0.3 * torch.sin(2 * torch.pi * pitch_B[:, None] * torch.arange(size) / 16000)
    waves_BS += 0.05 * torch.randn(clips, size, generator=generator)
    return (waves_BS * (torch.arange(size) < lengths_B[:, None])).to(device), lengths_B


def one_by_one(front_end: FrontEnd, waves_BS: Tensor, lengths: list[int], device: str) -> ModelInput:
    """The ordinary way."""
    if isinstance(front_end, AstFrontEnd):
        rows = [
            kaldi.fbank(
                wave_S[None, :length], sample_frequency=16000, window_type="hanning", num_mel_bins=front_end.mel_bins
            )
            for wave_S, length in zip(waves_BS, lengths, strict=True)
        ]
        if device != "cpu":  # `collate` writes into a batch on the CPU
            padded = [torch.nn.functional.pad(row, (0, 0, 0, front_end.frames - len(row))) for row in rows]
            return ModelInput((torch.stack(padded) - front_end.mean) / (front_end.std * 2))
        return front_end.collate(rows)
    found = front_end.collate([front_end.extract(w[:n]) for w, n in zip(waves_BS.cpu(), lengths, strict=True)])
    return found.to(device)


def measured(work: Callable[[], ModelInput], device: str) -> tuple[float, ModelInput]:
    """Seconds of the processor, or of the wall on a GPU, and the result."""
    if device == "cuda":
        torch.cuda.synchronize()
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    found = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - started, found


def compared(front_end: FrontEnd, given: argparse.Namespace, alike: bool) -> dict[str, Any]:
    """One row of the result."""
    waves_BS, lengths_B = waveforms(given.clips, given.seconds, alike, given.device)
    lengths = lengths_B.tolist()
    single: list[float] = []
    batched: list[float] = []
    difference = 0.0
    for number in range(given.rounds + 1):
        one_s, one = measured(lambda: one_by_one(front_end, waves_BS, lengths, given.device), given.device)
        all_s, all_ = measured(lambda: front_end.collate_waveforms(waves_BS, lengths_B), given.device)
        difference = max(difference, float((one.values - all_.values).abs().max()))
        if number:  # the first round warms up
            single.append(one_s)
            batched.append(all_s)
    return {
        "clips": "alike" if alike else "mixed",
        "one_by_one_ms_per_clip": round(1000 * statistics.median(single) / given.clips, 4),
        "batched_ms_per_clip": round(1000 * statistics.median(batched) / given.clips, 4),
        "ratio": round(statistics.median(a / b for a, b in zip(single, batched, strict=True)), 2),
        "largest_difference": difference,
        "equal": difference <= _ALLOWED,
    }


def main() -> int:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    frames = round(100 * given.seconds)
    front_ends: dict[str, FrontEnd] = {
        "ast": AstFrontEnd(frames=frames),
        "whisper": WhisperFrontEnd(frames=frames + frames % 2, chunk=max(30, -(-frames // 100))),
    }
    rows = [
        {"front_end": name, **compared(front_end, given, alike)}
        for name, front_end in front_ends.items()
        for alike in (True, False)
    ]
    result = {
        "batch": given.clips,
        "seconds": given.seconds,
        "rounds": given.rounds,
        "device": torch.cuda.get_device_name() if given.device == "cuda" else "cpu, one thread",
        "dtype": "float32",
        "unit": "processor time" if given.device == "cpu" else "wall-clock time",
        "allowed_difference": _ALLOWED,
        "rows": rows,
        "machine": f"{platform.machine()}, torch {torch.__version__}",
    }
    out = given.out or RESULTS / f"device_features_{given.device}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"batches of {given.clips} clips of up to {given.seconds:g} s, {result['device']}, ms per clip")
    for row in rows:
        print(
            f"  {row['front_end']:8s} {row['clips']:6s} one by one {row['one_by_one_ms_per_clip']:8.3f}  batched "
            f"{row['batched_ms_per_clip']:8.3f}  ratio {row['ratio']:.2f}x  largest difference "
            f"{row['largest_difference']:.1e}: {'equal' if row['equal'] else 'NOT EQUAL'}"
        )
    return 0 if all(row["equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
