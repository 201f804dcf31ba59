"""A table that names files and labels: CSV, TSV or JSON Lines (torch-free)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from petl.errors import nearest
from trainables.data.clips import SPLIT_NAMES, Clip
from trainables.data.formats.base import Format, LayoutError
from trainables.data.formats.tables import Row, read_table

COLUMNS = ("path", "label", "split", "fold", "group", "start", "end")
_REQUIRED = ("path", "label")
_FILES = ("manifest.csv", "manifest.jsonl", "manifest.tsv")
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")


def read(path: Path) -> list[Clip]:
    """List the clips of a manifest, or of the `manifest.*` in a folder; other columns are ignored.

    Paths are taken relative to the manifest's folder. `split` and `fold` are given for all rows or for none.
    Rows that share a file are one group (they never part) unless the column `group` says otherwise.
    """
    table = find(path)
    rows = read_table(table, _REQUIRED)
    for column in ("split", "fold"):
        _all_or_none(rows, column)
    clips = [_clip(row, table.parent) for row in rows]
    _no_repeats(rows, clips)
    uses = Counter(clip.name for clip in clips)
    return [replace(c, group=c.name) if c.group is None and uses[c.name] > 1 else c for c in clips]


def find(path: Path) -> Path:
    """The manifest file itself."""
    if path.is_file():
        if path.suffix.lower() not in _SUFFIXES:
            raise LayoutError(f"{path} is not a manifest: its name must end in {', '.join(_SUFFIXES)}")
        return path
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    raise LayoutError(f"{path} is not in 'manifest' layout: it holds none of {', '.join(_FILES)}")


def looks_like(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in _SUFFIXES
    return any((path / name).is_file() for name in _FILES)


def _clip(row: Row, folder: Path) -> Clip:
    name = row.text("path").replace("\\", "/")
    start, end = row.optional_seconds("start"), row.optional_seconds("end")
    if end is not None and end <= (start or 0.0):
        raise row.error(f"'end' ({end:g} s) is not after 'start' ({start or 0:g} s)")
    return Clip(
        path=folder / name,
        name=name,
        label=row.text("label"),
        split=_split(row),
        fold=row.optional_integer("fold", minimum=1),
        group=row.optional_text("group"),
        start=start,
        end=end,
    )


def _split(row: Row) -> str | None:
    text = row.optional_text("split")
    if text is None:
        return None
    split = SPLIT_NAMES.get(text.lower())
    if split is None:
        raise row.error(f"split '{text}' is not known{nearest(text.lower(), SPLIT_NAMES)}; allowed: train, val, test")
    return split


def _all_or_none(rows: list[Row], column: str) -> None:
    blank = [row for row in rows if row.optional_text(column) is None]
    if blank and len(blank) < len(rows):
        raise blank[0].error(
            f"'{column}' is blank here and in {len(blank) - 1} other rows, but given in "
            f"{len(rows) - len(blank)}; give it for every row or for none"
        )


def _no_repeats(rows: list[Row], clips: list[Clip]) -> None:
    seen: dict[tuple[str, float, float], int] = {}
    for row, clip in zip(rows, clips, strict=True):
        key = clip.order[:3]
        if key in seen:
            raise row.error(f"'{clip.title}' is listed already in row {seen[key]}; list every clip once")
        seen[key] = row.number


FORMAT = Format(
    name="manifest",
    summary="any files, named by a table (CSV, TSV or JSON Lines)",
    layout=(
        "PATH/manifest.csv     or PATH itself is a .csv, .tsv or .jsonl file\n"
        "columns: path,label   and, where wanted, split (train|val|test), fold (1, 2, …), group (source\n"
        "         recording), start and end (seconds); paths are relative to the manifest"
    ),
    protocols=(
        "given splits where there is a column split; a missing val is cut from train",
        "standard or petl_ast over the folds where there is a column fold",
        "otherwise train/val/test drawn per class, groups kept together",
    ),
    read=read,
    looks_like=looks_like,
)
