"""What Optuna is asked and told, with a real study and no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from petl.counts import BackboneShape
from search.journal import Journal, read_journal
from search.records import EpochRecord, SearchRecord, Status, TrialRecord
from search.sampler import OptunaSampler
from search.sizes import trainable_params
from search.space import Space, parse_space

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
    ) -> None:
        self.space: Space = parse_space(text or SPACE % objectives)
        self.journal = journal or Journal.create(
            directory, SearchRecord("demo", str(directory), list(self.space.objectives), {})
        )
        self.started: list[str] = []
        self.sampler = OptunaSampler(
            self.space,
            self.journal,
            trainable_params=self._counted if fits else lambda params: 1000 * params.get("lora.rank", 1),
            wrap=lambda trial: {"trial": trial.id},
            more=lambda: True,
            on_start=lambda trial: self.started.append(trial.id),
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
