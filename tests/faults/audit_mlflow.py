"""Whether MLflow has what the journal has: every trial once, every epoch's values once, and no run still open."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from tests.faults.audit_journal import Told, Trial, same

_ENDED = {"complete": "FINISHED", "stopped": "FINISHED", "failed": "FAILED", "running": "KILLED"}
_LONGEST = 6000  # characters of a parameter that the tracker hands on


def check(told: Told, uri: str) -> list[str]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = _runs(client, f"tags.`petl.search_id` = '{told.search_id}'")
    parents = [run for run in runs if run.data.tags.get("petl.kind") == "search"]
    if len(parents) != 1:
        return [f"MLflow: {len(parents)} parent runs of search {told.search_id}"]
    parent = parents[0]
    wrong = _parent(told, parent)
    children = [run for run in runs if run.data.tags.get("petl.kind") == "trial"]
    counted = Counter(run.data.tags.get("petl.trial_id") for run in children)
    wrong += [f"MLflow: {id} has {n} runs" for id, n in sorted(counted.items()) if n > 1]
    wrong += [f"MLflow: {id} has no run" for id in told.trials if id not in counted]
    for run in children:
        id = run.data.tags.get("petl.trial_id")
        if run.data.tags.get("mlflow.parentRunId") != parent.info.run_id:
            wrong.append(f"MLflow: the run of {id} is no child of the search's run")
        if "~lost" in str(id) and run.info.status == "KILLED" and run.data.tags.get("status") == "lost":
            continue  # begun in the last second of a driver whose machine is gone, and said so
        if id not in told.trials:
            wrong.append(f"MLflow: {id} is not in the journal")
            continue
        wrong += [f"MLflow: {id}: {what}" for what in _child(client, told, told.trials[id], run)]
    return wrong


def _parent(told: Told, run: Any) -> list[str]:
    wrong = []
    wanted = ("FINISHED",) if told.over else ("FINISHED", "FAILED", "KILLED")
    if run.info.status not in wanted:
        wrong.append(f"MLflow: the search's run is {run.info.status}")
    if told.over:
        name = told.trials[told.winner].name if told.winner in told.trials else None
        if run.data.tags.get("winner") != name:
            wrong.append(f"MLflow: the winner is {run.data.tags.get('winner')}, not {name}")
        for key, value in told.test.items():
            if not same(run.data.metrics.get(key), value):
                wrong.append(f"MLflow: {key} of the search is {run.data.metrics.get(key)}, not {value}")
    return wrong


def _child(client: Any, told: Told, trial: Trial, run: Any) -> list[str]:
    tags, wrong = run.data.tags, []
    if run.info.status != _ENDED[trial.status]:
        wrong.append(f"its run is {run.info.status}, the trial {trial.status}")
    status = "interrupted" if trial.status == "running" else trial.status
    if tags.get("status") != status:
        wrong.append(f"its run is tagged {tags.get('status')}, the trial is {status}")
    if run.info.run_name != trial.name:
        wrong.append(f"its run is called {run.info.run_name}, not {trial.name}")
    wanted = {_key(k): _text(v) for k, v in trial.params.items()}
    if run.data.params != wanted:
        different = sorted(k for k in wanted.keys() | run.data.params.keys() if wanted.get(k) != run.data.params.get(k))
        wrong.append(f"parameters differ: {', '.join(different)}")
    if told.over and (tags.get("winner") == "true") != (trial.id == told.winner):
        wrong.append(f"tagged winner={tags.get('winner')}; the winner is {told.winner}")
    metrics = dict.fromkeys(m for values in trial.epochs.values() for m in values)
    for metric in metrics:
        wrong += _metric(client, trial, run.info.run_id, metric)
    grouped = [m for m in run.data.metrics if m.startswith(("train/", "val/")) and "/best_" not in m]
    wrong += [f"{m} is not in the journal" for m in grouped if m not in {_key(name) for name in metrics}]
    return wrong


def _metric(client: Any, trial: Trial, run_id: str, metric: str) -> list[str]:
    points = client.get_metric_history(run_id, _key(metric))
    wanted = {epoch: values[metric] for epoch, values in trial.epochs.items() if metric in values}
    steps = sorted(point.step for point in points)
    if steps != sorted(wanted):
        twice = sorted(s for s, n in Counter(steps).items() if n > 1)
        lacking, odd = sorted(wanted.keys() - set(steps)), sorted(set(steps) - wanted.keys())
        facts = [("twice", twice), ("lacking", lacking), ("not in the journal", odd)]
        return [f"{metric}: epochs " + "; ".join(f"{what}: {found}" for what, found in facts if found)]
    # What is infinite comes back as the largest number a double holds.
    return [
        f"{metric} of epoch {p.step} is {p.value}, in the journal {wanted[p.step]}"
        for p in points
        if not same(p.value if abs(p.value) < 1e308 else None, wanted[p.step])
    ]


def _runs(client: Any, wanted: str) -> list[Any]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs, token = [], None
    while True:
        page = client.search_runs(experiments, wanted, max_results=1000, page_token=token)
        runs += list(page)
        token = page.token
        if not token:
            return runs


def _key(name: str) -> str:
    return re.sub(r"[^\w\-. /:]", "_", name).strip("/")[:250]


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
