"""Speech Commands, version 0.01 (torch-free)."""

from __future__ import annotations

from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.datasets import _speech_commands as shared
from trainables.data.datasets.base import Choice, Dataset, Expected, Protocol, Target

_NAME = "speech_commands_v1"
_ARCHIVE = "speech_commands_test_set_v0.01"


def read(root: Path, choice: Choice) -> list[Clip]:
    return shared.read(root, choice, _NAME, shared.WORDS_1, _ARCHIVE)


def looks_like(root: Path) -> bool:
    return (root / "testing_list.txt").is_file() and (root / "sheila").is_dir() and not (root / "forward").is_dir()


_OFFICIAL = Protocol("the official lists of validation and test; everything else trains")

DATASET = Dataset(
    name=_NAME,
    summary="spoken words of 1 s: 30 words, official lists",
    layout=(
        "PATH/<word>/*_nohash_*.wav, a folder for each of the 30 words\n"
        "PATH/validation_list.txt, PATH/testing_list.txt\n"
        "subset 12: PATH/_background_noise_/*.wav, and where it is wanted the official test archive of that task,\n"
        f"           unpacked to PATH/{_ARCHIVE}"
    ),
    targets={"word": Target("classification", "the word")},
    subsets={
        "30": "all 30 words",
        "12": "ten words, unknown words (of the other 20) and silence (cut from the recordings of noise)",
        "11": "the words of SURE: ten and 'four'",
    },
    protocols={"standard": _OFFICIAL, "sure": _OFFICIAL, "aat": _OFFICIAL},
    read=read,
    looks_like=looks_like,
    expected=(
        Expected(
            subset="30",
            clips=64721,
            classes=30,
            splits={"train": 51088, "val": 6798, "test": 6835},
            source="the archive and lists of version 0.01",
        ),
        Expected(
            subset="12",
            clips=28420,
            classes=12,
            splits={"train": 22246, "val": 3093, "test": 3081},
            source="the published task with ten per cent each of unknown words and silence",
        ),
    ),
    citation=shared.CITATION,
    licence="CC BY 4.0",
)
