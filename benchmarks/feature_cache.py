"""What the feature cache costs to build and what it saves, on the recordings of an ESC-50-like data set.

    uv run python benchmarks/feature_cache.py --data PATH [--rounds 5] [--clips 160]

Four questions, each with both sides taking turns in one process (files and cache in the page cache) and an equality
check beside the ratio:

* clip: a batch from the cache against decoding and computing it, one thread, processor time;
* build: clips per second of a build with 1 and 2 threads against extracting one by one, rows equal to the bit (of
  the attempts in which other programs used the least processor time, tried for up to two minutes);
* epoch: an epoch from the cache against one without, each with 1, 2 and 4 loader threads, batches equal within half
  precision;
* wait: the share of an epoch that a model waits for its data, for a stand-in that takes 5 ms a batch without using the
  processor, as one on a GPU does. The bar is 2 %.

Prints tables, writes `benchmarks/results/feature_cache.json`; exits 1 when something is not equal or above its bar.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from petl.frontend import AstFrontEnd, clip_features
from trainables.batches import Waiting, prefetched
from trainables.config import DataOptions
from trainables.data import AudioData, Clip, open_data
from trainables.data.cache import FeatureCache, open_cache
from trainables.data.features import extract

_RESULT = Path(__file__).resolve().parent / "results" / "feature_cache.json"
_BATCH = 32
_HALF_STEP = 2.0**-7 / 2 * 1.001  # rounding error of float16 between 8 and 16, where the raw log-mel values end
_LOADERS = (1, 2, 4)
_MODEL_SECONDS, _MOST_WAIT = 0.005, 0.02
_STEPS = 200
_BUILT = 48  # clips of one build: short enough to fit between what other programs do
_PATIENCE, _CALM = 120.0, 0.15  # seconds to wait for attempts in which others use no more cores than this


def compute(data: AudioData, indices: Tensor) -> Tensor:
    """A batch from the files: decode, resample, filterbank, pad, normalise."""
    paths, front_end = data.paths("train"), data.front_end
    return front_end.collate([clip_features(paths[i], front_end) for i in indices.tolist()]).values


def read(data: AudioData, indices: Tensor) -> Tensor:
    """The same batch from the cache."""
    return data.batch("train", indices).values


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall seconds and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - processor


def per_clip(data: AudioData, batches: Sequence[Tensor], rounds: int) -> dict[str, Any]:
    """Processor milliseconds of a clip in a batch, and the largest difference of raw features."""
    seconds: dict[str, list[float]] = {"computed": [], "cached": []}
    difference = 0.0
    for indices in list(batches) * rounds:
        exact, _, spent = timed(lambda indices=indices: compute(data, indices))
        seconds["computed"].append(spent / len(indices))
        found, _, spent = timed(lambda indices=indices: read(data, indices))
        seconds["cached"].append(spent / len(indices))
        difference = max(difference, float((exact - found).abs().max()) * 2 * data.front_end.std)
    cpu = {name: 1000 * statistics.median(values) for name, values in seconds.items()}
    return {
        "cpu_ms_per_clip": {name: round(value, 4) for name, value in cpu.items()},
        "ratio_cpu": round(cpu["computed"] / cpu["cached"], 1),
        "largest_raw_difference": difference,
        "allowed_raw_difference": _HALF_STEP,
        "equal": difference <= _HALF_STEP,
    }


def building(clips: Sequence[Clip], rounds: int, threads: Sequence[int]) -> dict[str, Any]:
    """Clips per second of each way to compute all rows, in the attempts that were disturbed least."""
    front_end = AstFrontEnd()
    attempts: dict[str, list[tuple[float, float, float]]] = {}  # cores that others used, wall and own seconds
    equal = True
    ends = time.monotonic() + _PATIENCE
    while _calm(attempts) < rounds and (time.monotonic() < ends or _tried(attempts) < rounds):
        rows, *spent = disturbed(lambda: [extract(clip, front_end) for clip in clips])
        attempts.setdefault("one by one", []).append((spent[0], spent[1], spent[2]))
        for workers in threads:
            with tempfile.TemporaryDirectory() as place:
                built, *spent = disturbed(lambda: _built(clips, front_end, Path(place), workers))  # noqa: B023
                attempts.setdefault(f"{workers} threads", []).append((spent[0], spent[1], spent[2]))
                equal &= all(torch.equal(built.row(i), torch.from_numpy(r.features_TM)) for i, r in enumerate(rows))
    calm = {name: sorted(values)[:rounds] for name, values in attempts.items()}
    wall = {name: statistics.median(w for _, w, _ in values) for name, values in calm.items()}
    return {
        "clips": len(clips),
        "clips_per_s": {name: round(len(clips) / seconds, 1) for name, seconds in wall.items()},
        "speedup": {name: round(wall["one by one"] / seconds, 2) for name, seconds in wall.items()},
        "cpu_ms_per_clip": {
            name: round(1000 * statistics.median(c for *_, c in values) / len(clips), 2)
            for name, values in calm.items()
        },
        "cores_kept_busy": {
            name: round(statistics.median(c / w for _, w, c in values), 2) for name, values in calm.items()
        },
        "cores_used_by_others": {
            name: round(statistics.median(o for o, *_ in values), 2) for name, values in calm.items()
        },
        "equal": equal,
    }


def _tried(attempts: dict[str, list[tuple[float, float, float]]]) -> int:
    return min((len(values) for values in attempts.values()), default=0)


def _calm(attempts: dict[str, list[tuple[float, float, float]]]) -> int:
    """Attempts that every way has had to itself."""
    return min((sum(others < _CALM for others, *_ in values) for values in attempts.values()), default=0)


def disturbed(work: Callable[[], Any]) -> tuple[Any, float, float, float]:
    """Result, cores that other programs kept busy meanwhile, wall seconds and own processor seconds."""
    before = _busy_seconds()
    result, wall, processor = timed(work)
    return result, (_busy_seconds() - before - processor) / wall, wall, processor


def _busy_seconds() -> float:
    """Of all cores since the start of the machine, idle and waiting left out."""
    user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _built(clips: Sequence[Clip], front_end: AstFrontEnd, place: Path, workers: int) -> FeatureCache:
    return open_cache(clips, "0" * 64, front_end, place, workers=workers)


def _ratio(first: Sequence[float], other: Sequence[float]) -> float:
    """Median of the ratios of the rounds."""
    return round(statistics.median(a / b for a, b in zip(first, other, strict=True)), 2)


def epochs(data: AudioData, batches: Sequence[Tensor], rounds: int) -> dict[str, Any]:
    """Clips per second of whole epochs from the cache and without."""
    count = sum(len(batch) for batch in batches)
    sides = {"computed": compute, "cached": read}
    seconds: dict[tuple[str, int], list[float]] = {(side, n): [] for side in sides for n in _LOADERS}
    difference = 0.0
    for _ in range(rounds):
        for loaders in _LOADERS:
            found = {}
            for side, load in sides.items():
                started = time.perf_counter()
                found[side] = list(prefetched(lambda part, load=load: load(data, part), batches, Waiting(), loaders))
                seconds[side, loaders].append(time.perf_counter() - started)
            for exact, kept in zip(found["computed"], found["cached"], strict=True):
                difference = max(difference, float((exact - kept).abs().max()) * 2 * data.front_end.std)
    return {
        "clips": count,
        **{
            f"{n} loaders": {
                **{side: round(count / statistics.median(seconds[side, n]), 1) for side in sides},
                "ratio": _ratio(seconds["computed", n], seconds["cached", n]),
            }
            for n in _LOADERS
        },
        "largest_raw_difference": difference,
        "equal": difference <= _HALF_STEP,
    }


def waits(data: AudioData, batches: Sequence[Tensor], rounds: int) -> dict[str, Any]:
    """Share of an epoch in which a model of 5 ms a batch stands still."""
    shares: dict[int, list[float]] = {n: [] for n in _LOADERS}
    long = (list(batches) * _STEPS)[:_STEPS]
    for _ in range(rounds):
        for loaders in _LOADERS:
            waiting = Waiting()
            started = time.perf_counter()
            for _ in prefetched(lambda part: read(data, part), long, waiting, loaders):
                time.sleep(_MODEL_SECONDS)
            shares[loaders].append(waiting.seconds / (time.perf_counter() - started))
    share = {f"{n} loaders": round(statistics.median(values), 4) for n, values in shares.items()}
    return {
        "model_ms_per_batch": 1000 * _MODEL_SECONDS,
        "steps": _STEPS,
        "share": share,
        "lowest_share_seen": {f"{n} loaders": round(min(values), 4) for n, values in shares.items()},
        "bar": _MOST_WAIT,
        "below_bar": min(share.values()) < _MOST_WAIT,
    }


def main() -> int:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set laid out as ESC-50")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=160, help="of an epoch")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of a build")
    parser.add_argument("--out", type=Path, default=_RESULT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as cache:
        options = DataOptions(dataset="esc50", path=str(given.data))
        data = open_data(options, AstFrontEnd(), cache_root=Path(cache))
        opening = [
            timed(lambda: open_data(options, AstFrontEnd(), cache_root=Path(cache)))[1] for _ in range(given.rounds)
        ]
        order = torch.randperm(data.size("train"), generator=torch.Generator().manual_seed(0))[: given.clips]
        batches = order.split(_BATCH)
        result: dict[str, Any] = {
            "clips": sum(data.size(split) for split in ("train", "val", "test")),
            "frames": data.front_end.frames,
            "batch": _BATCH,
            "rounds": given.rounds,
            "open_again_ms": round(1000 * statistics.median(opening), 1),
            "clip": per_clip(data, batches, given.rounds),
            "build": building(data.clips("train")[:_BUILT], given.rounds, given.threads),
            "epoch": epochs(data, batches, given.rounds),
            "wait": waits(data, batches, given.rounds),
            "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    for name in ("clip", "build", "epoch", "wait"):
        print(f"{name}: " + json.dumps(result[name]))
    good = result["wait"]["below_bar"] and all(result[name]["equal"] for name in ("clip", "build", "epoch"))
    print(f"opened again in {result['open_again_ms']} ms; {'all equal' if good else 'FAILED'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
