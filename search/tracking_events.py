"""What the tracker has to tell MLflow, as plain JSON objects (torch-free).

Every event carries all that is needed to carry it out, so that it can wait in a file. Events are carried out in
groups, and a group may be carried out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.clock import now_ms
from search.metric_text import deviation_of, repeats_of
from search.mlflow_address import shown
from search.mlflow_store import Dataset, MlflowStore
from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord

Event = dict[str, Any]
_REASON = 200  # characters of an incident's reason
_INCIDENTS = 30  # in a tag, which takes 8000 characters


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
    events, clock, now = [], _ms(trial.started), now_ms()
    for epoch in trial.epochs:
        clock = min(clock + int(epoch.seconds * 1000), now)
        events.append(reported(trial, epoch, clock))
    return events


def past_incidents(trial: TrialRecord) -> list[Event]:
    return [disturbed(trial)] if trial.incidents else []


def ended(trial: TrialRecord, objectives: list[Objective]) -> Event:
    return {
        "event": "end",
        "trial": trial.id,
        "name": trial.name,
        "status": str(trial.status),
        "reason": trial.reason,
        "epochs": len(trial.epochs),
        "best": _bests(trial, objectives),
        "tags": {"petl.incidents": _incidents(trial)} if trial.incidents else {},
        "time": _ms(trial.ended or 0.0),
    }


def disturbed(trial: TrialRecord) -> Event:
    """What went wrong with a trial so far; its last incident is the news."""
    last = trial.incidents[-1]
    return {
        "event": "incident",
        "trial": trial.id,
        "name": trial.name,
        "count": len(trial.incidents),
        "epoch": last.epoch,
        "tags": {"petl.incidents": _incidents(trial)},
        "time": _ms(last.time),
    }


def _incidents(trial: TrialRecord) -> str:
    """What went wrong with a trial and was dealt with, a line each; of many the last ones."""
    last = trial.incidents[-_INCIDENTS:]
    before = len(trial.incidents) - len(last)
    lines = [f"after epoch {i.epoch}: {i.kind}: {_first_line(i.reason)[:_REASON]}" for i in last]
    return "\n".join([f"{before} earlier ones", *lines] if before else lines)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]


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


def snapshot(trial: TrialRecord) -> TrialRecord:
    """The trial as it is now, while the search goes on with the original."""
    return replace(trial, epochs=list(trial.epochs), incidents=list(trial.incidents))


def history(trial: TrialRecord, objectives: list[Objective]) -> list[Event]:
    """All there is to tell of a trial."""
    end = [] if trial.status is Status.RUNNING else [ended(trial, objectives)]
    return [begun(trial), *past_epochs(trial), *past_incidents(trial), *end]


def results(record: SearchRecord, metrics: Mapping[str, float]) -> Event:
    counts = {f"trials/{s}": sum(t.status is s for t in record.trials) for s in Status if s is not Status.RUNNING}
    values: dict[str, float] = {
        **counts,
        "trials/rejected": len(record.rejected),
        "seconds": record.seconds,
        **record.test,
        **metrics,
    }
    event: Event = {"event": "results", "time": now_ms(), "tags": {}, "winner": None}
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


def by_trial(groups: list[list[Event]]) -> list[list[list[Event]]]:
    """What there is of one trial side by side, in its order: it can be carried out in one go."""
    found: list[list[list[Event]]] = []
    joined: dict[str, list[list[Event]]] = {}
    for group in groups:
        trial = group[0].get("trial", "")
        if trial in joined:
            joined[trial].append(group)
            continue
        found.append([group])
        if trial:
            joined[trial] = found[-1]
        else:
            joined.clear()
    return found


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
    elif kind == "incident":
        store.log_incidents(event["trial"], event["name"], event["count"], event["epoch"], event["tags"], event["time"])
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
            event.get("tags"),
        )
    elif kind == "results":
        winner = event["winner"]
        store.log_results(event["metrics"], event["tags"], event["time"], None if winner is None else tuple(winner))
    elif kind == "artifact":
        store.log_artifact(Path(event["path"]), event["folder"])
    elif kind == "close":
        store.end_search(event["status"], event["time"])


def describe(event: Event) -> str:
    text = " ".join(str(event[k]) for k in ("event", "name", "epoch", "path") if k in event)
    return "".join(c if c.isprintable() else "?" for c in text)


def one_line(error: Exception) -> str:
    text = shown(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


def _ms(seconds: float) -> int:
    return int(seconds * 1000) if seconds else now_ms()


def describing_tags(record: SearchRecord) -> dict[str, str]:
    """Tags of all runs of a search: its code, what is learned and how it is measured.

    Runs of different tasks or protocols are not to be compared.
    """
    info, found = record.info, dict[str, str]()
    commit = str(info.get("git_commit") or "")
    if commit:
        found["mlflow.source.git.commit"] = commit.removesuffix("-dirty")
        if commit.endswith("-dirty"):
            found["petl.git_dirty"] = "true"
    found |= {f"petl.{key}": str(info[key]) for key in ("task", "target", "protocol") if info.get(key)}
    if "reads_test" in info:
        found["petl.reads_test"] = str(bool(info["reads_test"])).lower()
    if repeats_of(info):
        found["petl.repeats"] = ", ".join(repeats_of(info))
    return found


def dataset_of(facts: Mapping[str, Any]) -> Dataset:
    """Facts as `AudioData.describe` gives them; lists of labels and files are too long for a profile."""
    known = {"name", "dataset", "digest", "path", "source", "labels", "bad_files"}
    profile = {k: v for k, v in facts.items() if k not in known}
    profile["bad_files"] = len(facts.get("bad_files", ()))
    return Dataset(
        name=str(facts.get("name") or facts.get("dataset") or "audio"),
        digest=str(facts["digest"]),
        source=str(facts.get("source") or facts.get("path") or ""),
        schema={"inputs": "audio", "labels": [str(label) for label in facts.get("labels", ())]},
        profile=profile,
    )
