"""What the feature cache saves: reading a clip's features from it against computing them from the file.

    uv run python benchmarks/feature_cache.py [--data ../shared/data/esc10] [--rounds 5]

Both sides give the same thing, a batch of normalised model inputs, for the same clips in the same order, one
thread, taking turns batch by batch in one process; files and cache are in the page cache for both. Beside the
ratio stands the largest difference, which has to stay within half precision of the raw features. Prints the
table, writes `benchmarks/results/feature_cache.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from petl.frontend import AstFrontEnd, clip_features
from trainables.config import DataOptions
from trainables.data import AudioData, open_data

_ROOT = Path(__file__).resolve().parent.parent
_BATCH = 32
_HALF_STEP = 2.0**-7 / 2  # rounding error of float16 between 8 and 16, where the raw log-mel values end


def compute(data: AudioData, split: str, indices: range) -> torch.Tensor:
    """The batch from the files: decode, resample, filterbank, pad, normalise."""
    paths, front_end = data.paths(split), data.front_end
    return torch.stack([front_end.collate([clip_features(paths[i], front_end)]).values[0] for i in indices])


def _read(data: AudioData, indices: range) -> torch.Tensor:
    return data.batch("train", indices).values


def timed(work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float, float]:
    """Result, wall seconds and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=_ROOT.parent / "shared" / "data" / "esc10")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=_ROOT / "benchmarks" / "results" / "feature_cache.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    options = DataOptions(dataset="esc50", path=str(given.data))
    with tempfile.TemporaryDirectory() as cache:
        root = Path(cache)
        build_wall, build_cpu = timed(partial(_opened, options, root))[1:]
        open_wall = statistics.median(timed(partial(_opened, options, root))[1] for _ in range(5))
        data = open_data(options, AstFrontEnd(), cache_root=root)
        sides: dict[str, list[tuple[float, float]]] = {"computed": [], "cached": []}
        difference = 0.0
        batches = [range(i, min(i + _BATCH, data.size("train"))) for i in range(0, data.size("train"), _BATCH)]
        for _ in range(given.rounds):
            for indices in batches:
                exact, wall_s, cpu_s = timed(partial(compute, data, "train", indices))
                sides["computed"].append((wall_s / len(indices), cpu_s / len(indices)))
                read, wall_s, cpu_s = timed(partial(_read, data, indices))
                sides["cached"].append((wall_s / len(indices), cpu_s / len(indices)))
                difference = max(difference, float((exact - read).abs().max()) * 2 * data.front_end.std)
    wall = {name: 1000 * statistics.median(w for w, _ in rows) for name, rows in sides.items()}
    cpu = {name: 1000 * statistics.median(c for _, c in rows) for name, rows in sides.items()}
    clips = sum(data.size(split) for split in ("train", "val", "test"))
    result = {
        "clips": clips,
        "frames": data.front_end.frames,
        "batch": _BATCH,
        "rounds": given.rounds,
        "wall_ms_per_clip": {name: round(value, 4) for name, value in wall.items()},
        "cpu_ms_per_clip": {name: round(value, 4) for name, value in cpu.items()},
        "ratio_wall": round(wall["computed"] / wall["cached"], 1),
        "ratio_cpu": round(cpu["computed"] / cpu["cached"], 1),
        "largest_raw_difference": difference,
        "allowed_raw_difference": _HALF_STEP,
        "equal_within_half_precision": difference <= _HALF_STEP * 1.001,
        "build_wall_s": round(build_wall, 2),
        "build_cpu_s": round(build_cpu, 2),
        "open_again_ms": round(1000 * open_wall, 1),
        "load_average": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{clips} clips, {data.front_end.frames} frames, batches of {_BATCH}, one thread")
    for name in sides:
        print(f"  {name:9s} {wall[name]:8.3f} ms wall  {cpu[name]:8.3f} ms processor, per clip (median)")
    print(f"  ratio     {result['ratio_wall']}x wall, {result['ratio_cpu']}x processor")
    print(
        f"  largest raw difference {difference:.5f} (allowed {_HALF_STEP:.5f}): "
        f"{'equal' if result['equal_within_half_precision'] else 'NOT EQUAL'} within half precision"
    )
    print(f"  built in {build_wall:.1f} s ({build_cpu:.1f} s processor), opened again in {1000 * open_wall:.0f} ms")


def _opened(options: DataOptions, root: Path) -> torch.Tensor:
    return open_data(options, AstFrontEnd(), cache_root=root).targets("train")


if __name__ == "__main__":
    main()
