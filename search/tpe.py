"""Optuna's TPE without work that is not needed (torch-free).

Parameters that are active together are modelled together, as a group. For each group that it knows, Optuna draws
values whether the trial will have these parameters or not. Before each draw it sorts all trials into good and others,
reads from JSON what running ones are trying, and converts the group's parameters of all that have them. With a hundred
trials running that is most of what an ask costs (`benchmarks/sampler_ask.py`). Here a group is drawn when the trial
asks for it, the sorting is done once for an ask and the conversion once for a trial.

A running trial counts as one of the others, so that two do not try the same (the constant liar). It counts with the
parameters that it has, not, as in Optuna, with what was drawn for groups that it turned out not to need.

This leans on the inside of the one version of Optuna that the project is pinned to; `tests/search/test_tpe.py` holds
every draw against the one that Optuna's own sampler makes from the same trials and the same random state.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import (
    _get_infeasible_trial_score,
    _get_pruned_trial_score,
    _split_trials,
    default_gamma,
    default_gamma_multiobjective,
)
from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace, _SearchSpaceGroup
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

_Group = dict[str, BaseDistribution]
_Row = list[float] | None
"""A trial's parameters of one group as numbers; None where it lacks one of them."""


class ThriftyTPE(TPESampler):
    """TPE over groups of parameters, with the constant liar. One study only, asked from one thread at a time.

    Args:
        startup: trials that are drawn at random before anything is modelled.
        seed: of all draws.
    """

    def __init__(self, startup: int, seed: int) -> None:
        super().__init__(multivariate=True, group=True, constant_liar=True, n_startup_trials=startup, seed=seed)
        self._group_decomposed_search_space = _Groups()
        # In-memory storage changes no trial: it puts another in its place. So what was worked out for one holds for it.
        self._rows: dict[tuple[str, ...], dict[int, tuple[FrozenTrial, _Row]]] = {}
        self._ranks: dict[int, tuple[FrozenTrial, tuple[float, ...]]] = {}
        self._sorted: list[FrozenTrial] = []
        self._halves: tuple[list[FrozenTrial], list[FrozenTrial]] = [], []

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: _Group) -> dict[str, Any]:
        assert self._search_space_group is not None
        groups = [
            {name: search_space[name] for name in sorted(group) if name in search_space}
            for group in self._search_space_group.search_spaces
        ]
        return _OnDemand(groups, lambda group: self._sample_relative(study, trial, group))

    def _sample(self, study: Study, trial: FrozenTrial, search_space: _Group) -> dict[str, int | float]:
        below, above = self._split(study, trial)
        good = self._build_parzen_estimator(study, search_space, below, handle_below=True)
        bad = self._build_parzen_estimator(study, search_space, above, handle_below=False)
        candidates = good.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(candidates, self._compute_acquisition_func(candidates, good, bad))
        return {name: domain.to_external_repr(best[name]) for name, domain in search_space.items()}

    def _split(self, study: Study, asked: FrozenTrial) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """The good and the other trials, `asked` left out, each in the order of their numbers."""
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        trials = [t for t in study._get_trials(deepcopy=False, states=states) if t.number != asked.number]
        if len(trials) != len(self._sorted) or not all(map(is_, trials, self._sorted)):
            self._sorted, self._halves = trials, self._halved(study, trials)
        return self._halves

    def _halved(self, study: Study, trials: list[FrozenTrial]) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        ended = [trial for trial in trials if trial.state is not TrialState.RUNNING]
        if study._is_multi_objective():
            return _split_trials(study, trials, default_gamma_multiobjective(len(ended)))
        ended.sort(key=lambda trial: self._rank(study, trial))
        good = {trial.number for trial in ended[: default_gamma(len(ended))]}
        return [t for t in trials if t.number in good], [t for t in trials if t.number not in good]

    def _rank(self, study: Study, trial: FrozenTrial) -> tuple[float, ...]:
        """Orders ended trials: complete ones, the best first; stopped ones, the furthest first; infeasible ones."""
        kept = self._ranks.get(trial.number)
        if kept is None or kept[0] is not trial:
            self._ranks[trial.number] = kept = trial, _order(study, trial)
        return kept[1]

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: _Group, study: Study
    ) -> dict[str, np.ndarray]:
        known = self._rows.setdefault(tuple(search_space), {})
        rows = []
        for trial in trials:
            kept = known.get(trial.number)
            if kept is None or kept[0] is not trial:
                known[trial.number] = kept = trial, self._row(trial, search_space)
            if kept[1] is not None:
                rows.append(kept[1])
        columns = np.array(rows, dtype=float).reshape(len(rows), len(search_space)).T.copy()
        return dict(zip(search_space, columns, strict=True))

    def _row(self, trial: FrozenTrial, search_space: _Group) -> _Row:
        if not search_space.keys() <= trial.params.keys():
            return None
        return [domain.to_internal_repr(trial.params[name]) for name, domain in search_space.items()]


def _order(study: Study, trial: FrozenTrial) -> tuple[float, ...]:
    infeasible = _get_infeasible_trial_score(trial)
    if infeasible > 0:
        return 2.0, infeasible
    if trial.state is TrialState.PRUNED:
        return 1.0, *_get_pruned_trial_score(trial, study)
    value = float(trial.values[0])  # a complete trial has one
    return 0.0, -value if study.direction == StudyDirection.MAXIMIZE else value


class _OnDemand(dict[str, Any]):
    """Values of parameters by name; those of a group are drawn when the first of them is looked for."""

    def __init__(self, groups: list[_Group], draw: Callable[[_Group], dict[str, Any]]) -> None:
        super().__init__()
        self._waiting = {name: group for group in groups for name in group}
        self._draw = draw

    def __contains__(self, name: object) -> bool:
        group = self._waiting.get(str(name))
        if group is not None:
            for other in group:
                del self._waiting[other]
            self.update(self._draw(group))
        return super().__contains__(name)


class _Groups(_GroupDecomposedSearchSpace):
    """Which parameters are active together: a trial that was looked at once changes nothing any more."""

    def __init__(self) -> None:
        super().__init__(include_pruned=True)
        self._known: set[int] = set()

    def calculate(self, study: Study, use_cache: bool = False) -> _SearchSpaceGroup:
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        for trial in study._get_trials(deepcopy=False, states=states, use_cache=use_cache):
            if trial.number not in self._known:
                self._known.add(trial.number)
                self._search_space.add_distributions(trial.distributions)
        return self._search_space
