"""The thrifty sampler draws what Optuna's own would, on spaces with conditions, in every state a trial can be in."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from search.tpe import ThriftyTPE


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


class Held(ThriftyTPE):
    """Holds what it models against Optuna's own sampler, and counts what is worked out of trials."""

    def __init__(self, startup: int, seed: int) -> None:
        super().__init__(startup, seed)
        self.own = optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, n_startup_trials=startup, seed=seed
        )
        self.rows: list[tuple[tuple[str, ...], int, TrialState]] = []
        self.draws: list[list[str]] = []

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        found = super().infer_relative_search_space(study, trial)
        assert list(found.items()) == list(self.own.infer_relative_search_space(study, trial).items())
        return found

    def _sample(self, study: Any, trial: Any, search_space: Any) -> Any:
        self.own._rng.rng.set_state(self._rng.rng.get_state())
        expected = self.own._sample(study, trial, search_space)
        found = super()._sample(study, trial, search_space)
        assert found == expected
        assert str(self._rng.rng.get_state()) == str(self.own._rng.rng.get_state())
        self.draws.append(list(search_space))
        return found

    def _row(self, trial: Any, search_space: Any) -> Any:
        self.rows.append((tuple(search_space), trial.number, trial.state))
        return super()._row(trial, search_space)


def draw(trial: optuna.Trial) -> dict[str, Any]:
    """Parameters of every kind, most of them only beside certain others."""
    trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    method = trial.suggest_categorical("method", ["adapter", "lora", "prompt", "moa"])
    if method in ("adapter", "moa"):
        trial.suggest_int("reduction", 0, 4)
        trial.suggest_float("scale", 0.1, 10)
    if method == "lora":
        trial.suggest_int("rank", 1, 64, log=True)
    if method == "moa":
        trial.suggest_int("experts", 2, 16, step=2)
        if trial.suggest_categorical("soft", [True, False]):
            trial.suggest_float("slots", 1, 8, step=0.5)
    trial.suggest_categorical("only", ["one"])
    return trial.params


LEVELS = (0.0, 0.25, 0.5, 1.0)  # few, so that many are equal, as accuracies on a small split are
ENDS = ("complete", "prune", "infeasible", "infeasible but complete", "fail")


@given(
    seed=st.integers(0, 2**31),
    directions=st.sampled_from([["maximize"], ["minimize"], ["maximize", "minimize"]]),
    startup=st.integers(1, 12),
    usual=st.sampled_from(ENDS),
    steps=st.lists(st.sampled_from(["ask", "ask", "usual", "usual", *ENDS, "queue"]), min_size=40, max_size=120),
    pick=st.randoms(use_true_random=False),
)
@settings(max_examples=20, deadline=None)
def test_it_draws_what_optunas_own_sampler_does(
    seed: int, directions: Any, startup: int, usual: str, steps: list[str], pick: random.Random
) -> None:
    sampler = Held(startup, seed)
    study = optuna.create_study(sampler=sampler, directions=directions)
    running: list[optuna.Trial] = []
    for step in [*steps, "ask", "ask", "ask"]:
        if step == "queue":
            study.enqueue_trial({"method": "moa", "lr": 0.01})
        elif step == "ask" or not running:
            running.append(study.ask())
            draw(running[-1])
        else:
            end = usual if step == "usual" else step
            trial = running.pop(pick.randrange(len(running)))
            for epoch in range(pick.randrange(4) if len(directions) == 1 else 0):
                trial.report(pick.choice([*LEVELS, float("nan")]), epoch)
            if end.startswith("infeasible"):
                trial.set_constraint("most", pick.choice(LEVELS))
            if end.endswith("complete"):
                study.tell(trial, [pick.choice(LEVELS) for _ in directions])
            else:
                study.tell(trial, state=TrialState.FAIL if end == "fail" else TrialState.PRUNED)
    modelled = sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in study.trials[:-3])
    assert modelled < startup or sampler.draws


def test_groups_that_a_trial_does_not_need_are_not_drawn_and_none_is_worked_out_twice() -> None:
    sampler = Held(5, 0)
    study = optuna.create_study(sampler=sampler)
    running = []
    for i in range(60):
        trial = study.ask()
        draw(trial)
        if i % 3:
            study.tell(trial, float(i))
        else:
            running.append(trial)
    assert sampler._search_space_group is not None and len(sampler._search_space_group.search_spaces) > 4
    for _ in range(10):
        sampler.draws.clear()
        trial = study.ask()
        drawn = draw(trial).keys() - {"only"}  # which has one value
        assert sorted(name for group in sampler.draws for name in group) == sorted(drawn)
    assert len(sampler.rows) == len(set(sampler.rows))
    sampler.rows.clear()
    study.tell(running[-1], 1.0)
    draw(study.ask())
    for _, number, state in sampler.rows:
        assert (number, state) == (running[-1].number, TrialState.COMPLETE) or number >= 60


def test_what_runs_counts_with_the_parameters_that_it_has() -> None:
    sampler = Held(1, 0)
    study = optuna.create_study(sampler=sampler)
    for method in ("adapter", "lora", "prompt", "moa") * 3:
        study.enqueue_trial({"method": method})
        trial = study.ask()
        draw(trial)
        study.tell(trial, 1.0)
    study.enqueue_trial({"method": "prompt"})
    prompt = study.ask()
    draw(prompt)
    asked = study.ask()
    _, others = sampler._split(study, study._storage.get_trial(asked._trial_id))
    assert prompt.number in {trial.number for trial in others}
    rank = {"rank": optuna.distributions.IntDistribution(1, 64, log=True)}
    assert len(sampler._get_internal_repr(others, rank, study)["rank"]) == sum(  # type: ignore[arg-type]
        trial.params["method"] == "lora" for trial in others
    )
