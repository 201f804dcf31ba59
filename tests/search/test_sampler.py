"""What Optuna is asked and told, with a real study and no Ray."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from ray.tune.search import Searcher

from petl.counts import BackboneShape
from search.history import history
from search.journal import Journal, read_journal
from search.records import EpochRecord, SearchRecord, Status, TrialRecord
from search.sampler import OptunaSampler
from search.sizes import trainable_params
from search.space import Space, parse_space
from search.studies import make_study, tell, told_values

SPACE = """
schema: petl.space/1
name: demo
objectives:
  - {metric: val/accuracy, mode: max}
%s
params:
  method: {choice: [lora, linear]}
  lora.rank: {choice: [1, 2, 4], ordered: true, default: 2, when: {method: lora}}
enqueue:
  - {method: lora, lora.rank: 4}
budget: {trials: 50}
"""


class Bench:
    """A sampler with its journal, and the world around it."""

    def __init__(
        self,
        directory: Path,
        objectives: str = "",
        journal: Journal | None = None,
        text: str | None = None,
        fits: bool = False,
        most: int = 1000,
    ) -> None:
        self.space: Space = parse_space(text or SPACE % objectives)
        self.journal = journal or Journal.create(
            directory, SearchRecord("demo", str(directory), list(self.space.objectives), {})
        )
        self.started: list[str] = []
        self.room = self.more = True
        self.sampler = OptunaSampler(
            self.space,
            self.journal,
            trainable_params=self._counted if fits else lambda params: 1000 * params.get("lora.rank", 1),
            wrap=lambda trial: {"trial": trial.id},
            more=lambda: self.more,
            on_start=lambda trial: self.started.append(trial.id),
            room=lambda: self.room,
            most=most,
        )

    def _counted(self, params: dict[str, Any]) -> int:
        return trainable_params(self.space, params, BackboneShape(), 9)

    def suggest(self, tune_id: str) -> Any:
        config = self.sampler.suggest(tune_id)
        return self.journal.trial(config["trial"]) if isinstance(config, dict) else config

    def end(self, tune_id: str, trial: TrialRecord, status: Status, *values: float) -> None:
        for epoch, value in enumerate(values, start=1):
            self.journal.epoch(trial, EpochRecord(epoch, {"val/accuracy": value}, 0.1))
        self.journal.ended(trial, status)
        self.sampler.trial_ended(trial)
        self.sampler.on_trial_complete(tune_id, {}, error=status is Status.FAILED)

    def told(self) -> list[Any]:
        return self.sampler._study.get_trials(deepcopy=False)


def test_what_is_enqueued_comes_first(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    trial = bench.suggest("a")
    assert (trial.params, trial.enqueued, trial.name) == ({"method": "lora", "lora.rank": 4}, True, "t0001-lora-k4")
    assert bench.started == ["t0001"]


def test_stopped_is_pruned_at_its_step_and_complete_has_its_best_value(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first, second = bench.suggest("a"), bench.suggest("b")
    bench.end("a", first, Status.STOPPED, 0.2, 0.5, 0.3)
    bench.end("b", second, Status.COMPLETE, 0.4, 0.9, 0.6)
    pruned, complete = bench.told()
    assert pruned.state is TrialState.PRUNED and pruned.intermediate_values == {1: 0.2, 2: 0.5, 3: 0.3}
    assert complete.state is TrialState.COMPLETE and complete.value == 0.9


def test_a_failed_trial_is_told_as_failed_and_an_interrupted_one_not_at_all(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first, _ = bench.suggest("a"), bench.suggest("b")
    bench.end("a", first, Status.FAILED)
    bench.sampler.on_trial_complete("b", None)
    assert [t.state for t in bench.told()] == [TrialState.FAIL, TrialState.RUNNING]


def test_no_configuration_is_tried_twice_and_a_small_space_runs_dry(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    seen = []
    for number in range(4):
        trial = bench.suggest(str(number))
        seen.append(bench.space.key(trial.params))
        bench.end(str(number), trial, Status.COMPLETE, 0.5)
    assert len(set(seen)) == 4 == bench.space.size()
    assert bench.suggest("more") == "FINISHED" and bench.sampler.exhausted


def test_what_is_over_the_bound_is_refused_and_told_as_infeasible(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "  - {metric: trainable_params, mode: min, max: 2500}")
    trial = bench.suggest("a")
    assert trial.trainable_params <= 2500 and not trial.enqueued
    assert [r["params"] for r in bench.journal.record.rejected] == [{"method": "lora", "lora.rank": 4}]
    refused = bench.told()[0]
    assert refused.state is TrialState.PRUNED and refused.constraints == {"most": pytest.approx(0.6)}


def test_several_objectives_are_all_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "  - {metric: trainable_params, mode: min}")
    trial = bench.suggest("a")
    bench.end("a", trial, Status.COMPLETE, 0.3, 0.7)
    assert bench.told()[0].values == [0.7, 4000.0]
    other = bench.suggest("b")
    bench.end("b", other, Status.STOPPED, 0.1)
    assert bench.told()[1].state is TrialState.PRUNED


def test_resuming_before_all_enqueued_ones_began_mixes_nothing_up(tmp_path: Path) -> None:
    points = "enqueue:\n  - {method: linear}\n  - {method: lora, lora.rank: 1}"
    text = (SPACE % "").replace("enqueue:", points)
    journal = Journal.create(tmp_path, SearchRecord("demo", str(tmp_path), list(parse_space(text).objectives), {}))
    bench = Bench(tmp_path, journal=journal, text=text)
    running = bench.suggest("a")
    assert running.params == {"method": "linear"}
    journal.close()

    again = Bench(tmp_path, journal=Journal.reopen(tmp_path), text=text)
    continued = again.suggest("x")
    assert continued.id == running.id
    again.end("x", continued, Status.COMPLETE, 0.7)
    told = [t for t in again.told() if t.state is TrialState.COMPLETE]
    assert [(t.params, t.value) for t in told] == [(again.space.to_optuna({"method": "linear"}), 0.7)]
    rest = [again.suggest(i).params for i in "yz"]
    assert rest == [{"method": "lora", "lora.rank": 1}, {"method": "lora", "lora.rank": 4}]


def test_a_resumed_sampler_still_knows_what_was_refused(tmp_path: Path) -> None:
    bound = "  - {metric: trainable_params, mode: min, max: 2500}"
    bench = Bench(tmp_path, bound)
    bench.suggest("a")
    bench.journal.close()
    again = Bench(tmp_path, bound, Journal.reopen(tmp_path))
    assert again.told()[0].constraints == {"most": pytest.approx(0.6)}
    again.suggest("x")
    assert len(again.journal.record.rejected) == 1


def test_a_resumed_sampler_continues_what_ran_and_remembers_the_rest(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    first, second, third = (bench.suggest(i) for i in "abc")
    bench.end("a", first, Status.COMPLETE, 0.4, 0.8)
    bench.end("b", second, Status.STOPPED, 0.1)
    bench.journal.epoch(third, EpochRecord(1, {"val/accuracy": 0.3}, 0.1))
    bench.journal.close()

    again = Bench(tmp_path, journal=Journal.reopen(tmp_path))
    assert [t.state for t in again.told()] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING]
    assert again.told()[0].params == bench.told()[0].params
    continued = again.suggest("x")
    assert (continued.id, continued.params) == (third.id, third.params)
    again.end("x", continued, Status.COMPLETE, 0.3, 0.6)
    assert again.told()[2].value == 0.6
    fresh = again.suggest("y")
    assert fresh.id == "t0004"
    assert len({again.space.key(t.params) for t in read_journal(tmp_path).trials}) == 4


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_what_does_not_fit_the_backbone_is_passed_over(tmp_path: Path, sampler: str) -> None:
    """Widths must divide the model width of 768: few of those in the range do, and the search goes on."""
    text = _CONV.format(name=sampler, low=1, high=400)
    bench = Bench(tmp_path, text=text, fits=True)
    trials = []
    for number in range(6):
        trials.append(bench.suggest(str(number)))
        bench.end(str(number), trials[-1], Status.COMPLETE, 0.1 * number)
    assert all(768 % trial.params["adapter.width"] == 0 for trial in trials)
    rejected = bench.journal.record.rejected
    assert rejected and all(r["trainable_params"] is None for r in rejected)
    assert "need one that divides the hidden size 768" in rejected[0]["reason"]
    pruned = [t for t in bench.told() if t.state is TrialState.PRUNED]
    assert len(pruned) >= len(rejected) - 1 and pruned[0].constraints == {"fits": 1.0}
    bench.journal.close()
    again = Bench(tmp_path, journal=Journal.reopen(tmp_path), text=text, fits=True)
    assert [t.constraints for t in again.told()].count({"fits": 1.0}) == len(rejected)


def test_a_space_in_which_nothing_fits_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path, text=_CONV.format(name="random", low=401, high=700), fits=True)
    assert bench.suggest("a") == Searcher.FINISHED and bench.sampler.exhausted
    assert bench.journal.record.rejected and not bench.journal.record.trials


_CONV = """
schema: petl.space/1
base: {{method: adapter, adapter.block: conv}}
params:
  adapter.width: {{int: [{low}, {high}], log: true}}
sampler: {{name: {name}, startup_trials: 2}}
budget: {{trials: 50}}
"""


# -- a long history -----------------------------------------------------------------------------------------


def test_a_short_history_is_shown_whole_and_changes_no_proposal(tmp_path: Path) -> None:
    """Bit for bit what a bare Optuna study proposes that is asked and told the same."""
    bench = Bench(tmp_path, text=_WIDE, most=40)
    study = make_study(bench.space)
    for number in range(48):
        trial = bench.suggest(str(number))
        asked = study.ask()
        assert bench.space.suggest(asked) == trial.params
        _train(bench, trial)
        tell(bench.space, study, asked, trial)
    assert len(bench.told()) == 48


def test_a_long_history_is_cut_and_nothing_that_runs_or_was_tried_is_forgotten(tmp_path: Path) -> None:
    bench = Bench(tmp_path, text=_WIDE, most=20)
    held = [bench.suggest("held") for _ in range(3)]
    asked = []
    for number in range(70):
        trial = bench.suggest(str(number))
        _train(bench, trial)
        asked.append(len(bench.told()))
    assert max(asked) <= 20 + 5 + 3 + 1  # a quarter more, the three that run, the one asked last
    running = [t.params for t in bench.told() if t.state is TrialState.RUNNING]
    assert running == [bench.space.to_optuna(trial.params) for trial in held]
    bench.end("held", held[1], Status.COMPLETE, 0.97)
    told = [t for t in bench.told() if t.value == 0.97]
    assert [t.params for t in told] == [bench.space.to_optuna(held[1].params)]
    keys = [bench.space.key(t.params) for t in bench.journal.record.trials]
    assert len(set(keys)) == len(keys) == 73

    best = max(told_values(bench.space, t) or [0.0] for t in bench.journal.record.trials if t.status == "complete")
    assert max([t.value] for t in bench.told() if t.state is TrialState.COMPLETE) == best
    bench.journal.close()
    twice = [Bench(tmp_path, journal=Journal.reopen(tmp_path), text=_WIDE, most=20) for _ in range(2)]
    assert [t.params for t in twice[0].told()] == [t.params for t in twice[1].told()]
    assert 20 <= len(twice[0].told()) <= 20 + 2  # with the two that run; less what rounding leaves
    for again in twice:
        again.sampler._unfinished.clear()
    assert twice[0].suggest("x").params == twice[1].suggest("x").params


def test_duplicates_are_known_after_the_study_was_made_anew(tmp_path: Path) -> None:
    """Four configurations in all, and a study that forgets after two: each is still tried once."""
    bench = Bench(tmp_path, most=2)
    for number in range(4):
        trial = bench.suggest(str(number))
        bench.end(str(number), trial, Status.COMPLETE, 0.5)
    assert bench.suggest("more") == "FINISHED" and bench.sampler.exhausted
    assert len(bench.journal.record.trials) == 4


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["complete", "stopped", "failed", "running"]), max_size=80),
    st.integers(0, 40),
    st.integers(8, 60),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_what_is_shown_of_a_history(
    kinds: list[str], rejected: int, most: int, sizes: bool, draw: random.Random
) -> None:
    space = parse_space(SPACE % ("  - {metric: trainable_params, mode: min}" if sizes else ""))
    record = SearchRecord("demo", "", list(space.objectives), {})
    for number, kind in enumerate(kinds, start=1):
        trial = TrialRecord(
            f"t{number:04d}", number, "", {"method": "linear"}, draw.randrange(100), status=Status(kind)
        )
        trial.epochs = [EpochRecord(e, {"val/accuracy": draw.random()}, 1.0) for e in range(1, draw.randrange(2, 5))]
        record.trials.append(trial)
    record.rejected = [{"params": {}, "trainable_params": None, "reason": str(i)} for i in range(rejected)]
    shown = history(space, record, most)
    assert shown == history(space, record, most)
    trials = [entry for entry in shown if isinstance(entry, TrialRecord)]
    ended = [t for t in record.trials if t.status is not Status.RUNNING]
    assert [t.number for t in trials] == sorted({t.number for t in trials})
    if len(ended) + rejected <= most:
        assert trials == ended and [e for e in shown if isinstance(e, dict)] == record.rejected
        return
    assert len(shown) <= most and {t.status for t in trials} <= {Status.COMPLETE, Status.STOPPED}
    told = [t for t in ended if t.status is not Status.FAILED]
    assert len(shown) >= min(most, len(told) + rejected) - 3  # what rounding down leaves
    for status in (Status.COMPLETE, Status.STOPPED):
        wanted = sum(t.status is status for t in told)
        share = int(wanted * (most - most // 8) / (len(told) + rejected))
        assert sum(t.status is status for t in trials) >= min(wanted, share) - 1
    complete = [(told_values(space, t) or [], t) for t in told if t.status is Status.COMPLETE]
    if complete:
        best = max(complete, key=lambda pair: pair[0][0])[1]  # nothing dominates it unless it ties
        assert sizes or best in trials


# -- when nothing could run ---------------------------------------------------------------------------------


def test_nothing_is_handed_out_while_there_is_no_room(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.room = False
    assert bench.suggest("a") is None and not bench.journal.record.trials
    bench.room = True
    trial = bench.suggest("a")
    bench.journal.close()
    again = Bench(tmp_path, journal=Journal.reopen(tmp_path))
    again.room = False
    assert again.suggest("x") is None
    again.more = False
    assert again.suggest("x") is None  # what was begun is finished, also when nothing new may start
    again.room = True
    assert again.suggest("x").id == trial.id
    again.room = False
    assert again.suggest("y") == Searcher.FINISHED


def _train(bench: Bench, trial: TrialRecord) -> None:
    """Every third is complete, others are stopped: the nearer to a rate of 3e-3, the better."""
    value = 1 / (1 + abs(trial.params["optim.lr"] - 3e-3)) - 0.05 * trial.params.get("lora.rank", 1)
    if trial.number % 3:
        bench.end("", trial, Status.STOPPED, value / 2)
    else:
        bench.end("", trial, Status.COMPLETE, value / 2, value)


_WIDE = """
schema: petl.space/1
params:
  method: {choice: [lora, linear]}
  optim.lr: {float: [1e-5, 1e-1], log: true, default: 1e-3}
  lora.rank: {choice: [1, 2, 4], ordered: true, default: 2, when: {method: lora}}
budget: {trials: 500}
"""
