"""Learning rate schedules against torch's and transformers' own, step by step."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from trainables.config import ScheduleOptions
from trainables.schedule import learning_rate_factor, warmup_steps


def _factors(epochs: int, steps: int, **options: Any) -> list[float]:
    schedule = ScheduleOptions(**options)
    return [learning_rate_factor(schedule, epochs, 1 + i // steps, i % steps, steps) for i in range(epochs * steps)]


def _rates(make: Any, count: int, every: int = 1) -> list[float]:
    """What a scheduler of torch gives over `count` steps, with a peak of 1, stepped after `every` steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for i in range(count):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        if (i + 1) % every == 0:
            scheduler.step()
    return rates


@pytest.mark.parametrize(("epochs", "steps"), [(1, 7), (4, 5), (10, 13)])
def test_cosine_is_torchs(epochs: int, steps: int) -> None:
    count = epochs * steps
    theirs = _rates(lambda o: lr_scheduler.CosineAnnealingLR(o, count), count)
    assert _factors(epochs, steps) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize(("start", "every", "factor"), [(5, 1, 0.85), (10, 5, 0.5), (1, 3, 0.1)])
def test_step_is_torchs_with_milestones(start: int, every: int, factor: float) -> None:
    epochs, steps = 24, 3
    theirs = _rates(
        lambda o: lr_scheduler.MultiStepLR(o, list(range(start, 1000, every)), gamma=factor), epochs * steps, steps
    )
    ours = _factors(epochs, steps, name="step", step_start=start, step_every=every, step_factor=factor)
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert ours[start * steps - 1] == 1.0 and ours[start * steps] == pytest.approx(factor)


@pytest.mark.parametrize("warmup", [{}, {"warmup_steps": 7}, {"warmup_ratio": 0.1}, {"warmup_epochs": 1.5}])
@pytest.mark.parametrize("name", ["linear", "cosine", "constant"])
def test_warmup_and_decay_are_those_of_transformers(name: str, warmup: dict[str, Any]) -> None:
    epochs, steps = 6, 11
    count = epochs * steps
    length = warmup_steps(ScheduleOptions(**warmup), epochs, steps)
    make = {
        "linear": lambda o: get_linear_schedule_with_warmup(o, length, count),
        "cosine": lambda o: get_cosine_schedule_with_warmup(o, length, count),
        "constant": lambda o: get_constant_schedule_with_warmup(o, length),
    }[name]
    theirs = _rates(make, count + 1)
    ours = _factors(epochs, steps, name=name, **warmup)
    assert ours[:length] == pytest.approx(theirs[1 : length + 1], abs=1e-12), "one step earlier"
    assert ours[length:] == pytest.approx(theirs[length:count], abs=1e-12)


def test_length_of_the_warmup() -> None:
    assert warmup_steps(ScheduleOptions(warmup_ratio=0.1), 3, 7) == math.ceil(2.1) == 3
    assert warmup_steps(ScheduleOptions(warmup_epochs=2.5), 10, 5) == 12
    assert warmup_steps(ScheduleOptions(warmup_steps=1000), 2, 3) == 1000
    assert warmup_steps(ScheduleOptions(), 2, 3) == 0


def test_tri_stage_by_hand() -> None:
    """20 steps: 2 of warm-up, full until ⌈20 · 0.5⌉ = 10, then 10 equal steps down."""
    found = _factors(4, 5, name="tri_stage", warmup_ratio=0.1)
    assert found == pytest.approx([0.5] + [1.0] * 9 + [1 - i / 10 for i in range(10)])
    # ⌈7 · 0.4⌉ = 3: the plateau ends on a whole step.
    assert _factors(1, 7, name="tri_stage") == pytest.approx([1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert _factors(1, 5, name="tri_stage", hold_ratio=1.0, warmup_steps=2) == [0.5, 1, 1, 1, 1]


def test_a_warmup_longer_than_the_plateau_meets_the_decay() -> None:
    """10 steps, warm-up 8, plateau until 4: up to where it meets (10 - s) / 6, then down; no jump."""
    found = _factors(2, 5, name="tri_stage", warmup_steps=8)
    assert found == pytest.approx([1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_a_step_decay_goes_on_under_a_warmup() -> None:
    found = _factors(4, 2, name="step", step_start=1, step_factor=0.5, warmup_steps=4)
    assert found == pytest.approx([1 / 4, 2 / 4, 3 / 8, 4 / 8, 1 / 4, 1 / 4, 1 / 8, 1 / 8])


_OPTIONS = st.one_of(
    st.fixed_dictionaries({}),
    st.fixed_dictionaries({"warmup_epochs": st.floats(0.1, 3)}),
    st.fixed_dictionaries({"warmup_steps": st.integers(1, 60)}),
    st.fixed_dictionaries({"warmup_ratio": st.floats(0.01, 0.9)}),
)


@given(
    name=st.sampled_from(["cosine", "linear", "constant", "tri_stage", "step"]),
    warmup=_OPTIONS,
    hold=st.floats(0, 1),
    start=st.integers(1, 6),
    epochs=st.integers(1, 8),
    steps=st.integers(1, 40),
)
def test_factors_are_shares_and_turn_down_once(
    name: Any, warmup: dict[str, Any], hold: float, start: int, epochs: int, steps: int
) -> None:
    options = ScheduleOptions(name=name, hold_ratio=hold, step_start=start, **warmup)
    found = [learning_rate_factor(options, epochs, e, i, steps) for e in range(1, epochs + 1) for i in range(steps)]
    assert all(0 <= factor <= 1 for factor in found)
    assert found[0] > 0
    length = warmup_steps(options, epochs, steps)
    after = found[length:]
    assert all(a >= b for a, b in pairwise(after))
    if name in ("cosine", "linear", "tri_stage") and length < epochs * steps:
        # No jump: nothing changes faster than the steepest of the ramps.
        plateau = math.ceil(epochs * steps * (hold + options.warmup_ratio)) if name == "tri_stage" else length
        steepest = max(1 / max(1, length), math.pi / 2 / max(1, epochs * steps - min(epochs * steps, plateau)))
        assert all(abs(a - b) <= steepest + 1e-9 for a, b in pairwise(found))


@given(steps=st.lists(st.integers(20, 24), min_size=2, max_size=8), name=st.sampled_from(["cosine", "linear"]))
def test_epochs_of_different_lengths_join_smoothly(steps: list[int], name: Any) -> None:
    """Batches by seconds: an epoch has a few steps more or less than the one before."""
    options = ScheduleOptions(name=name, warmup_epochs=1.0)
    found = [
        learning_rate_factor(options, len(steps), epoch, i, count)
        for epoch, count in enumerate(steps, 1)
        for i in range(count)
    ]
    assert found[steps[0] - 1] == found[steps[0]] == 1.0, "the warm-up is the first epoch, however long it is"
    assert all(a >= b for a, b in pairwise(found[steps[0] :]))
    assert max(abs(a - b) for a, b in pairwise(found)) <= max(1 / 20, math.pi / 2 / 20 / (len(steps) - 1)) + 1e-9
    assert found[-1] < 0.06 * 8 / (len(steps) - 1)
