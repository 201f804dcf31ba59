"""Requests to MLflow that know nothing of trials: experiments, pages of runs, batches of entries (torch-free)."""

from __future__ import annotations

import contextlib
import getpass
import re
from collections.abc import Mapping
from typing import Any

from petl.errors import UserError
from search.mlflow_address import shown, sqlite_path
from search.mlflow_values import as_params, as_tags

METRICS_A_CALL, _OTHERS_A_CALL = 800, 100  # of one log_batch: 1000 entities in all, 100 params, 100 tags


def find_experiment(client: Any, uri: str, name: str) -> str:
    """Id of the experiment, which is made where there is none.

    Raises:
        UserError: it is in MLflow's bin.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, _artifact_location(uri, name)))
        except Exception:
            found = client.get_experiment_by_name(name)  # made by another search meanwhile?
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise UserError(
            f"The MLflow experiment '{name}' in {shown(uri)} is in MLflow's bin. Restore it "
            f"(mlflow experiments restore --experiment-id {found.experiment_id}) or use another store (--mlflow)."
        )
    return str(found.experiment_id)


def _artifact_location(uri: str, experiment: str) -> str | None:
    """Artifacts lie beside the SQLite file, where `mlflow ui` puts its own; a server decides for itself."""
    path = sqlite_path(uri)
    folder = re.sub(r"[^\w.-]", "_", experiment)
    return None if path is None else (path.parent / "mlartifacts" / folder).as_uri()


def own_tags(kind: str, search_id: str) -> dict[str, str]:
    """What marks a run as one of a search; `kind` is search or trial."""
    tags = {"petl.kind": kind, "petl.search_id": search_id, "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(OSError, KeyError):  # a container without a user entry
        tags["mlflow.user"] = getpass.getuser()
    return tags


def find_runs(client: Any, experiment_id: str, wanted: str) -> list[Any]:
    """All active runs that match, in the order in which they began."""
    runs, token = list[Any](), None
    while True:
        page = client.search_runs(
            [experiment_id], wanted, max_results=1000, order_by=["attributes.start_time ASC"], page_token=token
        )
        runs += list(page)
        token = page.token
        if not token:
            return runs


def log_batch(client: Any, run_id: str, metrics: list[Any], params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
    """Write entries in as many calls as the limits ask for; metrics that are None are left out."""
    from mlflow.entities import Param, RunTag

    entries = [Param(k, v) for k, v in as_params(params).items()]
    marks = [RunTag(k, v) for k, v in as_tags(tags).items()]
    metrics = [m for m in metrics if m is not None]
    calls = max(
        -(-len(metrics) // METRICS_A_CALL),
        -(-len(entries) // _OTHERS_A_CALL),
        -(-len(marks) // _OTHERS_A_CALL),
    )
    for i in range(calls):
        client.log_batch(
            run_id,
            metrics=metrics[i * METRICS_A_CALL : (i + 1) * METRICS_A_CALL],
            params=entries[i * _OTHERS_A_CALL : (i + 1) * _OTHERS_A_CALL],
            tags=marks[i * _OTHERS_A_CALL : (i + 1) * _OTHERS_A_CALL],
        )


class Batch:
    """Entries for one run that travel together, in as few calls as the limits allow."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._calls: list[list[Any]] = [[]]
        self._params: dict[str, Any] = {}
        self._tags: dict[str, Any] = {}

    def add(self, metrics: list[Any], params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        """Take entries; these metrics stay in one call, which MLflow carries out as a whole or not at all."""
        if self._calls[-1] and len(self._calls[-1]) + len(metrics) > METRICS_A_CALL:
            self._calls.append([])
        self._calls[-1] += metrics
        self._params |= params
        self._tags |= tags

    def send(self, client: Any) -> None:
        """Write everything; parameters and tags with the last metrics (tags tell that these are there)."""
        for metrics in self._calls[:-1]:
            log_batch(client, self._run_id, metrics, {}, {})
        log_batch(client, self._run_id, self._calls[-1], self._params, self._tags)
