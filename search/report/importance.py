"""How much each parameter mattered: fANOVA over the trials, in groups where every trial has every parameter.

In a conditional space no parameter of one method exists in the trials of another, and fANOVA can only
compare trials that share their parameters. So the parameters that every trial has (the method among them)
are weighed over all trials, and the parameters of each method over that method's trials alone.

Torch-free; optuna is imported when there is something to compute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from search.records import SearchRecord
from search.report.series import Point, history, methods

if TYPE_CHECKING:
    import optuna

MIN_TRIALS = 8
MIN_TRIALS_OF_A_METHOD = 6
_LOG_RATIO = 20.0


@dataclass(frozen=True)
class Importances:
    """Shares of the explained variance in one group of trials, largest first; they add up to 1.

    `reason` says why `shares` is empty; `constant` and `partial` name the parameters that could not be
    compared because every trial had the same value, or because only some of the trials had them.
    """

    title: str
    trials: int
    shares: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    constant: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)


def importances(record: SearchRecord, study: optuna.Study | None = None) -> list[Importances]:
    """One group over all trials, then one per method that has settings of its own.

    Trials stopped early count with the best value they reached. `study` tells which parameters were sampled
    on a log scale; without it that is read off the values.
    """
    points = history(record)
    scales = _log_scales(study)
    shared = _shared_keys(points)
    groups = [_weigh("All trials", points, MIN_TRIALS, scales, only=shared)]
    for method in methods(record):
        own = [p for p in points if p.method == method]
        if len(methods(record)) > 1 and any(set(p.trial.params) - set(shared) for p in own):
            groups.append(_weigh(method, own, MIN_TRIALS_OF_A_METHOD, scales))
    return groups


def _weigh(
    title: str, points: list[Point], minimum: int, scales: dict[str, bool], only: list[str] | None = None
) -> Importances:
    if len(points) < minimum:
        return Importances(title, len(points), reason=f"needs {minimum} trials with a result, has {len(points)}")
    shared = _shared_keys(points)
    partial = [] if only is not None else sorted({k for p in points for k in p.trial.params} - set(shared))
    varied = [k for k in shared if len({repr(p.trial.params[k]) for p in points}) > 1]
    constant = [k for k in shared if k not in varied and k != "method"]
    if not varied:
        reason = "every trial had the same settings"
        return Importances(title, len(points), reason=reason, constant=constant, partial=partial)
    if len({p.value for p in points}) == 1:
        reason = "every trial reached the same value"
        return Importances(title, len(points), reason=reason, constant=constant, partial=partial)
    shares = _fanova(points, varied, scales)
    if not shares:
        reason = "no setting explains the differences between the trials"
        return Importances(title, len(points), reason=reason, constant=constant, partial=partial)
    return Importances(title, len(points), shares, constant=constant, partial=partial)


def _shared_keys(points: list[Point]) -> list[str]:
    """Parameters that every one of the trials has."""
    if not points:
        return []
    return [k for k in points[0].trial.params if all(k in p.trial.params for p in points)]


def _fanova(points: list[Point], keys: list[str], scales: dict[str, bool]) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    encoded = {k: _encode([p.trial.params[k] for p in points], scales.get(k)) for k in keys}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        study.add_trials(
            optuna.create_trial(
                params={k: encoded[k][0][i] for k in keys},
                distributions={k: encoded[k][1] for k in keys},
                value=point.value,
            )
            for i, point in enumerate(points)
        )
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    finally:
        optuna.logging.set_verbosity(verbosity)
    total = sum(found.values())
    if not math.isfinite(total) or total <= 0:
        return {}
    return {k: float(v / total) for k, v in sorted(found.items(), key=lambda p: -p[1])}


def _encode(values: list[Any], log: bool | None) -> tuple[list[Any], Any]:
    """Values as Optuna takes them and their distribution: numbers over the range seen, the rest by name."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values):
        numbers = [float(v) for v in values]
        if log is None:
            log = min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_RATIO
        # fANOVA weighs the range evenly, so a log scale has to be taken before.
        if log and min(numbers) > 0:
            numbers = [math.log10(v) for v in numbers]
        return numbers, FloatDistribution(min(numbers), max(numbers))
    names = [repr(v) for v in values]
    return names, CategoricalDistribution(list(dict.fromkeys(names)))


def _log_scales(study: optuna.Study | None) -> dict[str, bool]:
    if study is None:
        return {}
    return {
        name: distribution.log
        for trial in study.get_trials(deepcopy=False)
        for name, distribution in trial.distributions.items()
        if hasattr(distribution, "log")
    }
