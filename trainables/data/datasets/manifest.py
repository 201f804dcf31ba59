"""A table that names files and what is known of them: CSV, TSV, JSON Lines, JSON or Parquet (torch-free)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.datasets._manifest_rows import SLOT, RowReader, manifest_rows
from trainables.data.datasets._speakers import speakers_apart
from trainables.data.datasets.base import Choice, Dataset, LayoutError, Protocol, Target
from trainables.data.datasets.protocols import petl_ast
from trainables.data.datasets.tables import Row, TableError, each

COLUMNS = (
    *("path", "label", "labels", "negatives", "text", "phonemes", "speaker", "slot_text"),
    *("split", "fold", "group", "start", "end"),
)
_NEEDS = {
    "label": ("label", "labels"),  # one of these
    "labels": ("labels",),
    "text": ("text",),
    "phonemes": ("phonemes",),
    "speaker": ("speaker",),
    "slot_text": ("slot_text",),
}
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
_FILES = ("manifest.csv", "manifest.jsonl", "manifest.tsv", "manifest.json", "manifest.parquet")


def read(path: Path, choice: Choice) -> list[Clip]:
    """List the clips of a manifest, or of the `manifest.*` in a folder; other columns are ignored.

    Paths are relative to the manifest's folder, and every file lies below it: an absolute path is taken only if it
    leads there. (Links in the folder are followed, so that audio from anywhere can be put below it.)
    `split` and `fold` are given for all rows or for none. Rows that share a file are one group (they never part)
    unless the column `group` says otherwise. Raises `Problems` with every row that cannot be used.
    """
    table = find(path)
    rows = manifest_rows(table)
    columns = _columns(rows)
    _check_target(table, columns, choice.target)
    clips = each(rows, RowReader(table.parent, rows, columns, choice.target))
    if any(clip.split is not None for clip in clips) and any(clip.fold is not None for clip in clips):
        raise TableError(
            f"{table}: there are both a column 'split' and a column 'fold', and either says what is held out; keep one"
        )
    uses = Counter(clip.name for clip in clips)
    return [replace(c, group=c.name) if c.group is None and uses[c.name] > 1 else c for c in clips]


def slot_names(path: Path) -> tuple[str, ...]:
    """The slots of a manifest, in the order of a clip's `labels`: its columns `slot:<name>`."""
    return _slots(_columns(manifest_rows(find(path))))


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


def _columns(rows: Sequence[Row]) -> list[str]:
    """In order of their first use: records of JSON may lack some."""
    return list(dict.fromkeys(column for row in rows for column in row.values))


def _slots(columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(column.removeprefix(SLOT) for column in columns if column.startswith(SLOT))


def _allowed(columns: Sequence[str], target: str) -> bool:
    if target == "slots":
        return bool(_slots(columns))
    return any(column in columns for column in _NEEDS[target])


def _check_target(table: Path, columns: Sequence[str], target: str) -> None:
    if _allowed(columns, target):
        return
    needs = f"columns '{SLOT}<name>'" if target == "slots" else f"a column '{_NEEDS[target][0]}'"
    able = [name for name in DATASET.targets if _allowed(columns, name)]
    instead = f"these columns allow data.target={' or data.target='.join(able)}" if able else "add it"
    raise TableError(f"{table}: the target '{target}' needs {needs}; found: {', '.join(columns)}; {instead}")


DATASET = Dataset(
    name="manifest",
    summary="any files, named by a table (CSV, TSV, JSON, JSON Lines, Parquet)",
    layout=(
        "PATH/manifest.csv     or PATH itself is a .csv, .tsv, .jsonl, .json or .parquet file\n"
        "columns: path, and of what is to be learned: label | labels (parted by ';', or a JSON list; negatives: what\n"
        "         is known not to hold) | text | phonemes (parted by blanks) | speaker | slot:<name>, one for each\n"
        "         slot | slot_text (words with B-<slot> … E-<slot> around the values)\n"
        "         and, where wanted, split (train|val|test), fold (1, 2, …), group (source recording), speaker,\n"
        "         start and end (seconds)\n"
        "Paths are relative to the manifest's folder and stay in it (links are followed).\n"
        'JSON: a list of records, or {"data": [{"wav": path, "labels": "tag,tag"}]}'
    ),
    targets={
        "label": Target("classification", "the column label (or labels, with one in every row)"),
        "labels": Target("tagging", "the column labels; negatives, where some are not known"),
        "text": Target("speech_recognition", "the column text"),
        "phonemes": Target("phonemes", "the column phonemes"),
        "speaker": Target("verification", "the column speaker: whether two clips are of one speaker"),
        "slots": Target("slots", "the columns slot:<name>, all of them to be right"),
        "slot_text": Target("slot_filling", "the column slot_text: words, with the slots marked"),
    },
    protocols={
        "standard": Protocol(
            "given splits where there is a column split (a missing val is cut from train); test on fold k where there "
            "is a column fold, with a validation part cut from the others; otherwise train/val/test drawn per class, "
            "groups kept together",
            speakers_apart,
        ),
        "petl_ast": Protocol("test on fold k, validate on the one before it, train on the others", petl_ast),
    },
    read=read,
    looks_like=looks_like,
    slot_names=slot_names,
)
