from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petl.errors import UserError
from search.cluster_plan import MOST_GROUPS, Shape, plan_on_cluster
from search.compute import _shapes
from search.probe import ClusterFacts, NodeFacts, NodeType


def test_a_gpu_node_gives_every_gpu_its_share_of_cpus() -> None:
    plan = plan_on_cluster([Shape(32, 4, 3)], autoscaling=False, trials=24)
    assert (plan.groups, plan.workers, plan.cpus, plan.gpus) == (24, 1, 8, 1.0)
    assert str(plan) == "up to 24 at a time, each 1 worker of 8 CPUs and 1 GPU"


def test_the_smallest_kind_of_node_that_is_used_decides_the_cpus() -> None:
    assert plan_on_cluster([Shape(32, 4), Shape(8, 4)], autoscaling=False).cpus == 2
    assert plan_on_cluster([Shape(32, 4), Shape(2, 0)], autoscaling=False).cpus == 8, "no GPU, no worker"


def test_an_autoscaler_is_the_ceiling_and_anything_else_is_not() -> None:
    growing = [Shape(8, 1, 4, "gpu_spot")]
    assert plan_on_cluster(growing, autoscaling=True, trials=100).groups == 4
    assert plan_on_cluster(growing, autoscaling=True, gpus_per_worker=0.5, trials=100).groups == 8
    assert plan_on_cluster(growing, autoscaling=False, trials=100).groups == 100, "somebody may add nodes"
    assert plan_on_cluster(growing, autoscaling=False).groups == MOST_GROUPS
    assert plan_on_cluster(growing, autoscaling=False, concurrent=3, trials=100).groups == 3


def test_an_autoscaler_that_does_not_say_what_it_may_start() -> None:
    """A person has to say what a worker needs; what is there decides as far as it goes."""
    with pytest.raises(UserError, match="--gpus-per-worker 1"):
        plan_on_cluster([], autoscaling=True, types_known=False)
    plan = plan_on_cluster([], autoscaling=True, types_known=False, gpus_per_worker=1, cpus_per_worker=6, trials=9)
    assert (plan.groups, plan.cpus, plan.gpus) == (9, 6, 1)
    there = plan_on_cluster([Shape(8, 1)], autoscaling=True, types_known=False, trials=9)
    assert (there.groups, there.cpus, there.gpus) == (9, 8, 1.0), "more of them may come"


def test_cpus_of_a_worker_can_be_asked_for() -> None:
    assert plan_on_cluster([Shape(32, 4)], autoscaling=False, cpus_per_worker=2).cpus == 2
    with pytest.raises(UserError, match="needs 16 CPU"):
        plan_on_cluster([Shape(8, 4)], autoscaling=False, cpus_per_worker=16)


@pytest.mark.parametrize(
    ("shapes", "arguments", "said"),
    [
        ([Shape(8, 1, 4, "gpu_spot")], {"gpus_per_worker": 2.0}, "node type 'gpu_spot' has 8 CPUs and 1 GPUs"),
        ([Shape(8, 0)], {"gpus_per_worker": 1.0}, "no node of the cluster can ever hold one"),
        ([], {}, "there is no node"),
        ([Shape(8, 2, 1)], {"workers_per_trial": 3}, "never hold more than 2 workers"),
        ([Shape(8, 2, 1)], {"gpus_per_worker": 1.5}, "a share of one GPU"),
    ],
)
def test_what_can_never_be_is_said_at_once(shapes: list[Shape], arguments: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan_on_cluster(shapes, autoscaling=True, **arguments)


@given(
    st.lists(st.builds(Shape, st.integers(1, 128), st.integers(0, 8), st.integers(1, 5)), min_size=1, max_size=4),
    st.integers(1, 4),
    st.sampled_from([None, 0.25, 0.5, 1.0, 2.0]),
)
def test_a_worker_fits_on_every_kind_of_node_that_counts(shapes: list[Shape], workers: int, share: float) -> None:
    try:
        plan = plan_on_cluster(shapes, autoscaling=True, workers_per_trial=workers, gpus_per_worker=share)
    except UserError:
        return
    each = [
        min(s.cpus // plan.cpus, int(s.gpus // plan.gpus + 1e-9) if plan.gpus else s.cpus) * s.count for s in shapes
    ]
    assert 1 <= plan.groups <= MOST_GROUPS
    assert sum(each) >= plan.groups * workers, "all groups can stand at the same time"


def test_a_head_without_cpus_counts_for_nothing_and_what_is_there_of_a_type_is_not_counted_twice() -> None:
    def node(id: str, **resources: float) -> NodeFacts:
        return NodeFacts(id, "10.0.0.1", id == "head", id == "head", resources)

    facts = ClusterFacts(
        "10.0.0.1:6379",
        "2.60.0",
        "3.11.7",
        True,
        (node("head", memory=1e9), node("a", CPU=8, GPU=1)),
        (NodeType("head", {}, 0, 0), NodeType("gpu_spot", {"CPU": 8, "GPU": 1}, 0, 3)),
    )
    assert _shapes(facts) == [Shape(8, 1), Shape(8, 1, 2, "gpu_spot")]
