"""What the evaluation of the winner found, as plain tables: for the report, and as CSV files (torch-free).

Tables come from `SearchRecord.info`, where the task's own (`trainables.tasks.base.Task.tables`) are kept under their
names; a list of rows is a table, and so is a mapping of facts.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.metric_text import deviation_of, is_detail, parts_of, repeat_noun, repeats_of
from search.ranking import primary_objective, winner_of
from search.records import SearchRecord

_KNOWN = ("confusion", "per_class", "per_slot", "trials")
_TITLES = {"per_slot": "Slot by slot", "trials": "What was compared"}
_SCORES = ("recall", "average_precision", "f1", "accuracy")
_SHARES_OF_CLIPS = ("accuracy", "exact_match")
_NOT_IN_FILES = '/\\:*?"<>|'

Confusion = tuple[list[str], list[list[float]]]


@dataclass(frozen=True)
class Table:
    """Rows of plain values: text, numbers, None where there is none."""

    name: str  # of its file, without ".csv"
    title: str
    columns: tuple[str, ...]
    rows: list[list[Any]] = field(default_factory=list)

    def column(self, name: str) -> list[Any]:
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def table_names(info: Mapping[str, Any]) -> list[str]:
    """Keys of `info` that hold tables of the task."""
    listed = info.get("tables")
    names = listed if isinstance(listed, list | tuple) else _KNOWN
    return [str(name) for name in names if info.get(name)]


def task_tables(record: SearchRecord) -> list[Table]:
    """The task's tables, the confusion matrix apart. What is not of the form of a table is left out."""
    found = []
    for name in table_names(record.info):
        table = None if name == "confusion" else _table(name, record.info[name])
        if table is not None:
            found.append(table)
    return found


def confusion_of(record: SearchRecord) -> Confusion | None:
    """Labels and a square matrix of counts, or None when there is none or its sides do not fit."""
    given = record.info.get("confusion")
    if not isinstance(given, dict):
        return None
    labels = [str(label) for label in given.get("labels", [])]
    matrix = [[float(c) for c in row] for row in given.get("matrix", [])]
    square = len(matrix) == len(labels) and all(len(row) == len(labels) for row in matrix)
    finite = all(math.isfinite(c) for row in matrix for c in row)
    return (labels, matrix) if labels and square and finite else None


def class_table(record: SearchRecord) -> tuple[Table, str] | None:
    """Every class and how it fares, worst first, and the name of the column that says how.

    With a confusion matrix there is a column of what each class was taken for most often.
    """
    confusion = confusion_of(record)
    table = _table("per_class", record.info.get("per_class"))
    if table is None and confusion is not None:
        table = _recalls(*confusion)
    if table is None:
        return None
    score = next((name for name in _SCORES if name in table.columns), "")
    columns, rows = table.columns, table.rows
    if confusion is not None and "label" in columns:
        labels, matrix = confusion
        mistaken = {label: _mistaken(i, row, labels) for i, (label, row) in enumerate(zip(labels, matrix, strict=True))}
        columns = (*columns, "most often taken for")
        rows = [[*row, mistaken.get(str(label))] for row, label in zip(rows, table.column("label"), strict=True)]
    if score:
        values = table.column(score)
        rows = [rows[i] for i in sorted(range(len(rows)), key=lambda i: _worst_first(values[i]))]
    noun = _singular(str(record.info.get("labels_are") or "classes"))
    return Table(table.name, f"{noun.capitalize()} by {noun}", columns, rows), score


def confused_pairs(labels: Sequence[str], matrix: Sequence[Sequence[float]], limit: int = 30) -> Table:
    """The commonest confusions: a class, what it was taken for, how often, and which share of its clips that is."""
    pairs = [
        (count, count / sum(row), t, p)
        for t, row in enumerate(matrix)
        for p, count in enumerate(row)
        if p != t and count > 0
    ]
    pairs.sort(key=lambda pair: (-pair[0], -pair[1]))
    rows = [[labels[t], labels[p], _whole(count), share] for count, share, t, p in pairs[:limit]]
    return Table("confused", "Most often confused", ("label", "taken for", "clips", "share"), rows)


def repeats_table(record: SearchRecord) -> Table | None:
    """Every repeat's own values at the winner's best epoch and on the test, and their mean and deviation."""
    titles = repeats_of(record.info)
    winner = winner_of(record)
    best = None if winner is None else winner.best(primary_objective(record))
    if not titles or best is None:
        return None
    found = {**{k: v for k, v in best.metrics.items() if parts_of(k).split == "val"}, **record.test}
    names = [name for name in found if not is_detail(name) and any(f"{name}/{title}" in found for title in titles)]
    if not names:
        return None
    first = parts_of(primary_objective(record).metric).plain
    order = list(dict.fromkeys(parts_of(name).plain for name in names))
    names.sort(key=lambda name: (parts_of(name).plain != first, order.index(parts_of(name).plain)))
    rows: list[list[Any]] = [[title, *(found.get(f"{name}/{title}") for name in names)] for title in titles]
    rows.append(["mean", *(found[name] for name in names)])
    rows.append(["standard deviation", *(deviation_of(name, found) for name in names)])
    noun = repeat_noun(titles)
    return Table("repeats", f"{noun.capitalize()} by {noun}", (noun, *names), rows)


def intervals_of(record: SearchRecord) -> dict[str, tuple[float, float]]:
    """95 % bootstrap bounds of test metrics, by their plain names.

    Bounds that are equal are left out: resamples that all give the same value say nothing of other clips. Those of
    several repeats are of all their clips together: of folds this is kept for shares of clips alone, whose mean over
    the folds is that of all clips; draws are tested on the same clips, for which it would be too narrow.
    """
    given, titles = record.info.get("intervals"), repeats_of(record.info)
    if not isinstance(given, dict) or any("draw" in title for title in titles):
        return {}
    found = {}
    for name, ends in given.items():
        if titles and name not in _SHARES_OF_CLIPS:
            continue
        if isinstance(ends, list | tuple) and len(ends) == 2 and all(isinstance(end, int | float) for end in ends):
            low, high = map(float, ends)
            if math.isfinite(low) and math.isfinite(high) and low < high:
                found[str(name)] = (low, high)
    return found


def write_tables(record: SearchRecord, directory: str | os.PathLike[str]) -> list[Path]:
    """Write every table as `<name>.csv` into `directory` (made if missing); returns the files. None: nothing made."""
    tables = task_tables(record)
    confusion = confusion_of(record)
    if confusion is not None:
        labels, matrix = confusion
        counts: list[list[Any]] = [
            [label, *map(_whole, row)] for label, row in zip(labels, matrix, strict=True)
        ]  # rows are true labels
        tables.insert(0, Table("confusion", "", ("true \\ predicted", *labels), counts))
    bounds = [[name, record.test.get(f"test/{name}"), *ends] for name, ends in intervals_of(record).items()]
    if bounds:
        tables.append(Table("intervals", "", ("metric", "test", "low", "high"), bounds))
    repeats = repeats_table(record)
    if repeats is not None:
        tables.append(repeats)
    folder = Path(directory)
    if tables:
        folder.mkdir(parents=True, exist_ok=True)
    return [_write(table, folder) for table in tables]


def _write(table: Table, folder: Path) -> Path:
    name = "".join("_" if c in _NOT_IN_FILES or not c.isprintable() else c for c in table.name).lstrip(".") or "table"
    path = folder / f"{name}.csv"
    partial = path.with_name(path.name + ".part")
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(table.columns)
        writer.writerows(table.rows)
    partial.replace(path)
    return path


def _table(name: str, value: Any) -> Table | None:
    title = _TITLES.get(name, name.replace("_", " ").capitalize())
    if isinstance(value, dict):
        facts = [[str(k), v] for k, v in value.items() if isinstance(v, str | int | float)]
        return Table(name, title, ("fact", "value"), facts) if len(facts) == len(value) and facts else None
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        return None
    columns = dict.fromkeys(str(key) for row in value for key in row)
    return Table(name, title, tuple(columns), [[row.get(column) for column in columns] for row in value])


def _recalls(labels: list[str], matrix: list[list[float]]) -> Table:
    rows = [
        [label, _whole(sum(row)), row[i] / sum(row) if sum(row) else None]
        for i, (label, row) in enumerate(zip(labels, matrix, strict=True))
    ]
    return Table("per_class", "", ("label", "clips", "recall"), rows)


def _mistaken(place: int, row: list[float], labels: list[str]) -> str | None:
    others = [(count, -i) for i, count in enumerate(row) if i != place and count > 0]
    return labels[-max(others)[1]] if others else None


def _singular(noun: str) -> str:
    return noun.removesuffix("es") if noun.endswith("sses") else noun.removesuffix("s")


def _worst_first(value: Any) -> tuple[bool, float]:
    known = isinstance(value, int | float) and math.isfinite(value)
    return not known, float(value) if known else 0.0


def _whole(count: float) -> int | float:
    return int(count) if float(count).is_integer() else count
