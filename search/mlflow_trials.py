"""The runs of a search's trials in an MLflow store: find or create, log, end. Torch-free.

Every write may be repeated without changing the outcome: a run is found by its tags before it is made, an epoch that a
run already has is left out, and so is a metric that a run already has with that value. The caller may therefore
answer any failure by trying again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from search.mlflow_probe import MlflowAway
from search.mlflow_requests import Batch, find_runs, log_batch, own_tags
from search.mlflow_values import Dataset, as_params, as_tags, dataset_input, key, metric, same

_INCIDENTS = "incidents"
_LOST = "~lost"  # in the trial id of a run that the search's journal does not know


@dataclass
class Child:
    """What is known of a trial's run. `steps` are the epochs it has; None: not asked yet."""

    run_id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]  # latest values
    steps: set[int] | None


class TrialRuns:
    """The runs of all trials, below one parent. Not safe for several threads.

    `wrote` counts what was new to the store: "epochs", "results", "artifacts", and the trials in `trials`.
    """

    def __init__(self) -> None:
        self.experiment_id = ""
        self.parent = ""
        self.wrote: Counter[str] = Counter()
        self.trials: set[str] = set()
        self._connection: Any = None
        self._left = False
        self._search_id = ""
        self._inherited: dict[str, str] = {}
        self._dataset: Dataset | None = None
        self._children: dict[str, Child] | None = None
        self._batches: dict[str, Batch] | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written to trials' runs within travels in one request for each run, at the end.

        Whoever sees it fail has to `forget` what is believed of the runs.
        """
        if self._batches is not None:
            yield
            return
        self._batches = {}
        try:
            yield
            self._send()
        finally:
            self._batches = None

    def holds(self, trial: str, status: str, epochs: set[int], incidents: int = 0, *, thorough: bool = False) -> bool:
        """Whether a trial's run has ended with this status (the tag's word), has all these epochs and incidents.

        `thorough` asks for the epochs one by one; otherwise the run's own count is believed.
        """
        child = self._loaded().get(trial)
        if child is None or child.status == "RUNNING" or child.tags.get("status") != status:
            return False
        if child.metrics.get(_INCIDENTS, 0) < incidents:
            return False
        if status != "interrupted" and not thorough:
            return child.tags.get("petl.epochs") == str(len(epochs))  # written after all epochs
        return epochs <= self._steps(child)

    def begin_trial(
        self, trial: str, name: str, params: Mapping[str, Any], trainable: int, enqueued: bool, start_ms: int
    ) -> None:
        """Give the trial a run in state RUNNING with its parameters, its size and the data set."""
        child = self._child(trial, name, start_ms)
        if child.status != "RUNNING":
            self._client.update_run(child.run_id, status="RUNNING")
            child.status = "RUNNING"
        tags = {"status": "running", "reason": "", "petl.enqueued": str(enqueued).lower()}
        self._values(child, {"trainable_params": (trainable, 0)}, start_ms, params, tags)
        if self._dataset is not None:
            self._client.log_inputs(child.run_id, datasets=[dataset_input(self._dataset)])

    def log_epochs(self, trial: str, name: str, epochs: Iterable[Mapping[str, Any]]) -> None:
        """Log epochs {"epoch", "time" (ms), "seconds", "metrics"} that the trial's run does not have yet."""
        epochs = list(epochs)
        child = self._child(trial, name, min((int(e["time"]) for e in epochs), default=0))
        has = set(self._steps(child))
        child.steps = None  # asked anew if the write fails halfway
        with self.together():
            for e in epochs:
                if e["epoch"] in has:
                    continue
                has.add(e["epoch"])
                values = {**e["metrics"], "seconds": e["seconds"]}  # where "seconds" is, the epoch is whole
                self._log(child.run_id, [metric(k, v, e["time"], e["epoch"]) for k, v in values.items()])
                self.wrote["epochs"] += 1
                self.trials.add(trial)
        child.steps = has

    def log_incidents(
        self, trial: str, name: str, count: int, epoch: int, tags: Mapping[str, Any], time_ms: int
    ) -> None:
        """Log that so many incidents have happened to a trial; a run that knows of as many is left alone."""
        child = self._child(trial, name, time_ms)
        if child.metrics.get(_INCIDENTS, 0) < count:
            self._values(child, {_INCIDENTS: (count, epoch)}, time_ms, {}, tags)
            self.trials.add(trial)

    def end_trial(
        self,
        trial: str,
        name: str,
        status: str,
        reason: str,
        epochs: int,
        best: Mapping[str, tuple[float, int]],
        end_ms: int,
        tags: Mapping[str, Any] | None = None,
    ) -> None:
        """Close a trial's run: `status` complete or stopped is FINISHED, failed is FAILED.

        `best` maps metric names to (value, epoch).
        """
        child = self._child(trial, name, end_ms)
        marks = {**(tags or {}), "status": status, "reason": reason, "petl.epochs": str(epochs)}
        self._values(child, best, end_ms, {}, marks)
        self._send()
        final = "FAILED" if status == "failed" else "FINISHED"
        self._client.set_terminated(child.run_id, final, end_ms)
        child.status = final
        self.trials.add(trial)

    def forget(self) -> None:
        """Read the children anew before the next write: a failed request may have been carried out all the same."""
        self._children = None

    def leave(self) -> None:
        """Make no request any more: the runs are another's. Safe from any thread."""
        self._left = True

    @property
    def _client(self) -> Any:
        if self._left:
            raise MlflowAway("the runs are another driver's now")
        return self._connection

    # -- inside ------------------------------------------------------------------------------------------

    def _child(self, trial: str, name: str, start_ms: int) -> Child:
        children = self._loaded()
        if trial not in children:
            tags = {
                **self._inherited,
                **own_tags("trial", self._search_id),
                "mlflow.parentRunId": self.parent,
                "petl.trial_id": trial,
                "status": "running",
            }
            run = self._client.create_run(self.experiment_id, start_time=start_ms, tags=tags, run_name=name)
            children[trial] = Child(run.info.run_id, "RUNNING", tags, {}, {}, set())
            self.trials.add(trial)
        return children[trial]

    def _loaded(self) -> dict[str, Child]:
        return self._children if self._children is not None else self._load_children()

    def _load_children(self) -> dict[str, Child]:
        by_trial: dict[str, list[Any]] = {}
        for run in self._runs(of_parent(self.parent)):
            if "petl.trial_id" in run.data.tags:
                by_trial.setdefault(run.data.tags["petl.trial_id"], []).append(run)
        found = {}
        for trial, runs in by_trial.items():
            runs.sort(key=lambda run: (-len(run.data.metrics), run.info.run_id))
            for twin in runs[1:]:
                self._bin(twin.info.run_id, twin.info.start_time)
            info, data = runs[0].info, runs[0].data
            found[trial] = Child(info.run_id, info.status, dict(data.tags), dict(data.params), dict(data.metrics), None)
        self._children = found
        return found

    def _steps(self, child: Child) -> set[int]:
        if child.steps is None:
            child.steps = {m.step for m in self._client.get_metric_history(child.run_id, "seconds")}
        return child.steps

    def _end_lost(self, known: Mapping[str, Mapping[str, Any]]) -> None:
        """End runs of trials that the journal lost, and free their ids: other trials will have them."""
        children = self._loaded()
        for trial, child in list(children.items()):
            if _LOST in trial:
                continue
            if trial in known:
                wanted = as_params(known[trial])
                if all(wanted.get(k) == v for k, v in child.params.items()):
                    continue
            count = 1 + sum(other.startswith(trial + _LOST) for other in children)
            renamed = f"{trial}{_LOST}{count}"
            self._client.set_terminated(child.run_id, "KILLED")
            log_batch(self._client, child.run_id, [], {}, {"status": "lost", "petl.trial_id": renamed})
            children[renamed] = children.pop(trial)
            child.status = "KILLED"
            self.wrote["lost"] += 1

    def _bin(self, run_id: str, time_ms: int) -> None:
        """Put away a run that a request made which had been given up."""
        self._client.set_terminated(run_id, "KILLED", time_ms)
        self._client.delete_run(run_id)

    def _runs(self, wanted: str) -> list[Any]:
        return find_runs(self._client, self.experiment_id, wanted)

    def _values(
        self,
        child: Child,
        values: Mapping[str, tuple[float, int]],
        time_ms: int,
        params: Mapping[str, Any],
        tags: Mapping[str, Any],
    ) -> None:
        """Write to a trial's run what it does not have: metrics {name: (value, step)}, params, tags."""
        new = {k: v for k, v in values.items() if not same(child.metrics.get(key(k)), v[0])}
        metrics = [metric(k, v, time_ms, step) for k, (v, step) in new.items()]
        self._log(child.run_id, metrics, params, tags)
        child.metrics.update({key(k): v for k, (v, _) in new.items()})
        child.params.update(as_params(params))
        child.tags.update(as_tags(tags))

    def _log(
        self,
        run_id: str,
        metrics: list[Any],
        params: Mapping[str, Any] = MappingProxyType({}),
        tags: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        with self.together():
            assert self._batches is not None
            self._batches.setdefault(run_id, Batch(run_id)).add(metrics, params, tags)

    def _send(self) -> None:
        for batch in (self._batches or {}).values():
            batch.send(self._client)
        if self._batches is not None:
            self._batches.clear()


def of_parent(run_id: str) -> str:
    """What selects the runs below a parent."""
    return f"tags.`mlflow.parentRunId` = '{run_id}'"
