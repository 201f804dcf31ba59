"""UrbanSound8K: `metadata/UrbanSound8K.csv` and `audio/fold1` … `audio/fold10` (torch-free)."""

from __future__ import annotations

from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.datasets.base import Choice, Dataset, Expected, Protocol, Target, needed
from trainables.data.datasets.protocols import petl_ast as fold_before
from trainables.data.datasets.protocols import test_as_validation
from trainables.data.datasets.tables import MOST_FOLDS, Row, each, read_table, unique

_TABLE = "metadata/UrbanSound8K.csv"
_CLASSES = (
    "air_conditioner",
    "car_horn",
    "children_playing",
    "dog_bark",
    "drilling",
    "engine_idling",
    "gun_shot",
    "jackhammer",
    "siren",
    "street_music",
)
_FOLDS = 10
_SIZES = (873, 888, 925, 990, 936, 823, 838, 806, 816, 837)


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the slices with their official fold; `fsID` (the Freesound recording) is their group.

    The columns start and end tell where a slice was in its recording: the files are cut already.
    """
    needed(root, _TABLE, "audio", dataset="urbansound8k")
    filename = unique("slice_file_name")

    def clip(row: Row) -> Clip:
        name = filename(row)
        fold = row.integer("fold", minimum=1, maximum=MOST_FOLDS)
        if fold > _FOLDS:
            raise row.error(f"'fold' is {fold}; there are folds 1 to {_FOLDS}")
        return Clip(
            path=root / "audio" / f"fold{fold}" / name,
            name=f"audio/fold{fold}/{name}",
            label=row.one_of("class", _CLASSES),
            fold=fold,
            group=row.text("fsID"),
        )

    return each(read_table(root / _TABLE, ("slice_file_name", "fsID", "fold", "class")), clip)


def looks_like(root: Path) -> bool:
    return (root / _TABLE).is_file()


_ON_TEST = Protocol(
    "test on fold k, train on the other nine; epochs chosen on the test fold", test_as_validation, reads_test=True
)

DATASET = Dataset(
    name="urbansound8k",
    summary="urban sounds of up to 4 s: 10 classes in ten official folds",
    layout=(
        f"PATH/{_TABLE}   slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "PATH/audio/fold1/*.wav … PATH/audio/fold10/*.wav"
    ),
    targets={"sound": Target("classification", "the class, one of 10")},
    protocols={
        "standard": Protocol("test on fold k, validate on the one before it, train on the other eight", fold_before),
        "petl_ast": _ON_TEST,
        "aat": _ON_TEST,
    },
    read=read,
    looks_like=looks_like,
    expected=(
        Expected(
            clips=sum(_SIZES),
            classes=len(_CLASSES),
            folds=dict(enumerate(_SIZES, 1)),
            source="UrbanSound8K's metadata, version 1.0",
        ),
    ),
    citation='J. Salamon, C. Jacoby, J. P. Bello, "A Dataset and Taxonomy for Urban Sound Research", '
    "ACM Multimedia 2014",
    licence="CC BY-NC 3.0",
)
