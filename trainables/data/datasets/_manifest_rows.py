"""The rows of a manifest, whatever kind of file it is, and the clip that each one is (torch-free)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from petl.errors import nearest
from trainables.data.clips import SPLIT_NAMES, Clip
from trainables.data.datasets.tables import MOST_FOLDS, Row, TableError, parsed, read_table, read_text

SLOT = "slot:"
_MARK = re.compile(r"(?:^|(?<= ))([BE])-(\S+)")


def manifest_rows(table: Path) -> list[Row]:
    """Every record, with a value for `path`; `TableError` when there is no such column."""
    if table.suffix.lower() != ".json":
        return read_table(table, ("path",))
    try:
        records = parsed(read_text(table))
    except json.JSONDecodeError as error:
        raise TableError(f"{table}: not JSON ({error.msg}, line {error.lineno}, column {error.colno})") from None
    lists = isinstance(records, dict) and isinstance(records.get("data"), list)
    records = records["data"] if lists else records
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise TableError(f'{table}: expected a list of records, or {{"data": [{{"wav": path, "labels": "tag,tag"}}]}}')
    if not records:
        raise TableError(f"{table}: it has no rows")
    return [Row(table, number, _of_json(record) if lists else record) for number, record in enumerate(records, 1)]


def _of_json(record: dict[str, Any]) -> dict[str, Any]:
    """A record of the kind that AST and its descendants read: `wav`, and `labels` parted by commas."""
    values = dict(record)
    if "wav" in values:
        values.setdefault("path", values.pop("wav"))
    if isinstance(values.get("labels"), str):
        values["labels"] = values["labels"].split(",")
    return values


class RowReader:
    """Makes a clip of a row; `RowError` for the first thing that is wrong with it."""

    def __init__(self, folder: Path, rows: Sequence[Row], columns: Sequence[str], target: str) -> None:
        self._target = target
        self._columns = frozenset(columns)
        self._slots = [column for column in columns if column.startswith(SLOT)]
        # As given and with links resolved: an absolute path may be written either way.
        self._homes = tuple(dict.fromkeys((os.path.abspath(folder), os.path.realpath(folder))))  # noqa: PTH100
        self._seen: dict[tuple[str, float, float], int] = {}
        self._gaps = {column: _gap(rows, column) for column in ("split", "fold")}

    def __call__(self, row: Row) -> Clip:
        path, name = self._place(row)
        start, end = row.optional_seconds("start"), row.optional_seconds("end")
        if end is not None and end <= (start or 0.0):
            raise row.error(f"'end' ({end:g} s) is not after 'start' ({start or 0:g} s)")
        for number, message in filter(None, self._gaps.values()):
            if row.number == number:
                raise row.error(message)
        known: dict[str, Any] = {
            "split": _split(row),
            "fold": row.optional_integer("fold", minimum=1, maximum=MOST_FOLDS),
            "group": row.optional_text("group"),
            "speaker": row.optional_text("speaker"),
        }
        clip = Clip(path=path, name=name, start=start, end=end, **known, **self._learned(row))
        key = clip.order[:3]
        if key in self._seen:
            raise row.error(f"'{clip.title}' is listed already in row {self._seen[key]}; list every clip once")
        self._seen[key] = row.number
        return clip

    def _place(self, row: Row) -> tuple[Path, str]:
        """The file, and its path relative to the manifest's folder; it may not lie elsewhere."""
        given = row.text("path").replace("\\", "/")
        for home in self._homes:
            whole = os.path.normpath(os.path.join(home, given))  # noqa: PTH118 - Path does not resolve ".." without links
            if whole.startswith(home.rstrip(os.sep) + os.sep):
                return Path(whole), Path(whole).relative_to(home).as_posix()
        raise row.error(
            f"path '{given}' leads out of the manifest's folder {self._homes[0]}; put the manifest into a folder above "
            "all of the audio, or a link to the audio into the manifest's folder"
        )

    def _learned(self, row: Row) -> dict[str, Any]:
        """What is given of label, labels, negatives and text for the target."""
        match self._target:
            case "label":
                return {"label": self._label(row)}
            case "labels":
                return self._tags(row)
            case "slots":
                return {"labels": tuple(row.text(column) for column in self._slots)}
            case "speaker":
                return {"label": row.text("speaker")}
            case "phonemes":
                phones = " ".join(row.listed("phonemes", separator=" "))
                return {"text": phones or row.text("phonemes")}
            case "slot_text":
                return {"text": _marked(row)}
        return {"text": row.text(self._target)}

    def _label(self, row: Row) -> str:
        if "label" in self._columns:
            return row.text("label")
        labels = tuple(dict.fromkeys(row.listed("labels")))
        if len(labels) != 1:
            raise row.error(
                f"{len(labels)} labels ({', '.join(labels)}) where the target 'label' takes one; use data.target=labels"
            )
        return labels[0]

    def _tags(self, row: Row) -> dict[str, Any]:
        labels = tuple(dict.fromkeys(row.listed("labels")))
        negatives = tuple(dict.fromkeys(row.listed("negatives"))) if "negatives" in self._columns else None
        both = set(labels) & set(negatives or ())
        if both:
            raise row.error(f"'{min(both)}' is in both labels and negatives")
        return {"labels": labels, "negatives": negatives}


def _split(row: Row) -> str | None:
    text = row.optional_text("split")
    if text is None:
        return None
    split = SPLIT_NAMES.get(text.lower())
    if split is None:
        raise row.error(f"split '{text}' is not known{nearest(text.lower(), SPLIT_NAMES)}; allowed: train, val, test")
    return split


def _gap(rows: Sequence[Row], column: str) -> tuple[int, str] | None:
    """The first row that lacks what others have."""
    blank = [row.number for row in rows if _is_blank(row.values.get(column))]
    if not blank or len(blank) == len(rows):
        return None
    return blank[0], (
        f"'{column}' is blank here and in {len(blank) - 1} other rows, but given in "
        f"{len(rows) - len(blank)}; give it for every row or for none"
    )


def _is_blank(value: Any) -> bool:
    return value is None or value != value or not str(value).strip()


def _marked(row: Row) -> str:
    """Text in which every B-<slot> is followed by its E-<slot> before another slot begins."""
    text = row.text("slot_text")
    opened = ""
    for kind, slot in _MARK.findall(text):
        if (kind == "B") == bool(opened) or (kind == "E" and slot != opened):
            found = f"'{kind}-{slot}'" + (f" inside of 'B-{opened}'" if opened else " without its 'B-'")
            raise row.error(f"'slot_text' has {found}; a slot is B-<slot> words E-<slot>")
        opened = slot if kind == "B" else ""
    if opened:
        raise row.error(f"'slot_text' has 'B-{opened}' without its 'E-{opened}'")
    return text
