"""Folders, texts and tab-separated tables of published data sets (torch-free)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from petl.errors import UserError
from trainables.data.datasets._reading import refuse
from trainables.data.datasets.base import LayoutError
from trainables.data.datasets.tables import Row, TableError


def folders(folder: Path) -> list[Path]:
    """The folders in `folder`, sorted, hidden ones left out; none where it is not a folder."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def files(folder: Path, *suffixes: str) -> list[Path]:
    """The files in `folder` whose name ends so in any case, sorted; hidden ones (`._x.wav` of a Mac) left out."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in suffixes and not entry.name.startswith(".") and entry.is_file()
    )


def relative(path: Path, root: Path) -> str:
    """The name of a clip: its path below `root` with forward slashes."""
    return path.relative_to(root).as_posix()


def decoded(path: Path, *encodings: str) -> str:
    """The text of a file, by the first encoding that fits."""
    data = path.read_bytes()
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path}: its text is not {' or '.join(encodings)}; fetch the published file again")


def lines(path: Path, *encodings: str) -> list[tuple[int, str]]:
    """Numbered lines, blank ones left out. Parted at line feeds alone: texts hold other marks of a new line."""
    text = decoded(path, *(encodings or ("utf-8-sig",)))
    return [(n, line.rstrip("\r")) for n, line in enumerate(text.split("\n"), 1) if line.strip()]


def tab_rows(path: Path, columns: Sequence[str] = (), required: Sequence[str] = ()) -> list[Row]:
    """Rows of a table whose values are parted by tabs and never quoted, so that a `"` is a character like others.

    Without `columns` the first line names them. Raises `TableError` for a table that lacks one of `required` or has no
    rows, and `Problems` with every row that has another number of values.
    """
    table = lines(path)
    names = [name.strip() for name in (columns or (table[0][1].split("\t") if table else ()))]
    missing = [name for name in required if name not in names]
    if missing:
        raise TableError(f"{path}: no column '{missing[0]}'. Found: {', '.join(names)}. Values are parted by tabs")
    rows, wrong = [], []
    for number, line in table if columns else table[1:]:
        values = line.split("\t")
        if len(values) == len(names):
            rows.append(Row(path, number, dict(zip(names, values, strict=True))))
        else:
            wrong.append(f"row {number}: {len(values)} values; there must be {len(names)}: {', '.join(names)}")
    if wrong:
        refuse(path, wrong)
    if not rows:
        raise TableError(f"{path}: it has no rows{' that can be used' if wrong else ''}")
    return rows


def extracted(folder: Path, archives: Mapping[Path, Path]) -> None:
    """Where there is no `folder`, but one of `archives` (archive -> folder to unpack it in), say how to unpack it."""
    if folder.is_dir():
        return
    for archive, into in archives.items():
        if archive.is_file():
            raise LayoutError(
                f"{folder} is not there, but {archive} is, not unpacked yet: tar -xzf '{archive}' -C '{into}'"
            )
