"""How one search writes to MLflow: its own run, and those of its trials (`search.mlflow_trials`). Torch-free.

Every write of `MlflowStore` may be repeated without changing the outcome, so the caller may answer any failure by
trying again.

A request that was given up may be carried out later all the same, by a server that hung. What it can do is make a
run twice; the second one goes to MLflow's bin when the runs are read next, at the latest at the end of the search.

Nothing here touches MLflow's global state (active run, tracking URI), so a search inside a notebook leaves the
notebook's own runs alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_not_exception_type, stop_after_attempt, wait_random

from petl.errors import UserError
from search.mlflow_address import check, exclusive, load_mlflow, resolve_uri, sqlite_path
from search.mlflow_probe import MlflowAway, as_user_error
from search.mlflow_requests import find_experiment, log_batch, own_tags
from search.mlflow_trials import TrialRuns, of_parent
from search.mlflow_values import Dataset, as_params, as_tags, dataset_input, key, metric, same

__all__ = ["DEFAULT_EXPERIMENT", "Dataset", "MlflowStore", "is_permanent"]

DEFAULT_EXPERIMENT = "petl-search"
_PERMANENT = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "MALFORMED_REQUEST"}


def is_permanent(error: Exception) -> bool:
    """Whether trying the same request again is pointless, as far as the store can be trusted."""
    return is_local(error) or getattr(error, "error_code", None) in _PERMANENT


def is_local(error: Exception) -> bool:
    """Whether the entry itself is at fault: a file that is not there, a value that cannot be sent."""
    return isinstance(error, FileNotFoundError | PermissionError | TypeError | KeyError)


class MlflowStore(TrialRuns):
    """One search in an MLflow store: a parent run and one child run per trial. Not safe for several threads."""

    def __init__(self, uri: str, experiment: str = DEFAULT_EXPERIMENT) -> None:
        super().__init__()
        self.uri = resolve_uri(uri)
        self.experiment = experiment
        self.parent_status = ""

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

    def _parents(self) -> list[Any]:
        return self._runs(f"tags.`petl.search_id` = '{self._search_id}' and tags.`petl.kind` = 'search'")

    def _has_children(self, run_id: str) -> bool:
        return bool(self._client.search_runs([self.experiment_id], of_parent(run_id), max_results=1))
