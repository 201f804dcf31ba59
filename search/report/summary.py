"""What the report says in words and tables, worked out of a search's records (torch-free)."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from search.records import SearchRecord, Status, TrialRecord
from search.report import series
from search.tables import (
    BASELINE_METHOD,
    LeaderboardRow,
    format_duration,
    format_setting,
    format_value,
    is_percentage,
    leaderboard,
    method_of,
    primary_objective,
    status_counts,
)

_SHOWN_ELSEWHERE = {
    *("space", "space_digest", "backbone", "backbone_revision", "backbone_params", "dataset", "data"),
    *("data_digest", "splits", "classes", "bad_files", "best_config", "confusion", "interrupted"),
    *("distributions", "epochs", "method", "asked"),
}


@dataclass(frozen=True)
class Tile:
    """One of the large numbers at the top."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class MethodRow:
    """What one method reached; `gap` is its best value minus the linear probe's, signed so that more is better."""

    method: str
    trials: int
    stopped: int
    best: float | None
    median: float | None
    gap: float | None
    best_trial: TrialRecord | None
    bar: float
    """The best value as a share of the axis from the worst to the best method, 0 to 1."""


def winner_of(record: SearchRecord) -> TrialRecord | None:
    """The trial that was chosen, or while none was chosen the first of the leaderboard."""
    for trial in record.trials:
        if trial.id == record.winner:
            return trial
    rows = leaderboard(record)
    return rows[0].trial if rows and rows[0].rank is not None else None


def headline(record: SearchRecord) -> str:
    """The answer in one sentence."""
    objective = primary_objective(record)
    winner = winner_of(record)
    if not record.trials:
        return "No trial was started."
    if winner is None:
        failed = sum(t.status is Status.FAILED for t in record.trials)
        return f"No trial reported {objective.metric}: {failed} of {len(record.trials)} failed."
    value = format_value(objective.metric, winner.value(objective))
    lead = "" if record.winner else "So far, "
    text = f"{lead}{method_of(winner, record)} is best: {value} {objective.metric}"
    tested = test_value(record)
    if tested is not None:
        text += f", {format_value(*tested)} on the test split"
    share = _share(record, winner)
    part = "" if share is None else f" ({share:.2f} % of the backbone)"
    return f"{text}, with {winner.trainable_params:,} trained parameters{part}."


def tiles(record: SearchRecord) -> list[Tile]:
    """The large numbers: value, test value, size, trials, time."""
    objective = primary_objective(record)
    winner = winner_of(record)
    found: list[Tile] = []
    if winner is not None:
        value = winner.value(objective)
        best = winner.best(objective)
        note = f"{winner.id}, epoch {best.epoch} of {len(winner.epochs)}" if best else winner.id
        found.append(Tile(objective.metric, format_value(objective.metric, value), note))
    tested = test_value(record)
    if tested is not None:
        metric, value = tested
        note = "evaluated once, on the winner"
        interval = _interval(metric, value, _split(record, "test"))
        found.append(Tile(metric, format_value(metric, value), f"{note}{interval}"))
    if winner is not None:
        note = f"{share:.2f} % of the backbone" if (share := _share(record, winner)) is not None else ""
        found.append(Tile("trainable parameters", f"{winner.trainable_params:,}", note))
    counts = status_counts(record)
    words = {"running": "unfinished"}
    note = ", ".join(f"{n} {words.get(k, k)}" for k, n in counts.items() if n)
    found.append(Tile("trials", str(len(record.trials)), note))
    found.append(Tile("wall time", format_duration(record.seconds), _epochs_saved(record)))
    return found


def facts(record: SearchRecord) -> list[tuple[str, str]]:
    """What was searched, on what."""
    info = record.info
    pairs = [
        ("Space", _joined(info.get("space"), info.get("space_digest"))),
        ("Objectives", "; ".join(_objective_text(o) for o in record.objectives)),
        ("Backbone", _joined(info.get("backbone"), info.get("backbone_revision"), _backbone_size(record))),
        ("Data", _joined(info.get("dataset"), info.get("data"), info.get("data_digest"))),
        ("Clips", _splits_text(record)),
        ("Run directory", record.directory),
    ]
    return [(k, v) for k, v in pairs if v]


def notes(record: SearchRecord) -> list[str]:
    """What a reader should know before trusting the numbers."""
    found = []
    objective = primary_objective(record)
    unfinished = sum(t.status is Status.RUNNING for t in record.trials)
    if record.info.get("interrupted") or unfinished:
        rest = f"; {unfinished} {_plural(unfinished, 'trial')} did not finish" if unfinished else ""
        found.append(f"The search was interrupted{rest}. It can be resumed from the run directory.")
    bad = bad_files(record)
    if bad:
        verb = "was" if len(bad) == 1 else "were"
        found.append(
            f"{len(bad)} {_plural(len(bad), 'audio file')} could not be used and {verb} left out (list below)."
        )
    winner = winner_of(record)
    baseline = next((r for r in leaderboard(record) if r.is_baseline and r.rank is not None), None)
    if winner is not None and baseline is not None and baseline.epochs < len(winner.epochs):
        found.append(_unequal(record, winner, baseline))
    ranked = [r for r in leaderboard(record) if r.rank is not None]
    if len(ranked) > 1:
        found.append(
            f"{objective.metric} of the winner is the best of {len(ranked)} trials and therefore optimistic; "
            "the test value is not, because the test split was read once, after the choice."
            if test_value(record) is not None
            else f"{objective.metric} of the winner is the best of {len(ranked)} trials and therefore optimistic."
        )
    clips = _split(record, "val")
    if clips and is_percentage(objective.metric) and objective.metric.startswith("val/"):
        found.append(f"One validation clip is worth {100 / clips:.1f} points ({clips} clips).")
    return found


def _unequal(record: SearchRecord, winner: TrialRecord, baseline: LeaderboardRow) -> str:
    """The fair comparison when the linear probe was not trained as long as the winner: at equal epochs."""
    objective = primary_objective(record)
    last = baseline.trial.epochs[-1].epoch
    text = f"The best linear probe ({baseline.trial.id}) ended after epoch {last}"
    early = TrialRecord(winner.id, winner.number, winner.name, {}, winner.trainable_params)
    early.epochs = [e for e in winner.epochs if e.epoch <= last]
    value = early.value(objective)
    if value is None:
        return f"{text}: its distance to the winner is not one at equal training."
    return (
        f"{text} with {format_value(objective.metric, baseline.value)}. At equal training, up to epoch {last}, "
        f"the winner stood at {format_value(objective.metric, value)}."
    )


def method_rows(record: SearchRecord) -> list[MethodRow]:
    """One row per method, best first; methods without a result last."""
    objective = primary_objective(record)
    points = series.history(record)
    sign = 1.0 if objective.mode == "max" else -1.0
    ordered = sorted(points, key=lambda p: (-sign * p.value, p.trial.number))
    tops = {m: next((p for p in ordered if p.method == m), None) for m in series.methods(record)}
    values = [p.value for p in tops.values() if p is not None]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    if is_percentage(objective.metric) and objective.mode == "max":
        low, high = min(0.0, low), max(1.0, high)  # a bar from zero does not exaggerate
    base = tops.get(BASELINE_METHOD)
    rows = []
    for method, top in tops.items():
        own = [t for t in record.trials if method_of(t, record) == method]
        gap = None
        if top is not None and base is not None and method != BASELINE_METHOD:
            gap = sign * (top.value - base.value)
        rows.append(
            MethodRow(
                method=method,
                trials=len(own),
                stopped=sum(t.status is Status.STOPPED for t in own),
                best=None if top is None else top.value,
                median=statistics.median([p.value for p in points if p.method == method]) if top else None,
                gap=gap,
                best_trial=None if top is None else top.trial,
                bar=0.0 if top is None or high == low else (top.value - low) / (high - low),
            )
        )
    return sorted(rows, key=lambda r: (r.best is None, -sign * (r.best or 0.0)))


def gap_text(metric: str, gap: float | None) -> str:
    """A difference to the linear probe: points for scores, plain numbers otherwise."""
    if gap is None:
        return ""
    return f"{100 * gap:+.1f} points" if is_percentage(metric) else f"{gap:+.4g}"


def bad_files(record: SearchRecord) -> list[tuple[str, str]]:
    """Audio files that were skipped and why."""
    listed = record.info.get("bad_files") or []
    if not isinstance(listed, list | tuple):
        return []
    pairs = []
    for item in listed:
        if isinstance(item, dict):
            name = item.get("file") or item.get("path") or ""
            pairs.append((str(name), str(item.get("reason", ""))))
        elif isinstance(item, list | tuple) and len(item) == 2:
            pairs.append((str(item[0]), str(item[1])))
        else:
            pairs.append((str(item), ""))
    return pairs


def test_value(record: SearchRecord) -> tuple[str, float] | None:
    """The test metric that stands for the objective, `(name, value)`."""
    metric = primary_objective(record).metric
    plain = metric.rsplit("/", 1)[-1]
    for name in (f"test/{plain}", plain):
        if name in record.test:
            return name, record.test[name]
    return None


def metric_rows(record: SearchRecord) -> list[tuple[str, str, str]]:
    """`(metric, best epoch's value, test value)` of the winner, every metric that has either."""
    winner = winner_of(record)
    best = winner.best(primary_objective(record)) if winner is not None else None
    seen: dict[str, str] = {}
    for name, value in (best.metrics if best else {}).items():
        if name.startswith("val/"):
            seen[name[4:]] = format_value(name, value)
    tested = {n.removeprefix("test/"): format_value(n, v) for n, v in record.test.items()}
    return [(n, seen.get(n, ""), tested.get(n, "")) for n in dict.fromkeys([*seen, *tested])]


def confusion_of(record: SearchRecord) -> tuple[list[str], list[list[float]]] | None:
    """Labels and a square matrix of counts, or None when there is none or its sides do not fit."""
    given = record.info.get("confusion")
    if not isinstance(given, dict):
        return None
    labels = [str(label) for label in given.get("labels", [])]
    matrix = [[float(c) for c in row] for row in given.get("matrix", [])]
    square = len(matrix) == len(labels) and all(len(row) == len(labels) for row in matrix)
    finite = all(math.isfinite(c) for row in matrix for c in row)
    return (labels, matrix) if labels and square and finite else None


def class_rows(labels: list[str], matrix: list[list[float]]) -> list[dict[str, Any]]:
    """Share of each label's clips that were recognised, worst first, and what it was taken for most often."""
    rows = []
    for i, (label, row) in enumerate(zip(labels, matrix, strict=True)):
        clips = sum(row)
        others = [(c, labels[j]) for j, c in enumerate(row) if j != i and c > 0]
        rows.append(
            {
                "label": label,
                "clips": f"{clips:g}",
                "accuracy": row[i] / clips if clips else None,
                "mistaken": max(others, key=lambda p: p[0])[1] if others else "",
            }
        )
    return sorted(rows, key=lambda r: (r["accuracy"] is None, r["accuracy"] or 0.0))


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
    return settings({k: v for k, v in record.info.items() if k not in _SHOWN_ELSEWHERE and v is not None})


def reasons(rows: list[LeaderboardRow]) -> list[LeaderboardRow]:
    """Failed trials: the ones whose reason a person wants to read."""
    return [r for r in rows if r.trial.status is Status.FAILED]


def _share(record: SearchRecord, trial: TrialRecord) -> float | None:
    total = record.info.get("backbone_params")
    return 100 * trial.trainable_params / total if isinstance(total, int) and total > 0 else None


def _backbone_size(record: SearchRecord) -> str:
    total = record.info.get("backbone_params")
    return f"{total:,} parameters" if isinstance(total, int) else ""


def _split(record: SearchRecord, name: str) -> int | None:
    splits = record.info.get("splits")
    size = splits.get(name) if isinstance(splits, dict) else None
    return size if isinstance(size, int) and size > 0 else None


def _splits_text(record: SearchRecord) -> str:
    splits = record.info.get("splits")
    parts = [f"{v} {k}" for k, v in splits.items()] if isinstance(splits, dict) else []
    classes = record.info.get("classes")
    if isinstance(classes, list | tuple):
        classes = len(classes)
    if classes:
        parts.append(f"{classes} classes")
    skipped = len(bad_files(record))
    if skipped:
        parts.append(f"{skipped} skipped")
    return ", ".join(parts)


def _interval(metric: str, value: float, clips: int | None) -> str:
    """Wilson's 95 % interval of an accuracy over `clips` clips; other metrics have no such simple one."""
    name = metric.rsplit("/", 1)[-1]
    if clips is None or name not in ("accuracy", "acc") or not 0.0 <= value <= 1.0:
        return ""
    z = 1.96
    centre = (value + z * z / (2 * clips)) / (1 + z * z / clips)
    half = z / (1 + z * z / clips) * math.sqrt(value * (1 - value) / clips + z * z / (4 * clips * clips))
    return f"; 95 % interval {100 * (centre - half):.1f} to {100 * (centre + half):.1f} % over {clips} clips"


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
            text += f", {word} {bound:,.6g}"
    return text


def _joined(*parts: Any) -> str:
    return " · ".join(str(p) for p in parts if p)


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
