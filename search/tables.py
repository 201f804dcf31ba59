"""Trials as tables: `trials.parquet`, the leaderboard, and how names and numbers are written for people.

Torch-free and Ray-free; pyarrow and rich are imported only where they are needed.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.records import EpochRecord, Objective, SearchRecord, Status, TrialRecord

if TYPE_CHECKING:
    import pyarrow
    import rich.table

__all__ = [
    "BASELINE_METHOD",
    "LeaderboardRow",
    "configuration_text",
    "format_duration",
    "format_setting",
    "format_value",
    "is_percentage",
    "leaderboard",
    "leaderboard_text",
    "method_of",
    "primary_objective",
    "short_configuration",
    "short_count",
    "status_counts",
    "trials_table",
    "write_leaderboard",
    "write_trials",
]

BASELINE_METHOD = "linear"
"""The method that every other one has to beat: a linear probe on frozen features."""

_PERCENT_WORDS = ("accuracy", "acc", "top1", "top5", "f1", "uar", "war", "precision", "recall", "auc", "map")
_RECIPE = ("optim.", "schedule.", "aug.", "train.")
_INT64_LIMIT = 2**63


@dataclass(frozen=True)
class LeaderboardRow:
    """One trial's place. `rank` counts from 1 and is None for a trial that never reported the metric."""

    rank: int | None
    trial: TrialRecord
    method: str
    value: float | None
    best_epoch: int | None
    epochs: int
    configuration: str
    is_winner: bool
    is_baseline: bool

    @property
    def seconds(self) -> float:
        """Seconds spent in this trial's epochs."""
        return sum(e.seconds for e in self.trial.epochs)


def primary_objective(record: SearchRecord) -> Objective:
    """The objective trials are ranked by: the first one that has to be trained for to be known."""
    trained = [o for o in record.objectives if o.metric != "trainable_params"]
    return (trained or record.objectives)[0]


def method_of(trial: TrialRecord, record: SearchRecord) -> str:
    """The trial's method: sampled, or fixed by the space (`info["method"]`), or "(fixed)" when unknown."""
    return str(trial.params.get("method") or record.info.get("method") or "(fixed)")


def leaderboard(record: SearchRecord) -> list[LeaderboardRow]:
    """Every trial, best value first; those without a value follow unranked, in the order they were started."""
    objective = primary_objective(record)
    valued = [(t.value(objective), t) for t in record.trials]
    # Equal values keep the order of their numbers: the earlier trial found it first.
    sign = -1.0 if objective.mode == "max" else 1.0
    ranked = sorted(((v, t) for v, t in valued if v is not None and v == v), key=lambda p: (sign * p[0], p[1].number))
    rest = sorted((t for v, t in valued if v is None or v != v), key=lambda t: t.number)
    rows = [_row(record, objective, t, v, rank) for rank, (v, t) in enumerate(ranked, start=1)]
    return rows + [_row(record, objective, t, None, None) for t in rest]


def _row(
    record: SearchRecord, objective: Objective, trial: TrialRecord, value: float | None, rank: int | None
) -> LeaderboardRow:
    best = trial.best(objective)
    method = method_of(trial, record)
    return LeaderboardRow(
        rank=rank,
        trial=trial,
        method=method,
        value=value,
        best_epoch=None if best is None else best.epoch,
        epochs=len(trial.epochs),
        configuration=configuration_text(trial.params),
        is_winner=trial.id == record.winner,
        is_baseline=method == BASELINE_METHOD,
    )


def leaderboard_text(record: SearchRecord, rows: int = 10) -> rich.table.Table:
    """The top of the leaderboard for a terminal of at least 100 columns.

    The best linear probe is always there, as one line more when it is not among the first `rows`; the
    winner is bold.
    """
    from rich.table import Table
    from rich.text import Text

    objective = primary_objective(record)
    board = leaderboard(record)
    shown = [r for r in board if r.rank is not None][:rows]
    baseline = next((r for r in board if r.is_baseline and r.rank is not None), None)

    table = Table(width=100, box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", title_justify="left")
    table.add_column("#", justify="right", no_wrap=True, width=3)
    table.add_column("trial", no_wrap=True, width=6)
    table.add_column("method", no_wrap=True, overflow="ellipsis", max_width=18)
    table.add_column(objective.metric, justify="right", no_wrap=True, overflow="ellipsis", max_width=14)
    table.add_column("epochs", justify="right", no_wrap=True, width=6)
    table.add_column("status", no_wrap=True, width=8)
    table.add_column("params", justify="right", no_wrap=True, width=6)
    table.add_column("configuration", no_wrap=True, overflow="ellipsis", ratio=1)

    def add(row: LeaderboardRow) -> None:
        style = "bold green" if row.is_winner else ("cyan" if row.is_baseline else "")
        cells = [
            str(row.rank),
            row.trial.id,
            f"{row.method} *" if row.is_baseline else row.method,
            format_value(objective.metric, row.value),
            str(row.epochs),
            str(row.trial.status),
            short_count(row.trial.trainable_params),
            short_configuration(row.trial.params),
        ]
        # Text, not str: a "[" in a configuration is no markup.
        table.add_row(*(Text(c) for c in cells), style=style)

    for row in shown:
        add(row)
    if baseline is not None and baseline not in shown:
        add(baseline)
        shown.append(baseline)
    table.caption = Text(_left_out(record, board, shown))
    table.caption_justify = "left"
    return table


def _left_out(record: SearchRecord, board: list[LeaderboardRow], shown: list[LeaderboardRow]) -> str:
    unranked = [r for r in board if r.rank is None]
    more = len(board) - len(unranked) - len(shown)
    parts = []
    if any(r.is_baseline for r in shown):
        parts.append("* linear probe, the baseline")
    if more > 0:
        parts.append(f"{more} more in trials.parquet")
    if unranked:
        parts.append(f"{len(unranked)} without a result")
    if record.rejected:
        parts.append(f"{len(record.rejected)} rejected")
    return ", ".join(parts)


def write_leaderboard(record: SearchRecord, path: str | os.PathLike[str]) -> Path:
    """Write the whole leaderboard as CSV, one row per trial with every parameter of the search as a column."""
    target = Path(path)
    objective = primary_objective(record)
    keys = _param_keys(record.trials)
    partial = target.with_name(target.name + ".part")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        outcome = ["rank", "trial_id", "name", "method", objective.metric, "best_epoch", "epochs", "status"]
        writer.writerow([*outcome, "reason", "trainable_params", "seconds", *(f"param/{k}" for k in keys)])
        for row in leaderboard(record):
            trial = row.trial
            head = [row.rank, trial.id, trial.name, row.method, row.value, row.best_epoch, row.epochs]
            tail = [str(trial.status), trial.reason, trial.trainable_params, round(row.seconds, 3)]
            writer.writerow(head + tail + [_plain(trial.params.get(k)) for k in keys])
    partial.replace(target)
    return target


def write_trials(record: SearchRecord, path: str | os.PathLike[str]) -> Path:
    """Write `trials.parquet` (see `trials_table`), replacing an older file only once the new one is whole."""
    import pyarrow.parquet as pq

    target = Path(path)
    partial = target.with_name(target.name + ".part")
    pq.write_table(trials_table(record), partial)
    partial.replace(target)
    return target


def trials_table(record: SearchRecord) -> pyarrow.Table:
    """One row per trial and epoch, as an Arrow table.

    Columns: `trial_id`, `number`, `name`, `status`, `reason`, `enqueued`, `trainable_params`, one
    `param/<dotted key>` per sampled parameter (null where it is inactive), `epoch` (from 1), one column per
    metric under its own name (`val/accuracy`), `seconds` of that epoch, and `is_best`, true at the epoch
    whose weights the trial keeps. A trial without an epoch has one row with a null `epoch`.

    A parameter column is boolean, integer or floating point when all its values are, otherwise text (lists
    as JSON). Metrics are float64, with NaN kept as NaN and null where a metric was not reported.
    """
    import pyarrow as pa

    objective = primary_objective(record)
    pairs: list[tuple[TrialRecord, EpochRecord | None]] = []
    for trial in sorted(record.trials, key=lambda t: t.number):
        pairs.extend([(trial, e) for e in trial.epochs] or [(trial, None)])
    best = {t.id: t.best(objective) for t in record.trials}

    names: list[str] = []
    columns: list[pa.Array] = []

    def column(name: str, values: Iterable[Any], kind: pa.DataType) -> None:
        names.append(name)
        columns.append(pa.array(list(values), type=kind))

    column("trial_id", (t.id for t, _ in pairs), pa.string())
    column("number", (t.number for t, _ in pairs), pa.int64())
    column("name", (t.name for t, _ in pairs), pa.string())
    column("status", (str(t.status) for t, _ in pairs), pa.string())
    column("reason", (t.reason for t, _ in pairs), pa.string())
    column("enqueued", (t.enqueued for t, _ in pairs), pa.bool_())
    column("trainable_params", (t.trainable_params for t, _ in pairs), pa.int64())
    for key in _param_keys(record.trials):
        kind, convert = _column_kind([t.params.get(key) for t in record.trials])
        values = (t.params.get(key) for t, _ in pairs)
        column(f"param/{key}", (None if v is None else convert(v) for v in values), getattr(pa, kind)())
    column("epoch", (None if e is None else e.epoch for _, e in pairs), pa.int64())
    taken = {*names, "seconds", "is_best"}
    for metric in _metric_names(record.trials):
        name = metric if metric not in taken else f"metric/{metric}"
        column(name, (None if e is None else _float(e.metrics.get(metric)) for _, e in pairs), pa.float64())
    column("seconds", (None if e is None else e.seconds for _, e in pairs), pa.float64())
    column("is_best", (e is not None and e is best[t.id] for t, e in pairs), pa.bool_())

    objectives = json.dumps([{"metric": o.metric, "mode": o.mode} for o in record.objectives])
    schema = pa.schema(
        [pa.field(n, c.type) for n, c in zip(names, columns, strict=True)],
        metadata={"search": record.name, "objectives": objectives},
    )
    return pa.Table.from_arrays(columns, schema=schema)


def configuration_text(params: dict[str, Any]) -> str:
    """A trial's settings on one line, `moa.experts=7 optim.lr=0.005`; the method stands elsewhere."""
    return " ".join(f"{k}={format_setting(v)}" for k, v in params.items() if k != "method")


def short_configuration(params: dict[str, Any]) -> str:
    """`configuration_text` for narrow places: keys cut to their last word, what matters most first.

    That is the learning rate, then the method's own settings, then the rest of the recipe.
    """
    keys = sorted((k for k in params if k != "method"), key=lambda k: (k != "optim.lr", k.startswith(_RECIPE)))
    last = [k.rsplit(".", 1)[-1] for k in keys]
    words = [w if last.count(w) == 1 else k for k, w in zip(keys, last, strict=True)]
    values = [f"{v:.2g}" if isinstance(v, float) else format_setting(v) for v in map(params.get, keys)]
    return " ".join(f"{w}={v}" for w, v in zip(words, values, strict=True))


def format_setting(value: Any) -> str:
    """A configuration value as a person would write it: floats to four significant digits."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ",".join(format_setting(v) for v in value)
    return str(value)


def format_value(metric: str, value: float | None) -> str:
    """A metric's value: scores between 0 and 1 as per cent, losses to four digits, "–" when there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if metric == "trainable_params":
        return f"{int(value):,}"
    if is_percentage(metric) and -1.0 <= value <= 1.0:
        return f"{100 * value:.1f} %"
    return f"{value:.4g}"


def is_percentage(metric: str) -> bool:
    """Whether a metric is a score between 0 and 1 that people read in per cent."""
    words = metric.lower().rsplit("/", 1)[-1].replace("-", "_").split("_")
    return any(word in _PERCENT_WORDS for word in words)


def format_duration(seconds: float) -> str:
    """Seconds as `4 min 07 s`, `2 h 05 min`, `12.3 s`."""
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def short_count(number: int) -> str:
    """A count in three or four characters: `868`, `70.7k`, `1.2M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            short = number / size
            return f"{short:.0f}{letter}" if short >= 99.95 else f"{short:.1f}{letter}"
    return str(number)


def _param_keys(trials: list[TrialRecord]) -> list[str]:
    """Parameter names in the order in which trials first have them; a dict keeps that order."""
    return list(dict.fromkeys(k for t in trials for k in t.params))


def _metric_names(trials: list[TrialRecord]) -> list[str]:
    return list(dict.fromkeys(m for t in trials for e in t.epochs for m in e.metrics))


def _column_kind(values: list[Any]) -> tuple[str, Any]:
    """The narrowest Arrow type that holds every value that is not None, and the function that converts to it."""
    present = [v for v in values if v is not None]
    if present and all(isinstance(v, bool) for v in present):
        return "bool_", bool
    if present and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present):
        if all(isinstance(v, int) and -_INT64_LIMIT <= v < _INT64_LIMIT for v in present):
            return "int64", int
        return "float64", float
    return "string", _plain


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple | dict | bool):
        return json.dumps(value)
    return str(value)


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def status_counts(record: SearchRecord) -> dict[str, int]:
    """How many trials ended each way, "rejected" (over a bound, never trained) included."""
    counts = {str(s): sum(t.status is s for t in record.trials) for s in Status}
    return {**counts, "rejected": len(record.rejected)}
