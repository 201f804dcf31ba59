"""Reading tables and lists of lines with errors that name file, row and column (torch-free)."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

from petl.errors import UserError, nearest
from trainables.data.datasets._reading import refuse

T = TypeVar("T")

_LISTED = 40  # allowed values that a message names
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")

MOST_FOLDS = 10_000


class TableError(UserError):
    """A table cannot be used."""


class RowError(TableError):
    """One row of a table cannot be used."""

    def __init__(self, table: Path, number: int, message: str) -> None:
        self.table, self.number, self.reason = table, number, message
        super().__init__(f"{table}, row {number}: {message}")

    def __reduce__(self) -> tuple[type[RowError], tuple[Path, int, str]]:
        return type(self), (self.table, self.number, self.reason)


@dataclass(frozen=True)
class Row:
    """One record. `number` counts from 1: its line in the file, the header included; in Parquet and JSON the record."""

    table: Path
    number: int
    values: dict[str, Any]

    def error(self, message: str) -> RowError:
        return RowError(self.table, self.number, message)

    def optional_text(self, column: str) -> str | None:
        """The value as text without blanks around it; None when it is absent or blank."""
        value = self.values.get(column)
        if value is None or (isinstance(value, float) and math.isnan(value)):  # NaN: a gap, as pandas writes it
            return None
        if isinstance(value, (dict, list, bool)):
            raise self.error(f"'{column}' is {json.dumps(value)}; it must be text or a number")
        return self._sound(column, str(value).strip()) or None

    def _sound(self, column: str, text: str) -> str:
        """Text that can be a name and be written as UTF-8."""
        found = _NO_TEXT.search(text)
        if found:
            what = "a NUL" if found[0] == "\0" else "half of a surrogate pair"
            raise self.error(
                f"'{column}' holds {what} (U+{ord(found[0]):04X}), which no text has; write the file again"
            )
        return text

    def text(self, column: str) -> str:
        value = self.optional_text(column)
        if value is None:
            raise self.error(f"'{column}' is missing or blank")
        return value

    def one_of(self, column: str, allowed: Collection[str]) -> str:
        """The value, which has to be one of those allowed."""
        value = self.text(column)
        if value not in allowed:
            listed = f"; allowed: {', '.join(allowed)}" if len(allowed) <= _LISTED else ""
            raise self.error(f"'{column}' is '{value}', which is not known{nearest(value, allowed)}{listed}")
        return value

    def listed(self, column: str, separator: str = ";") -> tuple[str, ...]:
        """Several values: a list, the text of a JSON list, or text parted by `separator`. Blank: none."""
        value = self.values.get(column)
        if isinstance(value, str) and value.strip().startswith("["):
            try:
                value = parsed(value)
            except json.JSONDecodeError as error:
                raise self.error(f"'{column}' begins like a JSON list, but is none ({error.msg})") from None
        if not isinstance(value, list):
            parts: list[Any] = (self.optional_text(column) or "").split(separator)
        elif any(isinstance(part, (dict, list, bool)) or part is None for part in value):
            raise self.error(f"'{column}' is {json.dumps(value)}; it must be a list of texts")
        else:
            parts = value
        return tuple(text for part in parts if (text := self._sound(column, str(part).strip())))

    def optional_integer(self, column: str, minimum: int, maximum: int | None = None) -> int | None:
        text = self.optional_text(column)
        if text is None:
            return None
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not number.is_integer() or number < minimum or (maximum is not None and number > maximum):
            allowed = f"at most {maximum}" if maximum is not None and number > maximum else f"at least {minimum}"
            raise self.error(f"'{column}' is '{text[:40]}'; it must be a whole number, {allowed}")
        return int(number)  # 2.0 is what spreadsheets make of 2

    def integer(self, column: str, minimum: int, maximum: int | None = None) -> int:
        self.text(column)
        number = self.optional_integer(column, minimum, maximum)
        assert number is not None
        return number

    def optional_seconds(self, column: str) -> float | None:
        return self._real(column, math.inf, "a time in seconds, 0 or more")

    def share(self, column: str) -> float:
        self.text(column)
        value = self._real(column, 1.0, "a number from 0 to 1")
        assert value is not None
        return value

    def _real(self, column: str, maximum: float, allowed: str) -> float | None:
        text = self.optional_text(column)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and 0 <= value <= maximum):
            raise self.error(f"'{column}' is '{text}'; it must be {allowed}")
        return value


def each(rows: Iterable[Row], parse: Callable[[Row], T]) -> list[T]:
    """`parse` every row; `Problems` with whatever is wrong with any of them (see `_reading.refuse`)."""
    found: list[T] = []
    wrong: list[RowError] = []
    for row in rows:
        try:
            found.append(parse(row))
        except RowError as error:
            wrong.append(error)
    if wrong:
        refuse(wrong[0].table, [f"row {error.number}: {error.reason}" for error in wrong])
    return found


def unique(column: str) -> Callable[[Row], str]:
    """A function that gives the row's value and refuses one that an earlier row had."""
    seen: dict[str, int] = {}

    def value(row: Row) -> str:
        text = row.text(column)
        if text in seen:
            raise row.error(f"{column} '{text}' is listed already in row {seen[text]}")
        seen[text] = row.number
        return text

    return value


def read_table(path: Path, required: Sequence[str] = ()) -> list[Row]:
    """Read a table by its suffix: .jsonl/.ndjson, .parquet, .tsv (tabs), anything else CSV (commas).

    Raises `TableError` when it cannot be read, lacks a required column, or has no rows, and `Problems` with every row
    that is none.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        rows = _parquet(path, required)
    elif suffix in (".jsonl", ".ndjson"):
        rows = _json_lines(path, read_text(path))
    else:
        rows = _separated(path, read_text(path), required, "\t" if suffix == ".tsv" else ",")
    if not rows:
        raise TableError(f"{path}: it has no rows")
    return rows


def read_list(path: Path) -> list[Row]:
    """The lines of a file without header, one value each, as rows with the column "line"; blank ones are left out."""
    lines = enumerate(read_text(path).split("\n"), 1)
    return [Row(path, number, {"line": line.strip()}) for number, line in lines if line.strip()]


def read_text(path: Path) -> str:
    """The whole file; `TableError` when it is not UTF-8 or cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror})") from None


def parsed(text: str) -> Any:
    """What JSON says; `json.JSONDecodeError` for whatever is wrong with it, numbers and depths beyond all use too."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("too many brackets inside of each other", text, 0) from None
    except ValueError:  # Python's limit for the digits of a whole number
        raise json.JSONDecodeError("a number of too many digits", text, 0) from None


def _parquet(path: Path, required: Sequence[str]) -> list[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{path}: cannot be read as Parquet ({error})") from None
    _check_header(path, table.column_names, required)
    return [Row(path, number, values) for number, values in enumerate(table.to_pylist(), 1)]


def _json_lines(path: Path, text: str) -> list[Row]:
    rows: list[Row] = []
    wrong: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):  # JSON may hold other marks of a new line
        if not line.strip():
            continue
        try:
            values = parsed(line)
        except json.JSONDecodeError as error:
            wrong.append(f"row {number}: not JSON ({error.msg} at column {error.colno})")
            continue
        if isinstance(values, dict):
            rows.append(Row(path, number, values))
        else:
            wrong.append(f'row {number}: expected an object such as {{"path": …, "label": …}}')
    if wrong:
        refuse(path, wrong)
    return rows


def _separated(path: Path, text: str, required: Sequence[str], delimiter: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    wrong: list[str] = []
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_header(path, header, required)
            elif len(cells) > len(header):
                wrong.append(
                    f"row {reader.line_num}: {len(cells)} values, but the header has {len(header)} columns; "
                    "put values that hold a comma in double quotes"
                )
            else:
                rows.append(Row(path, reader.line_num, dict(zip_longest(header, cells))))
    except csv.Error as error:
        raise TableError(f"{path}, row {reader.line_num}: {error}") from None
    if header is None:
        raise TableError(f"{path}: the file is blank; its first line must name the columns")
    if wrong:
        refuse(path, wrong)
    return rows


def _check_header(path: Path, header: list[str], required: Sequence[str]) -> None:
    twice = [column for column, uses in Counter(header).items() if uses > 1 and column]
    if twice:
        raise TableError(
            f"{path}: there are several columns '{twice[0]}'; which one counts? Rename or remove the others"
        )
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
