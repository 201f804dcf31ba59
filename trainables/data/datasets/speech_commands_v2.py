"""Speech Commands, version 0.02 (torch-free)."""

from __future__ import annotations

from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.datasets import _speech_commands as shared
from trainables.data.datasets.base import Choice, Dataset, Expected, Protocol, Target

_NAME = "speech_commands_v2"
_ARCHIVE = "speech_commands_test_set_v0.02"


def read(root: Path, choice: Choice) -> list[Clip]:
    return shared.read(root, choice, _NAME, shared.WORDS_2, _ARCHIVE)


def looks_like(root: Path) -> bool:
    return (root / "testing_list.txt").is_file() and (root / "forward").is_dir()


_OFFICIAL = Protocol("the official lists of validation and test; everything else trains")

DATASET = Dataset(
    name=_NAME,
    summary="spoken words of 1 s: 35 words, 2,618 speakers, official lists",
    layout=(
        "PATH/<word>/*_nohash_*.wav, a folder for each of the 35 words\n"
        "PATH/validation_list.txt, PATH/testing_list.txt\n"
        "subset 12: PATH/_background_noise_/*.wav, and where it is wanted the official test archive of that task,\n"
        f"           unpacked to PATH/{_ARCHIVE}"
    ),
    targets={"word": Target("classification", "the word")},
    subsets={
        "35": "all 35 words",
        "12": "ten words, unknown words (of the other 25) and silence (cut from the recordings of noise)",
        "11": "the words of SURE: ten and 'four'",
    },
    protocols={"standard": _OFFICIAL, "petl_ast": _OFFICIAL, "sure": _OFFICIAL, "aat": _OFFICIAL},
    read=read,
    looks_like=looks_like,
    expected=(
        Expected(
            subset="35",
            clips=105829,
            classes=35,
            splits={"train": 84843, "val": 9981, "test": 11005},
            source="README and lists of version 0.02",
        ),
        Expected(
            subset="12",
            clips=46258,
            classes=12,
            splits={"train": 36923, "val": 4445, "test": 4890},
            source="the published task with ten per cent each of unknown words and silence",
        ),
        Expected(
            subset="11",
            clips=42274,
            classes=11,
            splits={"train": 33724, "val": 4076, "test": 4474},
            source="SURE (which names version 0.01; the counts are those of 0.02)",
        ),
    ),
    citation=shared.CITATION,
    licence="CC BY 4.0",
)
