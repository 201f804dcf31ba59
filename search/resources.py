"""How many worker groups a machine carries, and what each gets (torch-free, Ray-free)."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import dataclass

from petl.errors import UserError

MOST_CPU_GROUPS = 8
"""On machines without accelerators more groups than this cost more memory than they win; the rest are threads."""


@dataclass(frozen=True)
class Resources:
    """What can be used in all."""

    cpus: int
    gpus: int = 0


@dataclass(frozen=True)
class GroupPlan:
    """`groups` trials run at a time, each in `workers` processes with `cpus` CPUs and `gpus` GPUs."""

    groups: int
    workers: int
    cpus: int
    gpus: float
    grows: bool = False  # `groups` is a ceiling: how many there are follows trials and nodes

    def __str__(self) -> str:
        each = number_of(self.workers, "worker")
        cpus = number_of(self.cpus, "CPU")
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        most = "up to " if self.grows else ""
        return f"{most}{self.groups} at a time, each {each} of {cpus}{gpus}"


def local_resources() -> Resources:
    """CPUs this process may use and GPUs the driver knows; starts nothing, imports nothing heavy."""
    return Resources(
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        gpus=_visible_gpus(),
    )


def plan_groups(
    available: Resources,
    *,
    workers_per_trial: int = 1,
    gpus_per_worker: float | None = None,
    cpus_per_worker: int | None = None,
    concurrent: int | None = None,
    trials: int | None = None,
) -> GroupPlan:
    """Fill what is there: one GPU a worker where there are GPUs (fractions share one), else one CPU a worker.

    Raises:
        UserError: when a single group does not fit; says what one needs and what there is.
    """
    gpus = gpus_of_worker(gpus_per_worker, available.gpus > 0)
    fit = available.cpus // (workers_per_trial * (cpus_per_worker or 1))
    if gpus > 0:
        fit = min(fit, workers_on_gpus(available.gpus, gpus) // workers_per_trial)
    else:
        fit = min(fit, MOST_CPU_GROUPS)
    if fit < 1:
        raise UserError(
            f"a trial of {number_of(workers_per_trial, 'worker')} with {number_of(cpus_per_worker or 1, 'CPU')} and "
            f"{number_of(gpus, 'GPU')} each needs {number_of(workers_per_trial * (cpus_per_worker or 1), 'CPU')} and "
            f"{number_of(workers_per_trial * gpus, 'GPU')}; there are {number_of(available.cpus, 'CPU')} and "
            f"{number_of(available.gpus, 'GPU')}. "
            "Lower --workers-per-trial, --gpus-per-worker or --cpus-per-worker."
        )
    groups = min(g for g in (fit, concurrent, trials) if g is not None)
    cpus = cpus_per_worker or available.cpus // (groups * workers_per_trial)
    return GroupPlan(groups, workers_per_trial, max(1, cpus), gpus)


def number_of(count: float, what: str) -> str:
    return f"{count:g} {what}{'' if count == 1 else 's'}"


def gpus_of_worker(asked: float | None, any_there: bool) -> float:
    """How many GPUs a worker gets, or which share of one.

    Raises:
        UserError: what was asked for is neither a share nor a whole number.
    """
    gpus = asked if asked is not None else (1.0 if any_there else 0.0)
    if not math.isfinite(gpus) or gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise UserError(f"--gpus-per-worker {gpus:g}: give a share of one GPU (0.25) or a whole number of them")
    return gpus


def workers_on_gpus(gpus: int, each: float) -> int:
    """How many workers of `each` share or number these GPUs carry: Ray never gives a worker parts of two."""
    return gpus * int(1 / each + 1e-9) if each < 1 else int(gpus // each)


def _visible_gpus() -> int:
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is not None:
        return len([part for part in shown.split(",") if part.strip() and part.strip() != "-1"])
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
