"""How one search writes to MLflow: find or create, log, end. Torch-free.

Every write of `MlflowStore` may be repeated without changing the outcome: runs are found by tag before they are
made, an epoch that a run already has is left out, and repeated metrics carry the same time stamp, which MLflow
recognises. The caller may therefore answer any failure by trying again.

Nothing here touches MLflow's global
state (active run, tracking URI), so a search inside a notebook leaves the notebook's own runs alone.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from petl.errors import UserError
from search.mlflow_address import (
    as_user_error,
    check,
    exclusive,
    load_mlflow,
    resolve_uri,
    shown,
    sqlite_path,
)

DEFAULT_EXPERIMENT = "petl-search"
_METRICS_A_CALL, _OTHERS_A_CALL = 800, 100  # of one log_batch: 1000 entities in all, 100 params, 100 tags
_MAX_PARAM, _MAX_TAG, _MAX_KEY, _MAX_DIGEST = 6000, 8000, 250, 36
_PERMANENT = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "MALFORMED_REQUEST"}


@dataclass(frozen=True)
class Dataset:
    """The data set as an MLflow input. `profile` holds counts (clips, classes, seconds, per split ...)."""

    name: str
    digest: str
    source: str  # a path or an address
    source_type: str = "local"
    schema: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Child:
    """What is known of a trial's run. `steps` are the epochs it has; None: not asked yet."""

    run_id: str
    status: str
    tags: dict[str, str]
    steps: set[int] | None


def is_permanent(error: Exception) -> bool:
    """Whether trying the same request again is pointless."""
    if isinstance(error, FileNotFoundError | PermissionError | TypeError | KeyError):
        return True
    return getattr(error, "error_code", None) in _PERMANENT


class MlflowStore:
    """One search in an MLflow store: a parent run and one child run per trial. Not safe for several threads."""

    def __init__(self, uri: str, experiment: str = DEFAULT_EXPERIMENT) -> None:
        self.uri = resolve_uri(uri)
        self.experiment = experiment
        self.experiment_id = ""
        self.parent = ""
        self._client: Any = None
        self._search_id = ""
        self._inherited: dict[str, str] = {}
        self._dataset: Dataset | None = None
        self._children: dict[str, _Child] | None = None

    def open(
        self,
        search_id: str,
        name: str,
        tags: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        dataset: Dataset | None = None,
    ) -> str:
        """Find or create experiment and parent run, set the parent RUNNING, and return its run id.

        `tags` and `dataset` go to the parent and to every child.

        Raises:
            UserError: the store does not answer or cannot be used.
        """
        check(self.uri)
        try:
            with exclusive(self.uri):
                self._client = load_mlflow().MlflowClient(self.uri)
                self.experiment_id = self._find_experiment()
            self._search_id, self._inherited, self._dataset = search_id, _tags(tags or {}), dataset
            self._open_parent(name, params or {})
            self._load_children()
        except UserError:
            raise
        except Exception as error:
            raise as_user_error(self.uri, error) from error
        return self.parent

    def tags_if_ended(self, trial: str) -> Mapping[str, str]:
        """Tags of a trial's run as they were when last read or written; empty unless there is a run that ended."""
        child = self._loaded().get(trial)
        return {} if child is None or child.status == "RUNNING" else child.tags

    def begin_trial(
        self, trial: str, name: str, params: Mapping[str, Any], trainable: int, enqueued: bool, start_ms: int
    ) -> None:
        """Give the trial a run in state RUNNING with its parameters, its size and the data set."""
        child = self._child(trial, name, start_ms)
        if child.status != "RUNNING":
            self._client.update_run(child.run_id, status="RUNNING")
            child.status = "RUNNING"
        metrics = [_metric("trainable_params", trainable, start_ms, 0)]
        tags = {"status": "running", "reason": "", "petl.enqueued": str(enqueued).lower()}
        self._batch(child.run_id, metrics, params, tags)
        child.tags.update(tags)
        self._log_dataset(child.run_id)

    def log_epochs(self, trial: str, name: str, epochs: Iterable[Mapping[str, Any]]) -> None:
        """Log epochs {"epoch", "time" (ms), "seconds", "metrics"} that the trial's run does not have yet."""
        epochs = list(epochs)
        child = self._child(trial, name, min((int(e["time"]) for e in epochs), default=0))
        if child.steps is None:
            history = self._client.get_metric_history(child.run_id, "seconds")
            child.steps = {m.step for m in history}
        new = [e for e in epochs if e["epoch"] not in child.steps]
        metrics = []
        for e in new:
            values = {**e["metrics"], "seconds": e["seconds"]}  # "seconds" last: where it is, the epoch is whole
            metrics += [_metric(k, v, e["time"], e["epoch"]) for k, v in values.items()]
        steps, child.steps = child.steps, None  # asked anew if the write fails halfway
        self._batch(child.run_id, metrics, {}, {})
        child.steps = steps | {e["epoch"] for e in new}

    def end_trial(
        self,
        trial: str,
        name: str,
        status: str,
        reason: str,
        epochs: int,
        best: Mapping[str, tuple[float, int]],
        end_ms: int,
    ) -> None:
        """Close a trial's run: `status` complete or stopped is FINISHED, failed is FAILED.

        `best` maps metric names to (value, epoch).
        """
        child = self._child(trial, name, end_ms)
        tags = {"status": status, "reason": reason, "petl.epochs": str(epochs)}
        metrics = [_metric(k, v, end_ms, step) for k, (v, step) in best.items()]
        self._batch(child.run_id, metrics, {}, tags)
        final = "FAILED" if status == "failed" else "FINISHED"
        self._client.set_terminated(child.run_id, final, end_ms)
        child.status = final
        child.tags.update(tags)

    def log_results(
        self,
        metrics: Mapping[str, Any],
        tags: Mapping[str, Any],
        time_ms: int,
        winner: tuple[str, str, int, Mapping[str, Any]] | None = None,
    ) -> None:
        """Log the search's own metrics and tags on the parent; `winner` is (trial, name, epoch, test metrics)."""
        self._batch(self.parent, [_metric(k, v, time_ms, 0) for k, v in metrics.items()], {}, tags)
        if winner is not None:
            trial, name, epoch, test = winner
            run_id = self._child(trial, name, time_ms).run_id
            self._batch(run_id, [_metric(k, v, time_ms, epoch) for k, v in test.items()], {}, {"winner": "true"})

    def log_artifact(self, path: Path, subdirectory: str) -> None:
        """Put a file or a whole directory among the parent's artifacts."""
        if path.is_dir():
            inside = "/".join(p for p in (subdirectory, path.name) if p)
            self._client.log_artifacts(self.parent, str(path), inside)
        elif path.is_file():
            self._client.log_artifact(self.parent, str(path), subdirectory or None)
        else:
            raise FileNotFoundError(f"no such file: {path}")

    def end_search(self, status: str, time_ms: int) -> None:
        """End the parent as FINISHED, FAILED or KILLED; children that still run are interrupted, thus KILLED."""
        for run in self._runs(f"{self._of_parent()} and attributes.status = 'RUNNING'"):
            self._batch(run.info.run_id, [], {}, {"status": "interrupted"})
            self._client.set_terminated(run.info.run_id, "KILLED", time_ms)
        self._children = None
        words = {"FINISHED": "complete", "FAILED": "failed", "KILLED": "interrupted"}
        self._batch(self.parent, [], {}, {"status": words[status]})
        self._client.set_terminated(self.parent, status, time_ms)

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

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self.experiment, self._artifact_location()))
            except Exception:
                found = self._client.get_experiment_by_name(self.experiment)  # made by another search meanwhile?
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise UserError(
                f"The MLflow experiment '{self.experiment}' in {shown(self.uri)} is in MLflow's bin. Restore it "
                f"(mlflow experiments restore --experiment-id {found.experiment_id}) or use another store (--mlflow)."
            )
        return str(found.experiment_id)

    def _artifact_location(self) -> str | None:
        """Artifacts lie beside the SQLite file, where `mlflow ui` puts its own; a server decides for itself."""
        path = sqlite_path(self.uri)
        folder = re.sub(r"[^\w.-]", "_", self.experiment)
        return None if path is None else (path.parent / "mlartifacts" / folder).as_uri()

    def _open_parent(self, name: str, params: Mapping[str, Any]) -> None:
        wanted = f"tags.`petl.search_id` = '{self._search_id}' and tags.`petl.kind` = 'search'"
        found = next(self._runs(wanted), None)
        tags = {**self._inherited, "status": "running"}
        if found is None:
            own = {**tags, **self._own_tags("search"), "mlflow.source.name": "petl-search"}
            run = self._client.create_run(self.experiment_id, tags=own, run_name=name)
            self.parent, had = run.info.run_id, {}
        else:
            self.parent, had = found.info.run_id, found.data.params
            self._client.update_run(self.parent, status="RUNNING")
            self._batch(self.parent, [], {}, tags)
        # Parameters are written once: what a resumed search changed (a larger budget) is kept as a tag beside.
        new = {k: v for k, v in params.items() if _key(k) not in had}
        changed = {
            f"resumed.{_key(k)}": v
            for k, v in params.items()
            if _key(k) in had and _text(v, _MAX_PARAM) != had[_key(k)]
        }
        self._batch(self.parent, [], new, changed)
        self._log_dataset(self.parent)

    def _own_tags(self, kind: str) -> dict[str, str]:
        tags = {"petl.kind": kind, "petl.search_id": self._search_id, "mlflow.source.type": "LOCAL"}
        with contextlib.suppress(OSError, KeyError):  # a container without a user entry
            tags["mlflow.user"] = getpass.getuser()
        return tags

    def _child(self, trial: str, name: str, start_ms: int) -> _Child:
        children = self._loaded()
        if trial not in children:
            tags = {
                **self._inherited,
                **self._own_tags("trial"),
                "mlflow.parentRunId": self.parent,
                "petl.trial_id": trial,
                "status": "running",
            }
            run = self._client.create_run(self.experiment_id, start_time=start_ms, tags=tags, run_name=name)
            children[trial] = _Child(run.info.run_id, "RUNNING", tags, set())
        return children[trial]

    def _loaded(self) -> dict[str, _Child]:
        return self._children if self._children is not None else self._load_children()

    def _load_children(self) -> dict[str, _Child]:
        found = {
            run.data.tags["petl.trial_id"]: _Child(run.info.run_id, run.info.status, dict(run.data.tags), None)
            for run in self._runs(self._of_parent())
            if "petl.trial_id" in run.data.tags
        }
        self._children = found
        return found

    def _of_parent(self) -> str:
        return f"tags.`mlflow.parentRunId` = '{self.parent}'"

    def _runs(self, wanted: str) -> Iterator[Any]:
        """All active runs that match; pages are read to the end before the first is given out."""
        runs, token = [], None
        while True:
            page = self._client.search_runs(
                [self.experiment_id],
                wanted,
                max_results=1000,
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            runs += list(page)
            token = page.token
            if not token:
                return iter(runs)

    def _batch(self, run_id: str, metrics: list[Any], params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        """`log_batch` in as many calls as its limits ask for."""
        from mlflow.entities import Param, RunTag

        entries = [Param(_key(k), _text(v, _MAX_PARAM)) for k, v in params.items()]
        marks = [RunTag(k, v) for k, v in _tags(tags).items()]
        metrics = [m for m in metrics if m is not None]
        calls = max(
            -(-len(metrics) // _METRICS_A_CALL),
            -(-len(entries) // _OTHERS_A_CALL),
            -(-len(marks) // _OTHERS_A_CALL),
        )
        for i in range(calls):
            self._client.log_batch(
                run_id,
                metrics=metrics[i * _METRICS_A_CALL : (i + 1) * _METRICS_A_CALL],
                params=entries[i * _OTHERS_A_CALL : (i + 1) * _OTHERS_A_CALL],
                tags=marks[i * _OTHERS_A_CALL : (i + 1) * _OTHERS_A_CALL],
            )

    def _log_dataset(self, run_id: str) -> None:
        if self._dataset is None:
            return
        from mlflow.entities import Dataset as Entity
        from mlflow.entities import DatasetInput, InputTag

        data = self._dataset
        source = json.dumps({"uri": data.source} if data.source_type == "local" else {"url": data.source})
        entity = Entity(
            name=data.name,
            digest=data.digest[:_MAX_DIGEST],
            source_type=data.source_type,
            source=source,
            schema=json.dumps(dict(data.schema), default=str) if data.schema else None,
            profile=json.dumps(dict(data.profile), default=str) if data.profile else None,
        )
        self._client.log_inputs(run_id, datasets=[DatasetInput(entity, [InputTag("mlflow.data.context", "search")])])


def _metric(key: str, value: Any, time_ms: int, step: int) -> Any:
    """An MLflow metric, None when the value is no number."""
    from mlflow.entities import Metric

    try:
        return Metric(_key(key), float(value), int(time_ms), int(step))
    except (TypeError, ValueError):
        return None


def _key(name: str) -> str:
    return re.sub(r"[^\w\-. /:]", "_", str(name)).strip("/")[:_MAX_KEY]


def _text(value: Any, limit: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {_key(k): _text(v, _MAX_TAG) for k, v in tags.items() if v is not None}
