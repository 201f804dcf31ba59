"""Plain tables as cells of the page: what is shown, what it is sorted by, and how long its bar is (torch-free)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from search.metric_text import format_value, name_with_split
from search.result_tables import Table

_SHARES = ("share",)


@dataclass(frozen=True)
class Cell:
    """`sort` is what a number is sorted by, "" where there is none; `bar` a share of the axis, or None."""

    text: str
    sort: str = ""
    bar: float | None = None


@dataclass(frozen=True)
class Cells:
    """A table as the page shows it; `numbers` says for every column whether it holds numbers."""

    title: str
    columns: tuple[str, ...]
    numbers: tuple[bool, ...]
    rows: list[list[Cell]]
    ascending: int | None  # the column that the rows are sorted by, smallest first


def cells(table: Table, barred: str = "", *, ascending: bool = False) -> Cells:
    """Format a table; the column `barred`, of shares between 0 and 1, gets bars. `ascending`: it is sorted by them."""
    numbers = tuple(_is_numeric([row[i] for row in table.rows]) for i in range(len(table.columns)))
    place = table.columns.index(barred) if barred and barred in table.columns else None
    rows = [
        [
            _cell(name, value, number, i == place)
            for i, (name, value, number) in enumerate(zip(table.columns, row, numbers, strict=True))
        ]
        for row in table.rows
    ]
    return Cells(
        table.title, tuple(_heading(name) for name in table.columns), numbers, rows, place if ascending else None
    )


def _heading(column: str) -> str:
    return name_with_split(column) if "/" in column else column.replace("_", " ")


def _cell(column: str, value: Any, number: bool, barred: bool) -> Cell:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Cell("–")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return Cell(str(value))
    text = f"{value:,}" if isinstance(value, int) else _fraction(column, value)
    bar = min(1.0, max(0.0, float(value))) if barred and math.isfinite(value) else None
    return Cell(text, repr(value) if number else "", bar)


def _fraction(column: str, value: float) -> str:
    return f"{100 * value:.1f} %" if column in _SHARES else format_value(column, value)


def _is_numeric(values: list[Any]) -> bool:
    known = [v for v in values if v is not None]
    return bool(known) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
