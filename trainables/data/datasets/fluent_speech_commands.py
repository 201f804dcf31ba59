"""Fluent Speech Commands: `data/{train,valid,test}_data.csv` and `wavs/` (torch-free)."""

from __future__ import annotations

from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.datasets.base import Choice, Dataset, Expected, Protocol, Target, needed
from trainables.data.datasets.tables import Row, each, read_table, unique

_FOLDER = "fluent_speech_commands_dataset"
_TABLES = {split: f"data/{name}_data.csv" for split, name in (("train", "train"), ("val", "valid"), ("test", "test"))}
_SLOTS = {
    "action": ("activate", "bring", "change language", "deactivate", "decrease", "increase"),
    "object": (
        *("Chinese", "English", "German", "Korean", "heat", "juice", "lamp", "lights", "music", "newspaper", "none"),
        *("shoes", "socks", "volume"),
    ),
    "location": ("bedroom", "kitchen", "none", "washroom"),
}


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the clips of the three official tables; `root` is the unpacked folder or the one that holds it."""
    home = root / _FOLDER if (root / _FOLDER).is_dir() else root
    needed(home, *_TABLES.values(), dataset="fluent_speech_commands")
    return [clip for split, table in _TABLES.items() for clip in _split(home, table, split, choice.target)]


def _split(home: Path, table: str, split: str, target: str) -> list[Clip]:
    path = unique("path")

    def clip(row: Row) -> Clip:
        name = path(row)
        values = tuple(row.one_of(slot, known) for slot, known in _SLOTS.items())
        return Clip(
            path=home / name,
            name=name,
            label=", ".join(values) if target == "intent" else "",
            labels=values if target == "slots" else (),
            split=split,
            group=row.text("speakerId"),
            speaker=row.text("speakerId"),
        )

    return each(read_table(home / table, ("path", "speakerId", *_SLOTS)), clip)


def looks_like(root: Path) -> bool:
    return any((home / _TABLES["val"]).is_file() for home in (root, root / _FOLDER))


_OFFICIAL = Protocol("the official train, validation and test tables; no speaker is in two of them")
_SPLITS = {"train": 23132, "val": 3118, "test": 3793}

DATASET = Dataset(
    name="fluent_speech_commands",
    summary="spoken commands to a smart home: 31 intents of action, object and location, 97 speakers",
    layout=(
        "PATH/data/{train,valid,test}_data.csv   ,path,speakerId,transcription,action,object,location\n"
        "PATH/wavs/speakers/<speaker>/*.wav\n"
        f"or the same below PATH/{_FOLDER}"
    ),
    targets={
        "intent": Target("classification", "action, object and location together, one of 31"),
        "slots": Target("slots", "action (6), object (14) and location (4), all three to be right", tuple(_SLOTS)),
    },
    protocols={"standard": _OFFICIAL, "petl_ast": _OFFICIAL, "sure": _OFFICIAL},
    read=read,
    looks_like=looks_like,
    expected=(
        Expected("intent", clips=30043, classes=31, splits=_SPLITS, source="the official tables"),
        Expected("slots", clips=30043, splits=_SPLITS, source="the official tables"),
    ),
    citation='L. Lugosch et al., "Speech Model Pre-training for End-to-End Spoken Language Understanding", '
    "Interspeech 2019",
    licence="for academic research; the terms are in the archive",
)
