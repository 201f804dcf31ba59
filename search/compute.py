"""What a search runs on: this machine, or a cluster that is there already (torch-free, Ray-free)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from petl.errors import UserError
from search.cluster_plan import MOST_GROUPS, Shape, plan_on_cluster
from search.head_memory import SLOT_MB, slots_here
from search.probe import ClusterFacts, probe
from search.request import Request
from search.resources import GroupPlan, local_resources, plan_groups


@dataclass(frozen=True)
class Compute:
    """How many groups of what size, and how to reach or start the Ray that holds them."""

    plan: GroupPlan
    ray_args: dict[str, Any]  # of `ray.init`
    token: bool = False  # the cluster asks for a token, and ours is right
    several_nodes: bool = False


def compute_for(request: Request, trials: int | None, note: Callable[[str], None]) -> Compute:
    """Look at what there is; starts nothing.

    Raises:
        UserError: a trial can never fit, or the cluster cannot be used from here. Within some twenty seconds.
    """
    asked: dict[str, Any] = {
        "workers_per_trial": request.workers_per_trial or 1,
        "gpus_per_worker": request.gpus_per_worker,
        "cpus_per_worker": request.cpus_per_worker,
        "concurrent": request.concurrent,
        "trials": trials,
    }
    if request.address is None:
        local = local_resources()
        return Compute(plan_groups(local, **asked), {"num_cpus": local.cpus, "num_gpus": local.gpus or None})
    found = probe(request.address)
    for caution in found.cautions:
        note(caution)
    plan = plan_on_cluster(_shapes(found), autoscaling=found.autoscaling, types_known=bool(found.types), **asked)
    slots = slots_here()
    if plan.groups > slots:
        note(
            f"at most {slots} trials at a time instead of {plan.groups}: each takes {SLOT_MB} MB of the machine "
            "that drives the search, and no more is free here (docs/scale.md)"
        )
        plan = replace(plan, groups=slots)
    several = len(found.nodes) > 1 or found.autoscaling
    if several and not request.storage:
        raise UserError(
            f"the cluster at {found.address} has several nodes, or may grow: give a place for checkpoints that all of "
            "them see, --storage PATH (a shared directory) or --storage s3://BUCKET/FOLDER"
        )
    return Compute(plan, {"address": found.address}, found.token, several)


def _shapes(found: ClusterFacts) -> list[Shape]:
    """The nodes that are there, and those that may come besides."""
    shapes = [Shape(int(n.resources.get("CPU", 0)), int(n.resources.get("GPU", 0))) for n in found.nodes]
    there = Counter((shape.cpus, shape.gpus) for shape in shapes)
    for kind in found.types:
        size = (int(kind.resources.get("CPU", 0)), int(kind.resources.get("GPU", 0)))
        most = kind.most if kind.most is not None else MOST_GROUPS
        counted = min(most, there[size])  # nodes of this type, or of another that is no different: counted already
        there[size] -= counted
        if most > counted:
            shapes.append(Shape(*size, most - counted, kind.name))
    return [shape for shape in shapes if shape.cpus]
