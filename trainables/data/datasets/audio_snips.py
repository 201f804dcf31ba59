"""Audio SNIPS: commands spoken by 16 synthetic voices, with slots and intents (torch-free)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from petl.errors import nearest
from trainables.data.clips import SPLIT_NAMES, Clip
from trainables.data.datasets._files import lines, relative
from trainables.data.datasets._reading import refuse
from trainables.data.datasets.base import Choice, Dataset, Expected, LayoutError, Protocol, Target

_TABLE = "all.iob.snips.txt"
_SLOTS = "slots.txt"
_FOLDERS = ("train", "valid", "test")
_EXPECTED = "'<speaker>-snips-<split>-<n> BOS word … EOS<tab>O slot … intent', as many slots as words"
_LEFT_OUT = frozenset(["", *"?!.,;-"])
_NO_SLOT = "O"


@dataclass(frozen=True)
class _Utterance:
    speaker: str
    folder: str
    number: str
    words: tuple[str, ...]
    slots: tuple[str, ...]  # one per word, `O` for none
    intent: str


@dataclass(frozen=True)
class _Place:
    """Where the recordings of a split lie; asked for once, not for each of 231,744 lines."""

    folder: Path
    name: str  # below the root
    suffix: str


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the utterances, with the split that their name gives. The voices are the same in all three splits.

    In target slots the words of a slot stand between `B-<slot>` and `E-<slot>`, punctuation is left out, and `&` is
    AND, as published. Words in a row with the same slot are one value.
    """
    home = _home(root)
    if home is None:
        raise LayoutError(f"{root} is not a copy of 'audio_snips': there is no {_TABLE}, nor SNIPS/{_TABLE}")
    known = {_NO_SLOT, *(line.strip() for _, line in lines(home / _SLOTS))} if (home / _SLOTS).is_file() else None
    places = {
        folder: _Place(home / folder, relative(home / folder, root), _suffix(home / folder)) for folder in _FOLDERS
    }
    clips, wrong = [], []
    seen: dict[str, int] = {}
    for number, line in lines(home / _TABLE):
        name, _, rest = line.strip().partition(" ")
        found = _parsed(name, rest)
        unknown = [slot for slot in found.slots if slot not in known] if found and known is not None else []
        if found is None:
            wrong.append(f"{_TABLE}, row {number}: '{line[:120]}'; expected {_EXPECTED}")
        elif unknown:
            close = nearest(unknown[0], sorted(known or ()))
            wrong.append(f"{_TABLE}, row {number}: slot '{unknown[0]}' is not in {_SLOTS}{close}")
        elif seen.setdefault(name, number) != number:
            wrong.append(f"{_TABLE}, row {number}: '{name}' is listed already in row {seen[name]}")
        else:
            clips.append(_clip(found, name, places[found.folder], choice))
    if wrong:
        refuse(home, wrong)
    return clips


def _clip(found: _Utterance, name: str, place: _Place, choice: Choice) -> Clip:
    return Clip(
        path=place.folder / f"{name}{place.suffix}",
        name=f"{place.name}/{name}{place.suffix}",
        label=found.intent if choice.target == "intent" else "",
        split=SPLIT_NAMES[found.folder],
        group=f"{found.folder} {found.number}",  # the voices say the same
        text=_marked(found.words, found.slots) if choice.target == "slots" else None,
        speaker=found.speaker,
    )


def _parsed(name: str, rest: str) -> _Utterance | None:
    """None for a line of another form. The first tag is that of BOS, the one of EOS is the intent."""
    named = name.split("-")
    spoken, tab, tags = rest.partition("\t")
    words, slots = spoken.strip().split(" "), tags.strip().split(" ")  # an empty word has a tag, too
    if len(named) != 4 or named[2] not in _FOLDERS or not tab:
        return None
    if len(words) < 3 or words[0] != "BOS" or words[-1] != "EOS" or len(slots) != len(words):
        return None
    return _Utterance(named[0], named[2], named[3], tuple(words[1:-1]), tuple(slots[1:-1]), slots[-1])


def _marked(words: Sequence[str], slots: Sequence[str]) -> str:
    """The words with every run of one slot between its marks."""
    marked: list[str] = []
    start = 0
    for end in range(1, len(words) + 1):
        if end < len(words) and slots[end] == slots[start]:
            continue
        kept = ["AND" if word == "&" else word for word in words[start:end] if word not in _LEFT_OUT]
        if kept and slots[start] != _NO_SLOT:
            kept = [f"B-{slots[start]}", *kept, f"E-{slots[start]}"]
        marked += kept
        start = end
    return " ".join(marked)


def _suffix(folder: Path) -> str:
    """The voices were published as .mp3; most use them as .wav."""
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".wav"):
                    return ".wav"
                if entry.name.endswith(".mp3"):
                    return ".mp3"
    return ".wav"


def _home(root: Path) -> Path | None:
    return next((place for place in (root, root / "SNIPS") if (place / _TABLE).is_file()), None)


def looks_like(root: Path) -> bool:
    return _home(root) is not None


_SPLITS = {"train": 209344, "val": 11200, "test": 11200}

DATASET = Dataset(
    name="audio_snips",
    summary="Audio SNIPS: commands to an assistant by 16 synthetic voices",
    layout=(
        f"PATH/{_TABLE}    <speaker>-snips-<split>-<n> BOS words EOS<tab>O slots intent\n"
        f"PATH/{_SLOTS}            the names of the slots, one a line; if there, slots are checked\n"
        "PATH/{train,valid,test}/<speaker>-snips-<split>-<n>.wav   or .mp3"
    ),
    targets={
        "slots": Target("slot_filling", "the words, with B-<slot> and E-<slot> around the values", speakers_recur=True),
        "intent": Target("classification", "the intent, one of 7", speakers_recur=True),
    },
    protocols={
        "standard": Protocol("the published splits: no sentence in two of them, all voices in each"),
        "sure": Protocol("the same as standard"),
    },
    read=read,
    looks_like=looks_like,
    expected=(
        Expected("slots", "", 231744, None, _SPLITS, source="logs of SURE; 16 voices"),
        Expected("intent", "", 231744, 7, _SPLITS, source="logs of SURE; 16 voices"),
    ),
    citation='C.-I. Lai et al., "Semi-supervised spoken language understanding via self-supervised speech and '
    'language model pretraining", ICASSP 2021; sentences of A. Coucke et al., 2018',
    licence="of its publishers; the sentences: CC0",
)
