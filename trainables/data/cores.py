"""How many cores this process was given (torch-free)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_SYSTEM = Path("/")


def granted_cores(system: Path = _SYSTEM) -> int:
    """Cores this process may keep busy: its affinity, and the processor time its container may use, rounded up.

    Containers are limited by a quota of processor time (cgroup `cpu.max`, or `cpu.cfs_quota_us` in version 1), which
    the count of processors does not show. `system` is where `/proc` and `/sys` are looked for.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(system))]))


def _quotas(system: Path) -> Iterator[float]:
    """Processor time per time that each cgroup of this process allows, where one sets a limit."""
    mounted = system / "sys/fs/cgroup"
    for hierarchy, name in _own_groups(system):
        base = mounted / hierarchy
        # Limits of outer groups hold, too. Inside of a container the own group is mounted as the root.
        for folder in (base / name, *(base / name).parents):
            if folder != base and base not in folder.parents:
                break
            with suppress(OSError, ValueError):
                if hierarchy:
                    quota = int((folder / "cpu.cfs_quota_us").read_text())
                    period = int((folder / "cpu.cfs_period_us").read_text())
                else:
                    words = (folder / "cpu.max").read_text().split()
                    quota, period = int(words[0]), int(words[1])  # "max" is no number: no limit
                if quota > 0 and period > 0:
                    yield quota / period


def _own_groups(system: Path) -> Iterator[tuple[str, str]]:
    """(folder of the hierarchy below the mount, group in it): version 2 has no such folder, version 1 "cpu"."""
    with suppress(OSError, ValueError):
        for line in (system / "proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers:
                yield "", name.lstrip("/")
            elif "cpu" in controllers.split(","):
                yield "cpu", name.lstrip("/")
