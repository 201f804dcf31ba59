"""What to try next: Optuna behind Ray Tune's searcher interface (torch-free).

Differences to Ray's own `OptunaSearch`, each because a search would otherwise learn something false:
trials stopped by the scheduler are told as PRUNED with every value they reported (not as COMPLETE with the
value they happened to have); a configuration that was trained before is not trained again; configurations
outside a bound on `trainable_params`, and those that do not fit the backbone, are told as infeasible and never
leave here; a resumed search gets its history from the journal, and unfinished trials are handed out again before
anything new is asked; and the history that the sampler looks at does not grow for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from search.clock import now
from search.control import Stays
from search.history import history
from search.journal import Journal
from search.records import EpochRecord, Incident, Status, TrialRecord
from search.sizes import DoesNotFit, outside_bounds
from search.space import Space
from search.studies import constraints, frozen, make_study, refused, tell

if TYPE_CHECKING:
    import optuna

_TRIES = 300
"""Refusals in a row (duplicates, over a bound, not fitting the backbone) after which the space counts as exhausted."""
HISTORY = 250
"""What a study begins with at most (`search.history`); after a quarter more it is made anew."""


class OptunaSampler(Stays, Searcher):
    """Proposes trials, and is told how they went.

    Args:
        space: what may be tried.
        journal: where started trials are written, and what a resumed search has done already.
        trainable_params: the size of a configuration, known without building it; raises `DoesNotFit`.
        wrap: makes the dictionary that Tune hands to the trial proxy, from a trial record.
        more: False when no further trial may start (budget spent, interrupted).
        on_start: told about every trial that starts or continues.
        room: False while no further trial could run at once; Tune then asks again later.
        most: what the sampler is shown of a longer history.
    """

    def __init__(
        self,
        space: Space,
        journal: Journal,
        trainable_params: Callable[[dict[str, Any]], int],
        wrap: Callable[[TrialRecord], dict[str, Any]],
        more: Callable[[], bool],
        on_start: Callable[[TrialRecord], None],
        room: Callable[[], bool] = lambda: True,
        most: int = HISTORY,
    ) -> None:
        super().__init__()  # without a metric: Tune would look for it in results, which are sealed
        self._space, self._journal, self._count = space, journal, trainable_params
        self._wrap, self._more, self._on_start = wrap, more, on_start
        self.exhausted = False
        """True when the space had nothing new to offer before the budget was spent."""
        self._room, self._most = room, most
        record = journal.record
        self._seen: dict[str, TrialRecord | None] = {space.key(trial.params): trial for trial in record.trials}
        self._seen |= {space.key(entry["params"]): None for entry in record.rejected}
        self._unfinished = [trial for trial in record.trials if trial.status is Status.RUNNING]
        self._asked: dict[str, optuna.Trial] = {}
        self._told = 0  # ended trials and refusals in the study
        self._begin_study()

    # -- Ray Tune's side ---------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> Any:  # a configuration, or FINISHED; Tune's own annotation is narrower
        if not self._unfinished and not self._more():
            return Searcher.FINISHED
        if not self._room():
            return None
        if self._unfinished:
            trial = self._unfinished.pop(0)
            self._on_start(trial)
            return self._wrap(trial)
        # Between two trials, never between two tries: the record, of which study and seed are made, has changed since.
        if self._told >= self._most + self._most // 4:
            self._begin_study()
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

    def incident(self, trial: TrialRecord, incident: Incident) -> None:
        """Nothing: what was dealt with says nothing of the configuration."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """Tell Optuna what became of the trial."""
        asked = self._asked.pop(trial.id, None)
        if asked is not None:
            self._told += 1
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

    def _begin_study(self) -> None:
        """A study with (the telling part of) the history, the trials that run, and what is still to be tried first."""
        space, record = self._space, self._journal.record
        self._study = make_study(space, done=len(record.trials) + len(record.rejected))
        self._told = 0
        for entry in history(space, record, self._most):
            if isinstance(entry, TrialRecord):
                self._study.add_trial(frozen(space, entry))
            else:
                self._study.add_trial(refused(space, entry["params"], entry["trainable_params"]))
            self._told += 1
        self._asked = {}
        for trial in record.trials:
            if trial.status is Status.RUNNING:
                # Optuna has no way to reopen a trial: the same point is asked for again and told when it ends. Asked
                # before anything else is enqueued, for the queue is first in, first out.
                self._study.enqueue_trial(space.to_optuna(trial.params))
                self._asked[trial.id] = self._ask()[0]
        for point in space.enqueue:
            full = space.complete(point)
            if space.key(full) not in self._seen:
                self._study.enqueue_trial(space.to_optuna(full), user_attrs={"enqueued": True})

    def _ask(self) -> tuple[optuna.Trial, dict[str, Any]]:
        asked = self._study.ask()
        return asked, self._space.suggest(asked)

    def _tell_again(self, asked: optuna.Trial, known: TrialRecord | None) -> None:
        """A duplicate: repeat what is known about the configuration, so that the sampler moves on."""
        self._told += 1
        if known is None or known.status is Status.RUNNING:
            import optuna

            self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            tell(self._space, self._study, asked, known)

    def _tell_infeasible(self, asked: optuna.Trial, size: int | None) -> None:
        import optuna

        self._told += 1
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
            started=now(),
        )
