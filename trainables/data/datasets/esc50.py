"""ESC-50 and ESC-10: `meta/esc50.csv` and `audio/` (torch-free)."""

from __future__ import annotations

from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.datasets.base import Choice, Dataset, Expected, Protocol, Target, needed
from trainables.data.datasets.protocols import petl_ast, test_as_validation
from trainables.data.datasets.tables import MOST_FOLDS, Row, each, read_table, unique

_TABLE = "meta/esc50.csv"
_COLUMNS = ("filename", "fold", "category")


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the clips with their official fold; `src_file` (the Freesound recording) is their group."""
    needed(root, _TABLE, "audio", dataset="esc50")
    ten = choice.subset == "esc10"
    filename = unique("filename")

    def clip(row: Row) -> Clip | None:
        if ten and row.one_of("esc10", ("True", "False")) == "False":
            return None
        name = filename(row)
        return Clip(
            path=root / "audio" / name,
            name=f"audio/{name}",
            label=row.text("category"),
            fold=row.integer("fold", minimum=1, maximum=MOST_FOLDS),
            group=row.optional_text("src_file"),
        )

    rows = read_table(root / _TABLE, (*_COLUMNS, "esc10") if ten else _COLUMNS)
    return [found for found in each(rows, clip) if found is not None]


def looks_like(root: Path) -> bool:
    return (root / _TABLE).is_file()


DATASET = Dataset(
    name="esc50",
    summary="environmental sounds of 5 s: 50 classes in five official folds",
    layout=f"PATH/{_TABLE}   filename,fold,target,category,esc10,src_file,take\nPATH/audio/*.wav      (or .ogg)",
    targets={"sound": Target("classification", "the category")},
    subsets={"esc50": "all 2,000 clips, 50 classes", "esc10": "the 400 clips of ESC-10, 10 classes"},
    protocols={
        "standard": Protocol(
            "test on fold k, train on the other four with a validation part cut out, "
            "stratified, whole source recordings together"
        ),
        "petl_ast": Protocol("test on fold k, validate on the one before it, train on the other three", petl_ast),
        "aat": Protocol(
            "test on fold k, train on the other four; epochs chosen on the test fold", test_as_validation, True
        ),
    },
    read=read,
    looks_like=looks_like,
    expected=(
        Expected(subset="esc50", clips=2000, classes=50, folds=dict.fromkeys(range(1, 6), 400), source="ESC-50 README"),
        Expected(subset="esc10", clips=400, classes=10, folds=dict.fromkeys(range(1, 6), 80), source="ESC-50 README"),
    ),
    citation='K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015',
    licence="CC BY-NC 3.0 (the ESC-10 subset: CC BY 3.0); every clip keeps its author's own terms",
)
