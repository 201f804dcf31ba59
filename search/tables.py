"""Every trial and epoch as a table, `trials.parquet` (torch-free and Ray-free; pyarrow is imported when needed)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.ranking import primary_objective
from search.records import EpochRecord, SearchRecord, TrialRecord

if TYPE_CHECKING:
    import pyarrow

__all__ = ["param_keys", "plain_value", "trials_table", "write_trials"]

_INT64_LIMIT = 2**63


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

    Columns: `trial_id`, `number`, `name`, `status`, `reason`, `incidents` (how often something went wrong with the
    trial and was dealt with), `enqueued`, `trainable_params`, one `param/<dotted key>` per sampled parameter (null
    where it is inactive), `epoch` (from 1), one column per metric under its own name (`val/accuracy`; of several
    repeats `val/accuracy_std` and `val/accuracy/fold1`, too), `seconds` of that epoch, and `is_best`, true at the
    epoch whose weights the trial keeps. A trial without an epoch has one row with a null `epoch`.

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
    column("incidents", (len(t.incidents) for t, _ in pairs), pa.int64())
    column("enqueued", (t.enqueued for t, _ in pairs), pa.bool_())
    column("trainable_params", (t.trainable_params for t, _ in pairs), pa.int64())
    for key in param_keys(record.trials):
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


def param_keys(trials: list[TrialRecord]) -> list[str]:
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
    return "string", plain_value


def plain_value(value: Any) -> Any:
    """A parameter as a text file holds it: lists, mappings and truth values as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list | tuple | dict | bool):
        return json.dumps(value)
    return str(value)


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
