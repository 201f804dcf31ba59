"""Trials as Optuna keeps them: a study for a space, and what is told of a trial that ended (torch-free)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

from search.records import Status, TrialRecord
from search.space import Space

if TYPE_CHECKING:
    import optuna


def make_study(space: Space, done: int = 0) -> optuna.Study:
    """An in-memory Optuna study for the space; `done` trials so far move the seed, so that nothing is redrawn."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = space.sampler.seed + 7919 * done
    sampler: optuna.samplers.BaseSampler
    if space.sampler.name == "random":
        sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        from search.tpe import ThriftyTPE

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = ThriftyTPE(space.sampler.startup_trials, seed)  # group=True is experimental
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
