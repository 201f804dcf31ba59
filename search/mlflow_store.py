"""How one search writes to MLflow: find or create, log, end. Torch-free.

Every write of `MlflowStore` may be repeated without changing the outcome: runs are found by tag before they are
made, an epoch that a run already has is left out, and so is a metric that a run already has with that value. The
caller may therefore answer any failure by trying again.

A request that was given up may be carried out later all the same, by a server that hung. What it can do is make a
run twice; the second one goes to MLflow's bin when the runs are read next, at the latest at the end of the search.

Nothing here touches MLflow's global state (active run, tracking URI), so a search inside a notebook leaves the
notebook's own runs alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_random

from petl.errors import UserError
from search.mlflow_address import check, exclusive, load_mlflow, resolve_uri, sqlite_path
from search.mlflow_probe import MlflowAway, as_user_error
from search.mlflow_requests import Batch, find_experiment, find_runs, log_batch, own_tags
from search.mlflow_values import Dataset, as_params, as_tags, dataset_input, key, metric, same

__all__ = ["DEFAULT_EXPERIMENT", "Dataset", "MlflowStore", "is_permanent"]

DEFAULT_EXPERIMENT = "petl-search"
_PERMANENT = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "MALFORMED_REQUEST"}
_INCIDENTS = "incidents"
_LOST = "~lost"  # in the trial id of a run that the search's journal does not know


@dataclass
class _Child:
    """What is known of a trial's run. `steps` are the epochs it has; None: not asked yet."""

    run_id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]  # latest values
    steps: set[int] | None


def is_permanent(error: Exception) -> bool:
    """Whether trying the same request again is pointless, as far as the store can be trusted."""
    return is_local(error) or getattr(error, "error_code", None) in _PERMANENT


def is_local(error: Exception) -> bool:
    """Whether the entry itself is at fault: a file that is not there, a value that cannot be sent."""
    return isinstance(error, FileNotFoundError | PermissionError | TypeError | KeyError)


class MlflowStore:
    """One search in an MLflow store: a parent run and one child run per trial. Not safe for several threads.

    `wrote` counts what was new to the store: "epochs", "results", "artifacts", and the trials in `trials`.
    """

    def __init__(self, uri: str, experiment: str = DEFAULT_EXPERIMENT) -> None:
        self.uri = resolve_uri(uri)
        self.experiment = experiment
        self.experiment_id = ""
        self.parent = ""
        self.parent_status = ""
        self.wrote: Counter[str] = Counter()
        self.trials: set[str] = set()
        self._connection: Any = None
        self._left = False
        self._search_id = ""
        self._inherited: dict[str, str] = {}
        self._dataset: Dataset | None = None
        self._children: dict[str, _Child] | None = None
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

    def open(
        self,
        search_id: str,
        name: str,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        dataset: Dataset | None = None,
        *,
        known: Mapping[str, Mapping[str, Any]] | None = None,
        running: bool = True,
    ) -> str:
        """Find or create experiment and parent run, and return the parent's run id.

        Args:
            search_id: what identifies the search across its sessions.
            name: of the parent run.
            tags: of the parent and of every child.
            params: of the parent.
            dataset: of the parent and of every child.
            known: parameters of the trials that the search knows, by id: runs of others are lost and are ended.
            running: set the parent RUNNING; otherwise a parent that exists is left as it is.

        Raises:
            MlflowAway: the store does not answer now.
            UserError: the store cannot be used.
        """
        check(self.uri, strict=True)
        self._search_id, self._inherited, self._dataset = search_id, as_tags(tags or {}), dataset
        # Two searches that begin at once may both make the experiment, or the data set: the second is refused once.
        attempts = Retrying(
            stop=stop_after_attempt(3),
            wait=wait_random(0.2, 1.0),
            retry=retry_if_not_exception_type(UserError),
            reraise=True,
        )
        try:
            attempts(self._open, name, params or {}, running, known)
        except UserError:
            raise
        except Exception as error:
            problem = as_user_error(self.uri, error)
            if sqlite_path(self.uri) is None:  # it is MLflow, and its answers may be others later
                problem = MlflowAway(str(problem))
            raise problem from error
        return self.parent

    def _open(
        self, name: str, params: Mapping[str, Any], running: bool, known: Mapping[str, Mapping[str, Any]] | None
    ) -> None:
        with exclusive(self.uri):
            self._connection = load_mlflow().MlflowClient(self.uri)
            self.experiment_id = find_experiment(self._client, self.uri, self.experiment)
        self._open_parent(name, params, running)
        self._load_children()
        if known is not None:
            self._end_lost(known)

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

    def has_results(self) -> bool:
        """Whether the parent has the search's own metrics."""
        return "trials/complete" in self._client.get_run(self.parent).data.metrics

    def log_results(
        self,
        metrics: Mapping[str, Any],
        tags: Mapping[str, Any],
        time_ms: int,
        winner: tuple[str, str, int, Mapping[str, Any]] | None = None,
    ) -> None:
        """Log the search's own metrics and tags on the parent; `winner` is (trial, name, epoch, test metrics)."""
        had = self._client.get_run(self.parent).data.metrics
        new = {k: v for k, v in metrics.items() if not same(had.get(key(k)), v)}
        log_batch(self._client, self.parent, [metric(k, v, time_ms, 0) for k, v in new.items()], {}, tags)
        if winner is not None:
            trial, name, epoch, test = winner
            child = self._child(trial, name, time_ms)
            self._values(child, {k: (v, epoch) for k, v in test.items()}, time_ms, {}, {"winner": "true"})
        self.wrote["results"] += bool(new)

    def log_artifact(self, path: Path, subdirectory: str) -> None:
        """Put a file or a whole directory among the parent's artifacts."""
        if path.is_dir():
            inside = "/".join(p for p in (subdirectory, path.name) if p)
            self._client.log_artifacts(self.parent, str(path), inside)
        elif path.is_file():
            self._client.log_artifact(self.parent, str(path), subdirectory or None)
        else:
            raise FileNotFoundError(f"no such file: {path}")
        self.wrote["artifacts"] += 1

    def artifacts(self, subdirectory: str = "") -> dict[str, int]:
        """Sizes in bytes of the parent's artifacts in a folder, by name; folders within are left out."""
        found = self._client.list_artifacts(self.parent, subdirectory or None)
        return {Path(f.path).name: int(f.file_size or 0) for f in found if not f.is_dir}

    def end_search(self, status: str, time_ms: int) -> None:
        """End the parent as FINISHED, FAILED or KILLED; children that still run are interrupted, thus KILLED."""
        for trial, child in self._load_children().items():
            if child.status != "RUNNING":
                continue
            ended = {"complete": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}.get(
                child.tags.get("status", "")
            )
            if ended is None:
                log_batch(self._client, child.run_id, [], {}, {"status": "interrupted"})
            self._client.set_terminated(child.run_id, ended or "KILLED", time_ms)
            self.trials.add(trial)
        self._children = None
        for parent in self._parents():
            if parent.info.run_id != self.parent and not self._has_children(parent.info.run_id):
                self._bin(parent.info.run_id, time_ms)
        words = {"FINISHED": "complete", "FAILED": "failed", "KILLED": "interrupted"}
        log_batch(self._client, self.parent, [], {}, {"status": words[status]})
        self._client.set_terminated(self.parent, status, time_ms)
        self.parent_status = status

    def any_running(self) -> bool:
        """Whether a run of this search is in state RUNNING."""
        return self.parent_status == "RUNNING" or any(c.status == "RUNNING" for c in self._loaded().values())

    def answers(self) -> bool:
        """Whether the store serves a simple request now."""
        try:
            self._client.get_run(self.parent)
        except Exception:
            return False
        return True

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

    # -- the parent --------------------------------------------------------------------------------------

    def _open_parent(self, name: str, params: Mapping[str, Any], running: bool) -> None:
        parents = self._parents()
        if len(parents) > 1:
            parents.sort(key=lambda run: not self._has_children(run.info.run_id))
        tags = {**self._inherited, "status": "running"}
        if not parents:
            own = {**tags, **own_tags("search", self._search_id), "mlflow.source.name": "petl-search"}
            run = self._client.create_run(self.experiment_id, tags=own, run_name=name)
            self.parent, self.parent_status = run.info.run_id, "RUNNING"
        else:
            run = parents[0]
            self.parent, self.parent_status = run.info.run_id, run.info.status
            if not running:
                return
            self._client.update_run(self.parent, status="RUNNING")
            self.parent_status = "RUNNING"
            log_batch(self._client, self.parent, [], {}, tags)
        # Parameters are written once: what a resumed search changed (a larger budget) is kept as a tag beside.
        had, wanted = run.data.params, as_params(params)
        new = {k: v for k, v in wanted.items() if k not in had}
        changed = {f"resumed.{k}": v for k, v in wanted.items() if k in had and v != had[k]}
        log_batch(self._client, self.parent, [], new, changed)
        if self._dataset is not None:
            self._client.log_inputs(self.parent, datasets=[dataset_input(self._dataset)])

    def _runs(self, wanted: str) -> list[Any]:
        return find_runs(self._client, self.experiment_id, wanted)

    def _parents(self) -> list[Any]:
        return self._runs(f"tags.`petl.search_id` = '{self._search_id}' and tags.`petl.kind` = 'search'")

    # -- children ----------------------------------------------------------------------------------------

    def _child(self, trial: str, name: str, start_ms: int) -> _Child:
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
            children[trial] = _Child(run.info.run_id, "RUNNING", tags, {}, {}, set())
            self.trials.add(trial)
        return children[trial]

    def _loaded(self) -> dict[str, _Child]:
        return self._children if self._children is not None else self._load_children()

    def _load_children(self) -> dict[str, _Child]:
        by_trial: dict[str, list[Any]] = {}
        for run in self._runs(_of_parent(self.parent)):
            if "petl.trial_id" in run.data.tags:
                by_trial.setdefault(run.data.tags["petl.trial_id"], []).append(run)
        found = {}
        for trial, runs in by_trial.items():
            runs.sort(key=lambda run: (-len(run.data.metrics), run.info.run_id))
            for twin in runs[1:]:
                self._bin(twin.info.run_id, twin.info.start_time)
            info, data = runs[0].info, runs[0].data
            found[trial] = _Child(
                info.run_id, info.status, dict(data.tags), dict(data.params), dict(data.metrics), None
            )
        self._children = found
        return found

    def _steps(self, child: _Child) -> set[int]:
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

    def _has_children(self, run_id: str) -> bool:
        return bool(self._client.search_runs([self.experiment_id], _of_parent(run_id), max_results=1))

    def _values(
        self,
        child: _Child,
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


def _of_parent(run_id: str) -> str:
    return f"tags.`mlflow.parentRunId` = '{run_id}'"
