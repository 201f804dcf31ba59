"""Whether a cache that is larger than memory trains as a small one does, and why rows are read and not mapped.

    uv run python benchmarks/cache_streaming.py [--rows 200000] [--files 12] [--rounds 3]

* epoch: one epoch in random order over a cache of the real layout (26 GB for 200,000 clips of five seconds; the files
  are sparse, so that they need little disk, and every row begins with its own number). Anonymous and file-backed
  memory of the process before, during and after. Bar: anonymous memory grows by less than 32 MiB and file-backed by
  less than 64 MiB.
* reading: rows in random order out of full files by positioned reads, as `trainables.data.arrow_file` does, against
  four ways to read through a mapping, all giving equal numbers; with the files in the page cache (warm), and with the
  page cache told to forget them (cold). Microseconds per row with the conversion to float32, ways taking turns.

Prints tables, writes `benchmarks/results/cache_streaming.json`; exits 1 above a bar or when numbers differ.
"""

from __future__ import annotations

import argparse
import gc
import json
import mmap
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from petl.frontend import AstFrontEnd
from trainables.data.arrow_file import KEY_BYTES, RowFiles, read_facts, write
from trainables.data.cache import FeatureCache
from trainables.data.cache_build import rows_of
from trainables.data.cache_index import INDEX, VERSION, write_index
from trainables.data.clips import Clip
from trainables.data.features import Row

_RESULT = Path(__file__).resolve().parent / "results" / "cache_streaming.json"
_FRONT_END = AstFrontEnd()
_FRAMES = 498  # of five seconds
_ITEMS = _FRAMES * _FRONT_END.width
_PER_FILE = 1000
_BLOCK = 1 << 16
_ANON_BAR, _FILE_BAR = 32.0, 64.0  # MiB


def memory() -> dict[str, float]:
    """MiB of this process: anonymous, and pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {
        name: int(rest.split()[0]) / 1024 for name, rest in (line.split(":", 1) for line in lines if "Rss" in line)
    }
    return {"anonymous": round(found["RssAnon"], 1), "files": round(found["RssFile"], 1)}


def sparse_cache(folder: Path, rows: int) -> FeatureCache:
    """A cache of `rows` clips whose features are 0 but for the first two numbers: the clip's own, in two digits."""
    zeros_TM = np.zeros((_FRAMES, _FRONT_END.width), np.float16)
    template = folder / "template"
    blank = Row(zeros_TM, frames=_FRAMES, seconds=5.0)
    write(template, ((bytes(KEY_BYTES), blank) for _ in range(_PER_FILE)), "float16", "stamp", 1 << 40)
    facts = read_facts(template, "float16", "stamp")
    starts = facts["offset"].to_pylist()
    content = template.read_bytes()
    filled = [
        i for i in range(0, len(content), _BLOCK) if content[i : i + _BLOCK].count(0) < len(content[i : i + _BLOCK])
    ]
    shards = []
    for first in range(0, rows, _PER_FILE):
        name = f"{first:09d}-{first + _PER_FILE - 1:09d}.arrow"
        with (folder / name).open("wb", buffering=0) as file:
            file.truncate(len(content))
            for place in filled:
                os.pwrite(file.fileno(), content[place : place + _BLOCK], place)
            for row, place in enumerate(starts, first):
                os.pwrite(file.fileno(), np.array(divmod(row, 1000), np.float16).tobytes(), place)
        shards.append((name, len(content), facts))
    template.unlink()
    write_index(folder / INDEX, shards, {"version": VERSION, "front_end": rows_of(_FRONT_END)})
    return FeatureCache(folder, [Clip(Path(), "x")] * rows, _FRONT_END)


def epoch(rows: int, place: Path | None) -> dict[str, Any]:
    """Memory and seconds of one epoch."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        cache = sparse_cache(Path(folder), rows)
        on_disk = sum(path.stat().st_blocks * 512 for path in Path(folder).iterdir())
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(0)).tolist()
        for row in order[:1000]:
            cache.row(row)
        gc.collect()
        seen = [memory()]
        right = True
        pace = []
        for part in range(10):
            started = time.perf_counter()
            for row in order[part * rows // 10 : (part + 1) * rows // 10]:
                stored_TM = cache.row(row)
                right &= stored_TM.view(-1)[:2].tolist() == list(divmod(row, 1000))
            pace.append(round(1e6 * (time.perf_counter() - started) / (rows / 10), 1))
            seen.append(memory())
    growth = {kind: round(max(s[kind] for s in seen) - seen[0][kind], 1) for kind in seen[0]}
    return {
        "rows": rows,
        "gigabytes": round(size / 1e9, 1),
        "gigabytes_on_disk": round(on_disk / 1e9, 2),
        "shards": rows // _PER_FILE,
        "memory_of_machine_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "us_per_row_by_tenth": pace,
        "mib_before": seen[0],
        "mib_after": seen[-1],
        "mib_most_growth": growth,
        "bars_mib": {"anonymous": _ANON_BAR, "files": _FILE_BAR},
        "within_bars": growth["anonymous"] < _ANON_BAR and growth["files"] < _FILE_BAR,
        "equal": right,
    }


class Mapped:
    """Rows as views of mappings; `ahead` asks for the pages of a row at once."""

    def __init__(self, paths: list[Path], advice: int | None = None, ahead: bool = False) -> None:
        self.ahead = ahead
        self.maps = []
        for path in paths:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            if advice is not None:
                mapped.madvise(advice)
            self.maps.append((mapped, torch.frombuffer(mapped, dtype=torch.float16)))

    def read(self, number: int, offset: int, count: int) -> Tensor:
        mapped, numbers = self.maps[number]
        if self.ahead:
            first = offset // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_WILLNEED, first, min(offset + 2 * count, len(mapped)) - first)
        return numbers[offset // 2 : offset // 2 + count]


def reading(files: int, rounds: int, place: Path | None) -> dict[str, Any]:
    """Microseconds per row of each way to read."""
    ways: dict[str, Callable[[list[Path]], RowFiles | Mapped]] = {
        "positioned reads": lambda paths: RowFiles(paths, "float16"),
        "mapped": Mapped,
        "mapped, MADV_RANDOM": lambda paths: Mapped(paths, mmap.MADV_RANDOM),
        "mapped, MADV_RANDOM and WILLNEED": lambda paths: Mapped(paths, mmap.MADV_RANDOM, True),
    }
    found: dict[str, dict[str, list[float]]] = {way: {"warm": [], "cold": []} for way in ways}
    grown = dict.fromkeys(ways, 0.0)
    sums = set()
    with tempfile.TemporaryDirectory(dir=place) as folder:
        paths = [Path(folder) / str(number) for number in range(files)]
        for number, path in enumerate(paths):
            values = np.random.default_rng(number).standard_normal(_PER_FILE * _ITEMS // 8).astype(np.float16)
            with path.open("wb") as file:
                values.repeat(8).tofile(file)
                os.fsync(file.fileno())
        total = files * _PER_FILE
        order = torch.randperm(total, generator=torch.Generator().manual_seed(0)).tolist()[: total // 4]
        x_T = torch.empty(_ITEMS)
        for _ in range(rounds):
            for state in ("warm", "cold"):
                for way, make in ways.items():
                    _prepare(paths, state)
                    reader = make(paths)
                    before = memory()["files"]
                    checked = 0.0
                    started = time.perf_counter()
                    for row in order:
                        number, place_in = divmod(row, _PER_FILE)
                        x_T.copy_(reader.read(number, 2 * place_in * _ITEMS, _ITEMS))
                        checked += float(x_T[row % _ITEMS])
                    found[way][state].append(1e6 * (time.perf_counter() - started) / len(order))
                    grown[way] = max(grown[way], memory()["files"] - before)
                    sums.add(checked)
                    del reader
    medians = {
        way: {state: round(statistics.median(us), 1) for state, us in both.items()} for way, both in found.items()
    }
    own = medians["positioned reads"]
    return {
        "rows": len(order),
        "gigabytes": round(2 * total * _ITEMS / 1e9, 2),
        "us_per_row": medians,
        "times_positioned_reads": {
            way: {state: round(us[state] / own[state], 2) for state in us} for way, us in medians.items()
        },
        "mib_of_mapped_files": {way: round(value, 1) for way, value in grown.items()},
        "equal": len(sums) == 1,
    }


def _prepare(paths: list[Path], state: str) -> None:
    gc.collect()
    for path in paths:
        with path.open("rb") as file:
            if state == "warm":
                while file.read(1 << 24):
                    pass
            else:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> int:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--files", type=int, default=12, help="full files of 127 MB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", type=Path, help="folder on the disk to try (default: the system's temporary one)")
    parser.add_argument("--out", type=Path, default=_RESULT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "epoch": epoch(given.rows // _PER_FILE * _PER_FILE, given.place),
        "reading": reading(given.files, given.rounds, given.place),
        "load_average": round(os.getloadavg()[0], 2),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    good = result["epoch"]["within_bars"] and result["epoch"]["equal"] and result["reading"]["equal"]
    print("all equal, within the bars" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
