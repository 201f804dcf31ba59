"""How many trials at a time the machine that drives a search has memory for (torch-free, Ray-free)."""

from __future__ import annotations

from pathlib import Path

import psutil

SLOT_MB = 240
"""A trial at a time has two processes on the head: its proxy, of 115 MB (`benchmarks/driver_scale.py`), and what Ray
Train lets the workers of a group meet at, 107 MB."""
_DRIVER_MB = 1024  # what the driver itself comes to in a search of thousands of trials
_RAY_ENDS_AT = 0.95  # of the memory: then Ray ends processes, and proxies are among them
_LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def slots_here(control: Path = Path("/sys/fs/cgroup")) -> int:
    """How many trials at a time fit into what is free, less what the driver will need; one at least.

    `control`: the folder of the control group that may limit this process, as containers have it (version 1 or 2).
    """
    memory = psutil.virtual_memory()
    rooms = [(memory.total, memory.total - memory.available)]
    for most, used in _LIMITS:
        limit, in_use = _number(control / most), _number(control / used)
        if limit is not None and in_use is not None and limit < memory.total:
            rooms.append((limit, in_use))
    free = min(_RAY_ENDS_AT * total - in_use for total, in_use in rooms)
    return max(1, int((free / (1 << 20) - _DRIVER_MB) // SLOT_MB))


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # not limited: there is no such file, or it says "max"
        return None
