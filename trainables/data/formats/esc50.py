"""ESC-50's layout: `meta/esc50.csv` and `audio/` (torch-free)."""

from __future__ import annotations

from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.formats.base import Format, LayoutError
from trainables.data.formats.tables import Row, read_table

_TABLE = Path("meta") / "esc50.csv"
_COLUMNS = ("filename", "fold", "category")


def read(root: Path) -> list[Clip]:
    """List the clips with their official fold; `src_file` (the freesound recording) is their group."""
    table, audio = root / _TABLE, root / "audio"
    if not table.is_file():
        raise LayoutError(f"{root} is not in 'esc50' layout: there is no {_TABLE.as_posix()} in it")
    if not audio.is_dir():
        raise LayoutError(f"{root} is not in 'esc50' layout: {_TABLE.as_posix()} is there, but no folder 'audio'")
    rows = read_table(table, _COLUMNS)
    seen: dict[str, Row] = {}
    clips = []
    for row in rows:
        name = row.text("filename")
        if name in seen:
            raise row.error(f"file '{name}' is listed already in row {seen[name].number}")
        seen[name] = row
        clips.append(
            Clip(
                path=audio / name,
                name=f"audio/{name}",
                label=row.text("category"),
                fold=row.integer("fold", minimum=1),
                group=row.optional_text("src_file"),
            )
        )
    return clips


def looks_like(root: Path) -> bool:
    return (root / _TABLE).is_file()


FORMAT = Format(
    name="esc50",
    summary="ESC-50 and its subsets: environmental sounds in five official folds",
    layout=("PATH/meta/esc50.csv   filename,fold,target,category,esc10,src_file,take\nPATH/audio/*.wav      (or .ogg)"),
    protocols=(
        "standard: test on fold k, train on the other four with a validation part cut out, "
        "stratified, whole source recordings together",
        "petl_ast: test on fold k, validate on the one before it, train on the other three",
    ),
    read=read,
    looks_like=looks_like,
    citation='K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015',
    licence="CC BY-NC 3.0 (the ESC-10 subset: CC BY 3.0); every clip keeps its author's own terms",
)
