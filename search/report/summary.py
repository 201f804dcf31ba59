"""What the report says in words: the answer in a sentence, the large numbers, the facts (torch-free)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from search.metric_text import (
    format_mean,
    format_value,
    is_detail,
    name_with_split,
    parts_of,
    phrase,
    repeats_of,
    repeats_text,
)
from search.ranking import LeaderboardRow, leaderboard, method_of, primary_objective, status_counts, winner_of
from search.records import EpochRecord, Incident, SearchRecord, Status, TrialRecord
from search.report.cautions import files_left_out, split_size, test_value
from search.result_tables import intervals_of, table_names
from search.texts import dealt_with, format_duration, format_setting, joined, task_text

_SHOWN_ELSEWHERE = {
    *("space", "space_digest", "backbone", "backbone_revision", "backbone_params", "dataset", "data"),
    *("data_digest", "splits", "classes", "bad_files", "best_config", "confusion", "interrupted"),
    *("distributions", "epochs", "method", "asked", "task", "target", "protocol", "reads_test", "repeats"),
    *("labels_are", "dropped", "left_out", "intervals", "tables"),
}
_SPLIT_NAMES = {"val": "validation split", "train": "training split"}


@dataclass(frozen=True)
class Tile:
    """One of the large numbers at the top."""

    label: str
    value: str
    note: str = ""


def headline(record: SearchRecord) -> str:
    """The answer in one sentence."""
    objective = primary_objective(record)
    winner = winner_of(record)
    if not record.trials:
        return "No trial was started."
    if winner is None:
        failed = sum(t.status is Status.FAILED for t in record.trials)
        return f"No trial reported {objective.metric}: {failed} of {len(record.trials)} failed."
    lead = "" if record.winner else "So far, "
    reached = phrase(objective.metric, format_mean(objective.metric, _reached(record, winner)))
    where = _SPLIT_NAMES.get(parts_of(objective.metric).split, "")
    text = f"{lead}{method_of(winner, record)} is best: {reached}{f' on the {where}' if where else ''}"
    titles = repeats_of(record.info)
    if titles:
        text += f" ({repeats_text(titles)})"
    tested = test_value(record)
    if tested is not None:
        text += f", {format_mean(tested[0], record.test)} on the test split"
    if record.info.get("reads_test"):
        text += ", whose clips also chose the epochs" if tested is not None else ", which holds test clips"
    share = _share(record, winner)
    part = "" if share is None else f" ({share:.2f} % of the backbone)"
    return f"{text}, with {winner.trainable_params:,} trained parameters{part}."


def tiles(record: SearchRecord) -> list[Tile]:
    """The large numbers: value, test value, size, trials, time."""
    objective = primary_objective(record)
    winner = winner_of(record)
    found: list[Tile] = []
    if winner is not None:
        best, over = winner.best(objective), repeats_text(repeats_of(record.info))
        note = f"{winner.id}, epoch {best.epoch} of {len(winner.epochs)}" if best else winner.id
        value = format_mean(objective.metric, _reached(record, winner))
        found.append(Tile(name_with_split(objective.metric), value, f"{note}; mean of {over}" if over else note))
    tested = test_value(record)
    if tested is not None:
        metric = tested[0]
        note = "epochs were chosen on these clips" if record.info.get("reads_test") else "evaluated once, on the winner"
        interval = interval_text(record, *tested)
        label = name_with_split(metric if "/" in metric else f"test/{metric}")
        found.append(Tile(label, format_mean(metric, record.test), f"{note}{f'; {interval}' if interval else ''}"))
    if winner is not None:
        note = f"{share:.2f} % of the backbone" if (share := _share(record, winner)) is not None else ""
        found.append(Tile("trainable parameters", f"{winner.trainable_params:,}", note))
    counts = status_counts(record)
    words = {"running": "unfinished"}
    note = ", ".join(f"{n} {words.get(k, k)}" for k, n in counts.items() if n)
    found.append(Tile("trials", str(len(record.trials)), note))
    found.append(Tile("wall time", format_duration(record.seconds), _epochs_saved(record)))
    return found


def interval_text(record: SearchRecord, metric: str, value: float) -> str:
    """ "95 % bootstrap 67.4 to 82.6 %" of a test metric; of an accuracy without one Wilson's interval."""
    bounds = intervals_of(record).get(parts_of(metric).plain)
    if bounds is not None:
        return f"95 % bootstrap {_from_to(metric, *bounds)}"
    clips = split_size(record, "test")
    if (
        clips is None
        or repeats_of(record.info)
        or parts_of(metric).plain not in ("accuracy", "acc")
        or not 0.0 <= value <= 1.0
    ):
        return ""
    z = 1.96
    centre = (value + z * z / (2 * clips)) / (1 + z * z / clips)
    half = z / (1 + z * z / clips) * math.sqrt(value * (1 - value) / clips + z * z / (4 * clips * clips))
    return f"95 % interval {_from_to(metric, centre - half, centre + half)} over {clips} clips"


def facts(record: SearchRecord) -> list[tuple[str, str]]:
    """What was searched, on what."""
    info = record.info
    titles = repeats_of(info)
    task = task_text(str(info.get("task") or ""))
    pairs = [
        ("Space", joined(info.get("space"), info.get("space_digest"))),
        ("Objectives", "; ".join(_objective_text(o) for o in record.objectives)),
        ("Task", joined(task, info.get("target") and f"target {info['target']}")),
        ("Backbone", joined(info.get("backbone"), info.get("backbone_revision"), _backbone_size(record))),
        ("Data", joined(info.get("dataset"), info.get("data"), info.get("data_digest"))),
        ("Clips", _splits_text(record)),
        ("Protocol", str(info.get("protocol") or "")),
        ("Repeats", f"{repeats_text(titles)}: every trial trains on each" if titles else ""),
        ("Run directory", record.directory),
    ]
    return [(k, v) for k, v in pairs if v]


def metric_rows(record: SearchRecord) -> list[tuple[str, str, str, str]]:
    """`(metric, best epoch's value, test value, its interval)` of the winner, every metric that has a value."""
    winner = winner_of(record)
    best = winner.best(primary_objective(record)) if winner is not None else None
    shown = _validated(best) if best is not None else {}
    first = parts_of(primary_objective(record).metric).plain
    tested = {n.removeprefix("test/"): format_mean(n, record.test) for n in record.test if not is_detail(n)}
    rows = []
    for name in sorted(dict.fromkeys([*shown, *tested]), key=lambda name: name != first):
        bounds = interval_text(record, name, math.nan).removeprefix("95 % bootstrap ")
        rows.append((name, shown.get(name, ""), tested.get(name, ""), bounds))
    return rows


def _validated(best: EpochRecord) -> dict[str, str]:
    names = [name for name in best.metrics if name.startswith("val/") and not is_detail(name)]
    return {name.removeprefix("val/"): format_mean(name, best.metrics) for name in names}


def rejected_rows(record: SearchRecord) -> list[tuple[str, str, str]]:
    """`(trainable parameters, reason, configuration)` of what was turned down before training."""
    rows = []
    for item in record.rejected:
        size = item.get("trainable_params")
        count = f"{size:,}" if isinstance(size, int) else "–"
        rows.append((count, str(item.get("reason") or ""), _everything(item.get("params") or {})))
    return rows


def _everything(params: dict[str, Any]) -> str:
    return " ".join(f"{k}={format_setting(v)}" for k, v in params.items())


def settings(config: dict[str, Any]) -> list[tuple[str, str]]:
    """A configuration as dotted keys and text, nested mappings opened."""
    pairs: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, dict) and value:
            pairs.extend((f"{key}.{k}", v) for k, v in settings(value))
        else:
            pairs.append((str(key), "{}" if value == {} else format_setting(value)))
    return pairs


def environment(record: SearchRecord) -> list[tuple[str, str]]:
    """Versions, hardware, seeds and whatever else is known and not shown above."""
    hidden = _SHOWN_ELSEWHERE | set(table_names(record.info))
    return settings({k: v for k, v in record.info.items() if k not in hidden and v is not None})


def failures(record: SearchRecord) -> list[LeaderboardRow]:
    """Failed trials: the ones whose reason a person wants to read."""
    return [r for r in leaderboard(record) if r.trial.status is Status.FAILED]


def incidents(record: SearchRecord) -> list[tuple[str, TrialRecord, Incident, str]]:
    """What went wrong with trials and was dealt with, by time: (clock time, trial, incident, what was done)."""
    found = [(trial, incident) for trial in record.trials for incident in trial.incidents]
    return [
        (datetime.fromtimestamp(one.time).strftime("%Y-%m-%d %H:%M:%S"), trial, one, dealt_with(one))
        for trial, one in sorted(found, key=lambda pair: pair[1].time)
    ]


def _reached(record: SearchRecord, trial: TrialRecord) -> dict[str, float]:
    """The metrics of the trial's best epoch; its size counts as one, for a search of nothing else."""
    best = trial.best(primary_objective(record))
    return {"trainable_params": float(trial.trainable_params), **(best.metrics if best is not None else {})}


def _share(record: SearchRecord, trial: TrialRecord) -> float | None:
    total = record.info.get("backbone_params")
    return 100 * trial.trainable_params / total if isinstance(total, int) and total > 0 else None


def _backbone_size(record: SearchRecord) -> str:
    total = record.info.get("backbone_params")
    return f"{total:,} parameters" if isinstance(total, int) else ""


def _splits_text(record: SearchRecord) -> str:
    splits = record.info.get("splits")
    parts = [f"{v:,} {k}" for k, v in splits.items()] if isinstance(splits, dict) else []
    titles = repeats_of(record.info)
    if parts and titles:
        parts[-1] += f" in {titles[0]}"
    classes = record.info.get("classes")
    if isinstance(classes, list | tuple):
        classes = len(classes)
    if classes:
        parts.append(f"{classes} {record.info.get('labels_are') or 'classes'}")
    for key, word in (("bad_files", "skipped"), ("dropped", "not learned from")):
        count = len(files_left_out(record, key))
        if count:
            parts.append(f"{count} {word}")
    return ", ".join(parts)


def _from_to(metric: str, low: float, high: float) -> str:
    first, last = format_value(metric, low), format_value(metric, high)
    return f"{first.removesuffix(' %') if last.endswith(' %') else first} to {last}"


def _epochs_saved(record: SearchRecord) -> str:
    planned = record.info.get("epochs")
    trained = sum(len(t.epochs) for t in record.trials)
    if isinstance(planned, int) and planned > 0 and record.trials:
        return f"{trained} of {planned * len(record.trials)} epochs trained"
    return f"{trained} epochs trained"


def _objective_text(objective: Any) -> str:
    text = f"{objective.metric}, {'highest' if objective.mode == 'max' else 'lowest'}"
    for bound, word in ((objective.bound_min, "at least"), (objective.bound_max, "at most")):
        if bound is not None:
            text += f", {word} {int(bound):,}" if float(bound).is_integer() else f", {word} {bound:.6g}"
    return text
