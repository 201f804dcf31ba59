"""Which epoch is the best, and when waiting ends."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.stopping import EarlyStopping


def test_it_stops_after_so_many_epochs_without_a_better_one() -> None:
    stopping = EarlyStopping("max", patience=2)
    seen = []
    for value in [0.5, 0.4, 0.6, 0.6, 0.5]:
        seen.append((stopping.update(value), stopping.stop))
    assert seen == [(True, False), (False, False), (True, False), (False, False), (False, True)]
    assert stopping.best == 0.6
    stopping.update(0.7)
    assert not stopping.stop


def test_smaller_is_better_where_the_mode_says_so() -> None:
    stopping = EarlyStopping("min", patience=1)
    assert stopping.update(2.0) and stopping.update(1.0) and not stopping.update(1.5)
    assert stopping.stop and stopping.best == 1.0


@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_better(worst: float) -> None:
    for mode in ("max", "min"):
        stopping = EarlyStopping(mode, patience=2)
        assert not stopping.update(worst) and stopping.best is None
        assert stopping.update(0.0)
        assert not stopping.update(worst) and not stopping.stop
        assert not stopping.update(worst) and stopping.stop


def test_without_patience_it_never_stops() -> None:
    stopping = EarlyStopping("max")
    for _ in range(50):
        stopping.update(0.0)
    assert not stopping.stop and stopping.waited == 49


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12), st.integers(0, 12), st.sampled_from(["max", "min"]))
def test_it_goes_on_from_a_checkpoint(values: list[float], cut: int, mode: str) -> None:
    straight, first = EarlyStopping(mode, 3), EarlyStopping(mode, 3)
    expected = [(straight.update(v), straight.stop) for v in values]
    found = [(first.update(v), first.stop) for v in values[:cut]]
    second = EarlyStopping(mode, 3)
    second.restore(json.loads(json.dumps({"epoch": cut, **first.state()})))
    found += [(second.update(v), second.stop) for v in values[cut:]]
    assert found == expected
    better = max if mode == "max" else min
    assert second.best == better(values)


def test_checkpoints_without_a_count() -> None:
    stopping = EarlyStopping("max", 1)
    stopping.restore({"best": 0.5})
    assert stopping.best == 0.5 and not stopping.stop
    assert not stopping.update(0.4) and stopping.stop
