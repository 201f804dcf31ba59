from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from search.scheduler import Asha
from search.space import SchedulerOptions


def test_rungs_are_exact_powers() -> None:
    assert SchedulerOptions().rungs(27) == (3, 9)
    assert SchedulerOptions().rungs(82) == (3, 9, 27, 81)
    assert SchedulerOptions(grace_epochs=1, eta=2).rungs(8) == (1, 2, 4)
    assert SchedulerOptions(name="none").rungs(27) == ()


def test_nothing_stops_before_eta_trials_have_reached_the_rung() -> None:
    rule = Asha("max", (3,), 3)
    assert not rule.report("a", 3, 0.5)
    assert not rule.report("b", 3, 0.4)
    assert rule.report("c", 3, 0.3)
    assert not rule.report("d", 3, 0.6)
    assert rule.report("e", 3, 0.5)


def test_nothing_is_judged_between_rungs() -> None:
    rule = Asha("max", (3,), 1)
    rule.report("a", 3, 0.9)
    assert not any(rule.report("b", epoch, 0.0) for epoch in (1, 2, 4, 5))


def test_a_trial_is_judged_once_per_rung() -> None:
    rule = Asha("max", (3,), 2)
    rule.report("a", 3, 0.9)
    assert rule.report("b", 3, 0.1)
    assert not rule.report("b", 3, 0.1), "a retry that reports its epoch again is not judged anew"


def test_not_a_number_is_the_worst_value() -> None:
    rule = Asha("min", (1,), 2)
    rule.report("a", 1, 100.0)
    assert rule.report("b", 1, float("nan"))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(2, 5), st.sampled_from(["max", "min"]))
def test_survivors_are_among_the_best_share_at_their_time(values: list[float], eta: int, mode: str) -> None:
    rule = Asha(mode, (2,), eta)
    seen: list[float] = []
    for number, value in enumerate(values):
        stops = rule.report(f"t{number}", 2, value)
        seen.append(value)
        better = sum(v > value if mode == "max" else v < value for v in seen)
        assert stops == (len(seen) >= eta and better >= len(seen) // eta)


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1)), max_size=40))
def test_replaying_the_past_gives_the_same_decisions(reports: list[tuple[int, float]]) -> None:
    whole, again = Asha("max", (1,), 3), Asha("max", (1,), 3)
    half = len(reports) // 2
    decisions = [whole.report(f"t{trial}", 1, value) for trial, value in reports]
    for trial, value in reports[:half]:
        again.report(f"t{trial}", 1, value)
    assert [again.report(f"t{t}", 1, v) for t, v in reports[half:]] == decisions[half:]
