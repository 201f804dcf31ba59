"""What to try next: Optuna behind Ray Tune's searcher interface (torch-free).

Differences to Ray's own `OptunaSearch`, each because a search would otherwise learn something false:
trials stopped by the scheduler are told as PRUNED with every value they reported (not as COMPLETE with the
value they happened to have); a configuration that was trained before is not trained again; configurations
outside a bound on `trainable_params`, and those that do not fit the backbone, are told as infeasible and never
leave here; a resumed search gets its history from the journal, and unfinished trials are handed out again before
anything new is asked.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from ray.tune.search import Searcher

from search.control import Stays
from search.journal import Journal
from search.records import EpochRecord, Status, TrialRecord
from search.sizes import DoesNotFit, outside_bounds
from search.space import Space

if TYPE_CHECKING:
    import optuna

_TRIES = 300
"""Refusals in a row (duplicates, over a bound, not fitting the backbone) after which the space counts as exhausted."""


class OptunaSampler(Stays, Searcher):
    """Proposes trials, and is told how they went.

    Args:
        space: what may be tried.
        journal: where started trials are written, and what a resumed search has done already.
        trainable_params: the size of a configuration, known without building it; raises `DoesNotFit`.
        wrap: makes the dictionary that Tune hands to the trial proxy, from a trial record.
        more: False when no further trial may start (budget spent, interrupted).
        on_start: told about every trial that starts or continues.
    """

    def __init__(
        self,
        space: Space,
        journal: Journal,
        trainable_params: Callable[[dict[str, Any]], int],
        wrap: Callable[[TrialRecord], dict[str, Any]],
        more: Callable[[], bool],
        on_start: Callable[[TrialRecord], None],
    ) -> None:
        super().__init__(metric=space.objectives[0].metric, mode=space.objectives[0].mode)
        self._space, self._journal, self._count = space, journal, trainable_params
        self._wrap, self._more, self._on_start = wrap, more, on_start
        self.exhausted = False
        """True when the space had nothing new to offer before the budget was spent."""
        record = journal.record
        self._study = make_study(space, done=len(record.trials) + len(record.rejected))
        self._asked: dict[str, optuna.Trial] = {}
        self._seen: dict[str, TrialRecord | None] = {}
        self._unfinished: list[TrialRecord] = []
        for trial in record.trials:
            self._seen[space.key(trial.params)] = trial
            if trial.status is Status.RUNNING:
                self._unfinished.append(trial)
            else:
                self._study.add_trial(frozen(space, trial))
        for entry in record.rejected:
            self._seen[space.key(entry["params"])] = None
            self._study.add_trial(refused(space, entry["params"], entry["trainable_params"]))
        for trial in self._unfinished:
            # Optuna has no way to reopen a trial: the same point is asked for again and told when it ends. Asked
            # before anything else is enqueued, for the queue is first in, first out.
            self._study.enqueue_trial(space.to_optuna(trial.params))
            self._asked[trial.id] = self._ask()[0]
        for point in space.enqueue:
            full = space.complete(point)
            if space.key(full) not in self._seen:
                self._study.enqueue_trial(space.to_optuna(full), user_attrs={"enqueued": True})

    # -- Ray Tune's side ---------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> Any:  # a configuration, or FINISHED; Tune's own annotation is narrower
        if self._unfinished:
            trial = self._unfinished.pop(0)
            self._on_start(trial)
            return self._wrap(trial)
        if not self._more():
            return Searcher.FINISHED
        for _ in range(_TRIES):
            asked, params = self._ask()
            key = self._space.key(params)
            if key in self._seen:
                self._tell_again(asked, self._seen[key])
                continue
            size, reason = self._judged(params)
            if size is None or reason:
                self._seen[key] = None
                self._journal.rejected(params, size, reason)
                self._tell_infeasible(asked, size)
                continue
            trial = self._new(asked, params, size)
            self._seen[key] = trial
            self._asked[trial.id] = asked
            self._journal.started(trial)
            self._on_start(trial)
            return self._wrap(trial)
        self.exhausted = True
        return Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: what was reported is told when the trial has ended."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: what became of a trial is told by `trial_ended`, when its record says it."""

    # -- what the journal's events say -------------------------------------------------------------------

    def trial_started(self, trial: TrialRecord) -> None:
        """Nothing new: it was proposed here."""

    def epoch(self, trial: TrialRecord, epoch: EpochRecord) -> None:
        """Nothing: all epochs are told at the end."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """Tell Optuna what became of the trial."""
        asked = self._asked.pop(trial.id, None)
        if asked is not None:
            tell(self._space, self._study, asked, trial)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal holds it."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search is resumed from its journal, not from Tune's files")

    # -- inside ------------------------------------------------------------------------------------------

    def _judged(self, params: dict[str, Any]) -> tuple[int | None, str]:
        """Trainable parameters (None where the configuration does not fit), and why it is not to be trained."""
        try:
            size = self._count(params)
        except DoesNotFit as error:
            return None, str(error)
        return size, outside_bounds(self._space.objectives, size)

    def _ask(self) -> tuple[optuna.Trial, dict[str, Any]]:
        asked = self._study.ask()
        return asked, self._space.suggest(asked)

    def _tell_again(self, asked: optuna.Trial, known: TrialRecord | None) -> None:
        """A duplicate: repeat what is known about the configuration, so that the sampler moves on."""
        if known is None or known.status is Status.RUNNING:
            import optuna

            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            tell(self._space, self._study, asked, known)

    def _tell_infeasible(self, asked: optuna.Trial, size: int | None) -> None:
        import optuna

        for name, excess in constraints(self._space, size).items():
            asked.set_constraint(name, excess)
        self._study.tell(asked, state=optuna.trial.TrialState.PRUNED)

    def _new(self, asked: optuna.Trial, params: dict[str, Any], size: int) -> TrialRecord:
        number = len(self._journal.record.trials) + 1
        id = f"t{number:04d}"
        return TrialRecord(
            id=id,
            number=number,
            name=f"{id}-{self._space.short_name(params)}",
            params=params,
            trainable_params=size,
            enqueued=bool(asked.user_attrs.get("enqueued")),
            started=time.time(),
        )


def make_study(space: Space, done: int = 0) -> optuna.Study:
    """An in-memory Optuna study for the space; `done` trials so far move the seed, so that nothing is redrawn."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = space.sampler.seed + 7919 * done
    sampler: optuna.samplers.BaseSampler
    if space.sampler.name == "random":
        sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                multivariate=True,
                group=True,  # parameters are modelled together with those that are active at the same time
                constant_liar=True,
                n_startup_trials=space.sampler.startup_trials,
                seed=seed,
            )
    directions: list[Literal["maximize", "minimize"]] = [
        "maximize" if o.mode == "max" else "minimize" for o in space.objectives
    ]
    return optuna.create_study(sampler=sampler, directions=directions)


def constraints(space: Space, size: int | None) -> dict[str, float]:
    """How far outside its bounds a configuration is, above 0 outside; relative, as sizes differ between backbones.

    One that does not fit the backbone (`size` None) has no size: it counts as wholly outside.
    """
    if size is None:
        return {"fits": 1.0}
    found = {}
    for objective in space.objectives:
        if objective.metric == "trainable_params":
            if objective.bound_max is not None:
                found["most"] = size / objective.bound_max - 1
            if objective.bound_min is not None:
                found["least"] = 1 - size / objective.bound_min
    return found


def refused(space: Space, params: dict[str, Any], size: int | None) -> optuna.trial.FrozenTrial:
    """A rejected configuration of an earlier session as Optuna would have kept it."""
    from optuna.trial import TrialState, create_trial

    return create_trial(
        state=TrialState.PRUNED,
        params=space.to_optuna(params),
        distributions=space.distributions(params),
        constraints=constraints(space, size),
    )


def told_values(space: Space, trial: TrialRecord) -> list[float] | None:
    """One value per objective at the best epoch, None while any is missing or not a number."""
    values = [trial.value(objective) for objective in space.objectives]
    return None if any(v is None or v != v for v in values) else [float(v) for v in values if v is not None]


def intermediate(space: Space, trial: TrialRecord) -> dict[int, float]:
    """The first objective by epoch. Optuna takes reports in single-objective studies only."""
    if len(space.objectives) > 1:
        return {}
    metric = space.objectives[0].metric
    values = {e.epoch: e.metrics.get(metric, float("nan")) for e in trial.epochs}
    return {epoch: value for epoch, value in values.items() if value == value}


def tell(space: Space, study: optuna.Study, asked: optuna.Trial, trial: TrialRecord) -> None:
    """Tell an ended trial: complete with its values, stopped as pruned at its step, failed as failed."""
    from optuna.trial import TrialState

    for epoch, value in intermediate(space, trial).items():
        asked.report(value, epoch)
    values = told_values(space, trial)
    if trial.status is Status.COMPLETE and values is not None:
        study.tell(asked, values)
    elif trial.status is Status.STOPPED:
        study.tell(asked, state=TrialState.PRUNED)
    else:
        study.tell(asked, state=TrialState.FAIL)


def frozen(space: Space, trial: TrialRecord) -> optuna.trial.FrozenTrial:
    """An ended trial of the journal as Optuna would have kept it."""
    from optuna.trial import TrialState, create_trial

    values = told_values(space, trial)
    state = {
        Status.COMPLETE: TrialState.COMPLETE if values is not None else TrialState.FAIL,
        Status.STOPPED: TrialState.PRUNED,
    }.get(trial.status, TrialState.FAIL)
    return create_trial(
        state=state,
        values=values if state is TrialState.COMPLETE else None,
        params=space.to_optuna(trial.params),
        distributions=space.distributions(trial.params),
        intermediate_values=intermediate(space, trial),
    )
