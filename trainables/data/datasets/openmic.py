"""OpenMIC-2018: instruments in 10 s of music, each clip annotated for some of them only (torch-free)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.datasets.base import Choice, Dataset, Expected, Protocol, Target, needed
from trainables.data.datasets.protocols import test_as_validation
from trainables.data.datasets.tables import Row, each, read_list, read_table

_LABELS = "openmic-2018-aggregated-labels.csv"
_METADATA = "openmic-2018-metadata.csv"
_PARTITIONS = {"train": "partitions/split01_train.csv", "test": "partitions/split01_test.csv"}
_INSTRUMENTS = (
    *("accordion", "banjo", "bass", "cello", "clarinet", "cymbals", "drums", "flute", "guitar", "mallet_percussion"),
    *("mandolin", "organ", "piano", "saxophone", "synthesizer", "trombone", "trumpet", "ukulele", "violin", "voice"),
)
_LEAST = 0.5  # relevance from which on an instrument counts as heard


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the clips of both partitions; an artist's clips are one group where the metadata file is there.

    Subset relevance: annotated instruments of relevance 0.5 or more are `labels`, the other annotated ones
    `negatives`; nothing is known of the rest. Subset annotated: every annotated instrument holds, all others do not.
    """
    needed(root, _LABELS, *_PARTITIONS.values(), "audio", dataset="openmic")
    heard = _annotations(root / _LABELS)
    artists = _artists(root / _METADATA)
    clips = []
    keys: dict[str, str] = {}
    for split, partition in _PARTITIONS.items():

        def key(row: Row, split: str = split) -> str:
            sample = row.text("line")
            if sample not in heard:
                raise row.error(f"'{sample}' has no row in {_LABELS}")
            if sample in keys:
                raise row.error(f"'{sample}' is listed already for {keys[sample]}")
            keys[sample] = split
            return sample

        for sample in each(read_list(root / partition), key):
            yes = tuple(sorted(name for name, holds in heard[sample].items() if holds or choice.subset == "annotated"))
            no = tuple(sorted(name for name, holds in heard[sample].items() if not holds))
            file = f"audio/{sample[:3]}/{sample}.ogg"
            clips.append(
                Clip(
                    path=root / file,
                    name=file,
                    labels=yes,
                    negatives=None if choice.subset == "annotated" else no,
                    split=split,
                    group=artists.get(sample),
                )
            )
    return clips


def _annotations(table: Path) -> dict[str, dict[str, bool]]:
    """Sample -> annotated instrument -> whether it is heard."""
    heard: dict[str, dict[str, bool]] = defaultdict(dict)

    def annotation(row: Row) -> None:
        sample, instrument = row.text("sample_key"), row.one_of("instrument", _INSTRUMENTS)
        holds = row.share("relevance") >= _LEAST
        if heard[sample].setdefault(instrument, holds) != holds:
            raise row.error(f"'{instrument}' of '{sample}' has another relevance in an earlier row")

    each(read_table(table, ("sample_key", "instrument", "relevance")), annotation)
    return heard


def _artists(table: Path) -> dict[str, str]:
    if not table.is_file():
        return {}
    rows = read_table(table, ("sample_key", "artist_id"))
    return {row.text("sample_key"): f"artist {row.text('artist_id')}" for row in rows if row.optional_text("artist_id")}


def looks_like(root: Path) -> bool:
    return (root / _LABELS).is_file()


DATASET = Dataset(
    name="openmic",
    summary="music of 10 s: which of 20 instruments are heard, each clip annotated for some of them",
    layout=(
        f"PATH/{_LABELS}   sample_key,instrument,relevance,num_responses\n"
        "PATH/partitions/split01_train.csv, split01_test.csv   a sample_key per line\n"
        "PATH/audio/<first three characters>/<sample_key>.ogg\n"
        f"PATH/{_METADATA}   where it is there, no artist is in both train and val"
    ),
    targets={"instruments": Target("tagging", "the instruments that are heard, of 20")},
    subsets={
        "relevance": "annotated with a relevance of 0.5 or more: yes; below: no; not annotated: unknown",
        "annotated": "as AAT: every annotated instrument counts as heard, whatever was found, and no other",
    },
    protocols={
        "standard": Protocol("the official train and test parts; val is cut from train"),
        "aat": Protocol(
            "the official train and test parts; epochs chosen on the test part", test_as_validation, reads_test=True
        ),
    },
    read=read,
    looks_like=looks_like,
    expected=(Expected(clips=20000, classes=20, splits={"train": 14915, "test": 5085}, source="partitions split01"),),
    citation='E. J. Humphrey, S. Durand, B. McFee, "OpenMIC-2018: An Open Dataset for Multiple Instrument '
    'Recognition", ISMIR 2018',
    licence="labels CC BY 4.0; every recording keeps its own licence (see the metadata file)",
)
