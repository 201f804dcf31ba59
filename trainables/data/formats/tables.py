"""Reading CSV and JSON Lines tables with errors that name file, row and column (torch-free)."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petl.errors import UserError, nearest


class TableError(UserError):
    """A table, or one row of it, cannot be used."""


@dataclass(frozen=True)
class Row:
    """One record. `number` is its line in the file, counted from 1, the header included."""

    table: Path
    number: int
    values: dict[str, Any]

    def error(self, message: str) -> TableError:
        return TableError(f"{self.table}, row {self.number}: {message}")

    def optional_text(self, column: str) -> str | None:
        """The value as text without blanks around it; None when it is absent or blank."""
        value = self.values.get(column)
        if value is None:
            return None
        if isinstance(value, (dict, list, bool)):
            raise self.error(f"'{column}' is {json.dumps(value)}; it must be text or a number")
        text = str(value).strip()
        return text or None

    def text(self, column: str) -> str:
        value = self.optional_text(column)
        if value is None:
            raise self.error(f"'{column}' is missing or blank")
        return value

    def optional_integer(self, column: str, minimum: int) -> int | None:
        text = self.optional_text(column)
        if text is None:
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not number.is_integer() or number < minimum:  # 2.0 is what spreadsheets make of 2
            raise self.error(f"'{column}' is '{text}'; it must be a whole number, at least {minimum}")
        return int(number)

    def integer(self, column: str, minimum: int) -> int:
        self.text(column)
        number = self.optional_integer(column, minimum)
        assert number is not None
        return number

    def optional_seconds(self, column: str) -> float | None:
        text = self.optional_text(column)
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
        if not math.isfinite(seconds) or seconds < 0:
            raise self.error(f"'{column}' is '{text}'; it must be a time in seconds, 0 or more")
        return seconds


def read_table(path: Path, required: Sequence[str]) -> list[Row]:
    """Read a table by its suffix: .jsonl/.ndjson, .tsv (tabs), anything else CSV (commas).

    Raises `TableError` when it cannot be read, lacks a required column, or has no rows.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror})") from None
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = _json_lines(path, text)
    else:
        rows = _separated(path, text, required, "\t" if path.suffix.lower() == ".tsv" else ",")
    if not rows:
        raise TableError(f"{path}: it has no rows")
    return rows


def _json_lines(path: Path, text: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise TableError(f"{path}, row {number}: not JSON ({error.msg} at column {error.colno})") from None
        if not isinstance(values, dict):
            raise TableError(f'{path}, row {number}: expected an object such as {{"path": …, "label": …}}')
        rows.append(Row(path, number, values))
    return rows


def _separated(path: Path, text: str, required: Sequence[str], delimiter: str) -> list[Row]:
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_header(path, header, required)
            elif len(cells) > len(header):
                raise TableError(
                    f"{path}, row {reader.line_num}: {len(cells)} values, but the header has {len(header)} "
                    "columns; put values that hold a comma in double quotes"
                )
            else:
                rows.append(Row(path, reader.line_num, dict(zip(header, cells, strict=False))))
    except csv.Error as error:
        raise TableError(f"{path}, row {reader.line_num}: {error}") from None
    if header is None:
        raise TableError(f"{path}: the file is blank; its first line must name the columns")
    return rows


def _check_header(path: Path, header: list[str], required: Sequence[str]) -> None:
    missing = [column for column in required if column not in header]
    if not missing:
        return
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise TableError(f"{path}: the columns are not parted by commas; found the header '{header[0]}'")
    # Looked up among the columns that are not needed otherwise: 'label' is never offered for 'path'.
    free = [name for name in header if name not in required]
    asked = ", ".join(f"'{column}'{nearest(column, free)}" for column in missing)
    raise TableError(
        f"{path}: no column {asked}. Needed: {', '.join(required)}. Found: {', '.join(header)}. "
        "The first line must name the columns"
    )
