"""TIMIT: read sentences with their phones (torch-free)."""

from __future__ import annotations

import re
from pathlib import Path

from petl.errors import nearest
from trainables.data.clips import Clip
from trainables.data.datasets._files import files, folders, lines, relative
from trainables.data.datasets._reading import refuse
from trainables.data.datasets._timit import CORE_TEST, DEVELOPMENT, PHONES, TO_39, TO_48
from trainables.data.datasets.base import Choice, Dataset, Expected, LayoutError, Protocol, Target

_FOLDINGS = {"39": TO_39, "48": TO_48, "61": {phone: phone for phone in PHONES}}
_REGION = re.compile(r"dr[1-8]", re.IGNORECASE)


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the sentences but for the two (`sa1`, `sa2`) that every speaker reads, with their phones.

    The training half trains, 50 speakers of the test half validate and the 24 of the core test are tested; the other
    94 are left out. Two like phones in a row stay two, as in the published scores.
    """
    halves = _halves(root)
    if halves is None:
        raise LayoutError(f"{root} has no folders TRAIN and TEST with dialect regions DR1 to DR8 in them")
    clips: list[Clip] = []
    wrong: list[str] = []
    for half, folder in halves.items():
        for region in folders(folder):
            for speaker in folders(region) if _REGION.fullmatch(region.name) else ():
                split = "train" if half == "train" else _split(speaker.name.lower())
                if split is not None:
                    clips += _sentences(speaker, split, _FOLDINGS[choice.subset], wrong, root)
    if wrong:
        refuse(root, wrong)
    if not clips:
        raise LayoutError(f"{root}: there are no .PHN files in TRAIN/DR1/<speaker> and so on")
    return clips


def _split(speaker: str) -> str | None:
    return "test" if speaker in CORE_TEST else "val" if speaker in DEVELOPMENT else None


def _sentences(speaker: Path, split: str, folding: dict[str, str], wrong: list[str], root: Path) -> list[Clip]:
    sounds = {path.name.lower(): path for path in files(speaker, ".wav")}
    clips = []
    for table in files(speaker, ".phn"):
        stem = table.stem.lower()
        if stem.startswith("sa"):
            continue
        # Copies that were converted keep the published file beside a .WAV.wav: either one holds the same sound.
        path = sounds.get(f"{stem}.wav") or sounds.get(f"{stem}.wav.wav") or table.with_suffix(".WAV")
        clips.append(
            Clip(
                path=path,
                name=relative(path, root),
                split=split,
                text=" ".join(_phones(table, folding, wrong, root)),
                speaker=speaker.name.lower(),
            )
        )
    return clips


def _phones(table: Path, folding: dict[str, str], wrong: list[str], root: Path) -> list[str]:
    phones = []
    for number, line in lines(table):
        values = line.split()
        where = f"{relative(table, root)}, row {number}"
        if len(values) != 3 or not (values[0].isdecimal() and values[1].isdecimal()):
            wrong.append(f"{where}: '{line}'; expected first sample, last sample, phone")
        elif values[2] not in PHONES:
            wrong.append(f"{where}: phone '{values[2]}'{nearest(values[2], sorted(PHONES))} is not one of TIMIT's 61")
        elif values[2] in folding:
            phones.append(folding[values[2]])
    return phones


def _halves(root: Path) -> dict[str, Path] | None:
    """The folders of the two halves, in whatever case, below `root` or a folder data or TIMIT in it."""
    for base in (root, *(folder for folder in folders(root) if folder.name.lower() in ("data", "timit"))):
        halves = {folder.name.lower(): folder for folder in folders(base) if folder.name.lower() in ("train", "test")}
        if len(halves) == 2 and any(_REGION.fullmatch(region.name) for region in folders(halves["train"])):
            return halves
    return None


def looks_like(root: Path) -> bool:
    return _halves(root) is not None


_SPLITS = {"train": 3696, "val": 400, "test": 192}

DATASET = Dataset(
    name="timit",
    summary="TIMIT: read English sentences with hand-marked phones",
    layout=(
        "PATH/TRAIN/DR1/<speaker>/<sentence>.WAV and .PHN   in upper or lower case, also below PATH/data\n"
        "PATH/TEST/DR1/<speaker>/…"
    ),
    targets={"phonemes": Target("phonemes", "the phones, without the sentences that everybody reads")},
    protocols={
        "standard": Protocol(
            "the training half trains, 50 speakers of the test half validate (the list of Kaldi's recipe), the 24 "
            "speakers of the core test are tested"
        ),
        "sure": Protocol("the same as standard: the published code for TIMIT was never finished"),
    },
    read=read,
    looks_like=looks_like,
    subsets={
        "39": "the phones folded to 39, as scores are published (Lee and Hon 1989)",
        "48": "folded to 48, as models are trained that fold to 39 for their score",
        "61": "all 61 as marked",
    },
    expected=tuple(
        Expected("phonemes", name, 4288, None, _SPLITS, source="Garofolo et al. 1993") for name in _FOLDINGS
    ),
    citation='J. Garofolo et al., "TIMIT Acoustic-Phonetic Continuous Speech Corpus", LDC93S1, 1993',
    licence="of the Linguistic Data Consortium (LDC93S1)",
)
