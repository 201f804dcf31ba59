"""Whether the files of a run directory tell what its journal tells."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import yaml

from tests.faults.audit_journal import Told, same

UNFINISHED = re.compile(r"\.(tmp|part|new|partial)$|^\.|~$")
_ALLOWED_HIDDEN = {".here", ".lock"}


def check(told: Told, checkpoints: Path | None) -> list[str]:
    """Everything but MLflow. `checkpoints` is their folder, None to leave them out."""
    wrong = list(_unfinished(told.directory, "run directory"))
    wrong += [f"run directory: {p.name}: undelivered entries" for p in sorted(told.directory.glob("*spool*"))]
    wrong += _table(told)
    wrong += _leaderboard(told)
    if told.over:
        wrong += [*_report(told), *_best(told)]
    wrong += _checkpoints(told, checkpoints) if checkpoints is not None else []
    return list(dict.fromkeys(wrong))


def _unfinished(folder: Path, what: str) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if UNFINISHED.search(path.name) and path.name not in _ALLOWED_HIDDEN:
            yield f"{what}: {path.relative_to(folder)} is an unfinished file"


def _table(told: Told) -> list[str]:
    import pyarrow.parquet as pq

    path = told.directory / "trials.parquet"
    if not path.exists():
        return ["trials.parquet: missing"]
    wrong: list[str] = []
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(path).to_pylist():
        rows.setdefault(row["trial_id"], []).append(row)
    for id in sorted(rows.keys() - told.trials.keys()):
        wrong.append(f"trials.parquet: {id} is not in the journal")
    for trial in told.trials.values():
        found = rows.get(trial.id)
        if not found:
            wrong.append(f"trials.parquet: {trial.id} is missing")
            continue
        where = f"trials.parquet: {trial.id}"
        for row in found:
            for key in ("status", "name", "number", "reason"):
                if row[key] != getattr(trial, key):
                    wrong.append(f"{where}: {key} is {row[key]!r}, in the journal {getattr(trial, key)!r}")
                    break
            active = {k.removeprefix("param/") for k, v in row.items() if k.startswith("param/") and v is not None}
            if active != {k for k, v in trial.params.items() if v is not None}:
                wrong.append(f"{where}: parameters {sorted(active)}, in the journal {sorted(trial.params)}")
        epochs = [row["epoch"] for row in found if row["epoch"] is not None]
        if epochs != list(trial.epochs):
            wrong.append(f"{where}: epochs {epochs}, in the journal {list(trial.epochs)}")
            continue
        for row in found if epochs else []:
            for metric, value in trial.epochs[row["epoch"]].items():
                if not same(row.get(metric), value):
                    wrong.append(f"{where}: {metric} of epoch {row['epoch']} is {row.get(metric)}, not {value}")
        best = trial.best(*told.objective)
        marked = [row["epoch"] for row in found if row["is_best"]]
        if marked != ([] if best is None else [best[0]]):
            wrong.append(f"{where}: best epoch {marked}, by the journal {best and best[0]}")
    return wrong


def _leaderboard(told: Told) -> list[str]:
    path = told.directory / "leaderboard.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    ids = [row["trial_id"] for row in rows]
    if sorted(ids) != sorted(told.trials):
        return [f"leaderboard.csv: {len(ids)} trials, in the journal {len(told.trials)}"]
    return [
        f"leaderboard.csv: {row['trial_id']} is {row['status']}, in the journal {told.trials[row['trial_id']].status}"
        for row in rows
        if row["status"] != told.trials[row["trial_id"]].status
    ]


def _report(told: Told) -> list[str]:
    path = told.directory / "report.html"
    if not path.exists():
        return ["report.html: missing"]
    named = re.search(r"<h2>The winner( so far)?: (.*?)</h2>", path.read_text(encoding="utf-8"))
    wanted = told.trials[told.winner].name if told.winner in told.trials else None
    found = None if named is None else unescape(named.group(2))
    if found != wanted or (named is not None and named.group(1)):
        return [f"report.html: the winner is {found}{' so far' if named and named.group(1) else ''}, not {wanted}"]
    return []


def _best(told: Told) -> list[str]:
    """The adapter and the trial file: of the winner, of its best epoch, with its parameters."""
    winner = told.trials.get(told.winner or "")
    if winner is None:
        return []
    wrong = []
    path, adapter = told.directory / "best.yaml", told.directory / "best"
    if not path.exists():
        wrong.append("best.yaml: missing")
    else:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if content["name"] != winner.name:
            wrong.append(f"best.yaml: of {content['name']}, not of {winner.name}")
        for key, value in winner.params.items():
            if content["config"].get(key) != value:
                wrong.append(f"best.yaml: {key} is {content['config'].get(key)!r}, in the journal {value!r}")
    config, tensors = adapter / "petl_config.json", adapter / "adapter_model.safetensors"
    if not config.exists() or not tensors.exists():
        return [*wrong, "best/: not a whole adapter"]
    if problem := torn(tensors):
        wrong.append(f"best/{tensors.name}: {problem}")
    made = json.loads(config.read_text(encoding="utf-8"))["metadata"]["provenance"]
    best = winner.best(*told.objective)
    if (made["trial"], made.get("epoch")) != (winner.name, best and best[0]):
        wrong.append(f"best/: of {made['trial']}, epoch {made.get('epoch')}, not of {winner.name}, {best and best[0]}")
    return wrong


def _checkpoints(told: Told, folder: Path) -> list[str]:
    if not folder.is_dir() and any(trial.epochs for trial in told.trials.values()):
        return [f"checkpoints: {folder} is missing"]
    wrong = list(_unfinished(folder, "checkpoints"))
    kept: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        kept.setdefault(path.relative_to(folder).parts[0], []).append(path)
        if problem := torn(path):
            wrong.append(f"checkpoints: {path.relative_to(folder)}: {problem}")
    present = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    wrong += [f"checkpoints: {name} is no trial of this search" for name in sorted(present - told.trials.keys())]
    for trial in told.trials.values():
        if trial.status == "running" and trial.epochs and not any("last" in p.name for p in kept.get(trial.id, [])):
            wrong.append(f"checkpoints: {trial.id} is to go on after epoch {len(trial.epochs)}, but has none")
    return wrong


def torn(path: Path) -> str:
    """What is wrong with a safetensors file's frame, "" when it is whole."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            return f"torn: {size} bytes"
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return "its header cannot be read"
    wanted = 8 + length + max(ends, default=0)
    return "" if size == wanted else f"{size} bytes, its header says {wanted}"
