from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petl.errors import UserError
from search.resources import MOST_CPU_GROUPS, Resources, plan_groups


def test_two_cores_run_two_trials_of_one_cpu() -> None:
    plan = plan_groups(Resources(cpus=2))
    assert (plan.groups, plan.workers, plan.cpus, plan.gpus) == (2, 1, 1, 0.0)


def test_a_gpu_machine_runs_one_trial_per_gpu_and_shares_out_its_cpus() -> None:
    plan = plan_groups(Resources(cpus=32, gpus=4))
    assert (plan.groups, plan.cpus, plan.gpus) == (4, 8, 1.0)


def test_fractions_of_a_gpu_share_it() -> None:
    assert plan_groups(Resources(cpus=16, gpus=2), gpus_per_worker=0.25).groups == 8
    assert plan_groups(Resources(cpus=16, gpus=1), gpus_per_worker=0.4).groups == 2


def test_many_cores_become_threads() -> None:
    plan = plan_groups(Resources(cpus=64))
    assert (plan.groups, plan.cpus) == (MOST_CPU_GROUPS, 8)


def test_fewer_trials_than_room_get_more_each() -> None:
    assert plan_groups(Resources(cpus=4), trials=1).cpus == 4
    assert plan_groups(Resources(cpus=4), concurrent=2).cpus == 2


@pytest.mark.parametrize(
    ("available", "arguments", "said"),
    [
        (Resources(2), {"workers_per_trial": 3}, "needs 3 CPUs"),
        (Resources(8, 1), {"gpus_per_worker": 2.0}, "there are 8 CPUs and 1 GPU\\."),
        (Resources(8, 4), {"gpus_per_worker": 1.5}, "a share of one GPU"),
        (Resources(8, 4), {"gpus_per_worker": float("inf")}, "a share of one GPU"),
        (Resources(8, 4), {"gpus_per_worker": float("nan")}, "a share of one GPU"),
        (Resources(8), {"gpus_per_worker": 1.0}, "Lower --workers-per-trial, --gpus-per-worker"),
    ],
)
def test_what_does_not_fit_is_said(available: Resources, arguments: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan_groups(available, **arguments)


@given(st.integers(1, 256), st.integers(0, 16), st.integers(1, 4), st.sampled_from([None, 0.25, 0.5, 1.0, 2.0]))
def test_a_plan_never_asks_for_more_than_there_is(cpus: int, gpus: int, workers: int, share: float | None) -> None:
    try:
        plan = plan_groups(Resources(cpus, gpus), workers_per_trial=workers, gpus_per_worker=share)
    except UserError:
        return
    assert plan.groups * plan.workers * plan.cpus <= cpus
    assert plan.groups * plan.workers * plan.gpus <= gpus + 1e-9
