"""What a search asks of a cluster: how large a worker is, and how many trials there may be at a time (torch-free).

On a cluster nodes come and go, so what is there now decides little. A worker is as large as every kind of node that
could hold one allows; how many groups there are follows the trials (`search.groups`), up to a ceiling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from petl.errors import UserError
from search.resources import MOST_CPU_GROUPS, GroupPlan, gpus_of_worker, workers_on_gpus

MOST_GROUPS = 256
"""Trials at a time on any cluster: each has a process on the head node (docs/scale.md)."""


@dataclass(frozen=True)
class Shape:
    """A kind of node: what one offers, and how many there are or can be."""

    cpus: int
    gpus: int = 0
    count: int = 1
    name: str = ""  # of the autoscaler's node type; "" for a node that is there

    def __str__(self) -> str:
        kind = f"node type {self.name!r}" if self.name else "a node"
        return f"{kind} has {self.cpus} CPUs and {self.gpus} GPUs"


def plan_on_cluster(
    shapes: Sequence[Shape],
    *,
    autoscaling: bool,
    types_known: bool = True,
    workers_per_trial: int = 1,
    gpus_per_worker: float | None = None,
    cpus_per_worker: int | None = None,
    concurrent: int | None = None,
    trials: int | None = None,
) -> GroupPlan:
    """One GPU a worker where any node has one (fractions share one), else one CPU a worker; the node's CPUs shared out.

    Args:
        shapes: the nodes that are there and those that the autoscaler may add.
        autoscaling: whether an autoscaler starts nodes. Otherwise anybody may add them.
        types_known: whether `shapes` holds what the autoscaler may start: then nothing else can come.
        cpus_per_worker: None for the worker's share of its node.

    Raises:
        UserError: no node can ever hold a worker, or all of them together not a trial.
    """
    closed = autoscaling and types_known
    if autoscaling and not types_known and not shapes:
        if gpus_per_worker is None:
            raise UserError(
                "the cluster has no node that trains yet, and its autoscaler does not say what it may start: say what "
                "a worker needs, --gpus-per-worker 1 (or 0), and --cpus-per-worker for more than one CPU"
            )
        shapes = [Shape(cpus_per_worker or 1, math.ceil(gpus_per_worker), MOST_GROUPS)]
    gpus = gpus_of_worker(gpus_per_worker, any(shape.gpus for shape in shapes))
    fitting = [(shape, each) for shape in shapes if (each := _workers_on(shape, gpus, cpus_per_worker)) > 0]
    if not fitting:
        largest = max(shapes, key=lambda s: (s.gpus, s.cpus), default=None)
        raise UserError(
            f"a worker needs {cpus_per_worker or 1} CPU and {gpus:g} GPU, and no node of the cluster can ever hold "
            f"one: {f'the largest, {largest},' if largest else 'there is no node'} is not enough. "
            "Ask for less (--gpus-per-worker, --cpus-per-worker), or add a larger node."
        )
    room = sum(shape.count * each for shape, each in fitting)
    if closed and room < workers_per_trial:
        raise UserError(
            f"--workers-per-trial {workers_per_trial}: the cluster can never hold more than {room} workers of "
            f"{gpus:g} GPU, even when every node that may be added is there"
        )
    limits = [MOST_GROUPS, concurrent, trials, room // workers_per_trial if closed else None]
    cpus = cpus_per_worker or min(shape.cpus // each for shape, each in fitting)
    return GroupPlan(min(n for n in limits if n is not None), workers_per_trial, max(1, cpus), gpus, grows=True)


def _workers_on(shape: Shape, gpus: float, cpus: int | None) -> int:
    """How many workers a node of this kind holds."""
    if gpus <= 0:
        return shape.cpus // cpus if cpus else min(shape.cpus, MOST_CPU_GROUPS)
    return min(shape.cpus // (cpus or 1), workers_on_gpus(shape.gpus, gpus))
