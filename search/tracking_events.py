"""What the tracker has to tell MLflow, as plain JSON objects, and the spool file that keeps them (torch-free).

Every event carries all that is needed to carry it out, so that it can wait in a file. Events are carried out in
groups, and a group may be carried out again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petl.errors import UserError
from search.metric_text import deviation_of
from search.mlflow_address import shown
from search.mlflow_store import MlflowStore
from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord

Event = dict[str, Any]
SPOOL = "mlflow-spool.jsonl"
SPOOL_FORMAT = "petl.mlflow-spool/1"


def begun(trial: TrialRecord) -> Event:
    return {
        "event": "trial",
        "trial": trial.id,
        "name": trial.name,
        "params": dict(trial.params),
        "trainable_params": trial.trainable_params,
        "enqueued": trial.enqueued,
        "time": _ms(trial.started),
    }


def reported(trial: TrialRecord, epoch: EpochRecord, time_ms: int) -> Event:
    return {
        "event": "epoch",
        "trial": trial.id,
        "name": trial.name,
        "epoch": epoch.epoch,
        "time": time_ms,
        "seconds": epoch.seconds,
        "metrics": dict(epoch.metrics),
    }


def past_epochs(trial: TrialRecord) -> list[Event]:
    """Epochs from a record, which keeps no clock times: they are put one after the other from the start."""
    events, clock, now = [], _ms(trial.started), int(time.time() * 1000)
    for epoch in trial.epochs:
        clock = min(clock + int(epoch.seconds * 1000), now)
        events.append(reported(trial, epoch, clock))
    return events


def ended(trial: TrialRecord, objectives: list[Objective]) -> Event:
    return {
        "event": "end",
        "trial": trial.id,
        "name": trial.name,
        "status": str(trial.status),
        "reason": trial.reason,
        "epochs": len(trial.epochs),
        "best": _bests(trial, objectives),
        "time": _ms(trial.ended or 0.0),
    }


def _bests(trial: TrialRecord, objectives: list[Objective]) -> dict[str, tuple[float, int]]:
    """{"val/best_accuracy": (value, epoch)}: MLflow's own column shows the last epoch, not the one that counts.

    Of several repeats `val/best_accuracy_std` stands beside the mean.
    """
    found = {}
    for objective in objectives:
        best = trial.best(objective)
        if best is not None:
            group, _, metric = objective.metric.rpartition("/")
            key = f"{group}/best_{metric}" if group else f"best_{metric}"
            found[key] = (best.metrics[objective.metric], best.epoch)
            deviation = deviation_of(objective.metric, best.metrics)
            if deviation is not None:
                found[f"{key}_std"] = (deviation, best.epoch)
    return found


def results(record: SearchRecord, metrics: Mapping[str, float]) -> Event:
    counts = {f"trials/{s}": sum(t.status is s for t in record.trials) for s in Status if s is not Status.RUNNING}
    values: dict[str, float] = {
        **counts,
        "trials/rejected": len(record.rejected),
        "seconds": record.seconds,
        **record.test,
        **metrics,
    }
    event: Event = {"event": "results", "time": int(time.time() * 1000), "tags": {}, "winner": None}
    winner = next((t for t in record.trials if t.id == record.winner), None)
    if winner is not None:
        values |= {key: value for key, (value, _) in _bests(winner, record.objectives).items()}
        best = winner.best(record.objectives[0])
        event["tags"] = {"winner": winner.name}
        event["winner"] = [winner.id, winner.name, best.epoch if best else 0, dict(record.test)]
    return {**event, "metrics": values}


def grouped(events: list[Event]) -> list[list[Event]]:
    """The events in an order that keeps each trial's own, with the epochs of a trial joined into one group."""
    groups: list[list[Event]] = []
    joined: dict[str, list[Event]] = {}  # trial -> the group its next epoch may join
    for event in events:
        trial = event.get("trial", "")
        if event["event"] == "epoch" and trial in joined:
            joined[trial].append(event)
            continue
        groups.append([event])
        if event["event"] == "epoch":
            joined[trial] = groups[-1]
        elif trial:
            joined.pop(trial, None)
        else:  # results and the end of the search come after all that was before them
            joined.clear()
    return groups


def apply(store: MlflowStore, group: list[Event]) -> None:
    """Carry out one group. Every branch may be repeated."""
    event = group[0]
    kind = event["event"]
    if kind == "trial":
        store.begin_trial(
            event["trial"],
            event["name"],
            event["params"],
            event["trainable_params"],
            event["enqueued"],
            event["time"],
        )
    elif kind == "epoch":
        store.log_epochs(event["trial"], event["name"], group)
    elif kind == "end":
        best = {key: (value, epoch) for key, (value, epoch) in event["best"].items()}
        store.end_trial(
            event["trial"],
            event["name"],
            event["status"],
            event["reason"],
            event["epochs"],
            best,
            event["time"],
        )
    elif kind == "results":
        winner = event["winner"]
        store.log_results(event["metrics"], event["tags"], event["time"], None if winner is None else tuple(winner))
    elif kind == "artifact":
        store.log_artifact(Path(event["path"]), event["folder"])
    elif kind == "close":
        store.end_search(event["status"], event["time"])


def write_spool(path: Path, head: Event, events: list[Event]) -> None:
    lines = [head, *({k: v for k, v in event.items() if k != "tries"} for event in events)]
    new = path.with_suffix(".new")
    new.write_text("".join(json.dumps(line, default=str) + "\n" for line in lines), encoding="utf-8")
    new.replace(path)


def read_spool(path: Path) -> tuple[Event, list[Event]]:
    try:
        head, *events = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line)
        if head["format"] != SPOOL_FORMAT or not all(isinstance(e["event"], str) for e in events):
            raise ValueError(head["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a spool of this version ({one_line(error)}). Move it away to go on; the search's own "
            "results are not in it, only what was meant for MLflow."
        ) from error
    return head, events


def describe(event: Event) -> str:
    return " ".join(str(event[k]) for k in ("event", "name", "epoch", "path") if k in event)


def one_line(error: Exception) -> str:
    text = shown(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


def _ms(seconds: float) -> int:
    return int((seconds or time.time()) * 1000)
