"""VCTK: the same kind of sentences read by 110 speakers of English (torch-free)."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trainables.config import DataOptions
from trainables.data.clips import Clip
from trainables.data.datasets._files import decoded, files, folders, relative
from trainables.data.datasets._reading import tell
from trainables.data.datasets.base import Choice, Dataset, LayoutError, Protocol, Target
from trainables.data.splits import SplitError, Splits

_PLACES = ("wav48_silence_trimmed", "wav48", "wav16", ".")
_SPEAKER = re.compile(r"p\d{3}|s5")
_NOT_SURE = {"p280", "p315", "s5"}  # the 107 speakers of SURE's list are all but these
_HELD_OUT = {"p351", "p360", "p361", "p362", "p363", "p364", "p374", "p376"}  # SURE's, for verification
_SURE_VAL = 50  # last recordings of every other speaker


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the recordings, of the first microphone where there are two, with their split.

    `speaker`: of every speaker a tenth validates and a tenth tests. Else whole speakers: a tenth of them validate and
    a tenth test, so that nobody who was trained on is heard again. Either way those that a hash of the name puts
    first, the same ones wherever the data lie. For protocol sure its own rules make the splits.
    """
    place = _place(root)
    if place is None:
        raise LayoutError(f"{root} has no folders of speakers (p225, p226, …), neither itself nor in {_PLACES[:3]}")
    clips = []
    for folder in folders(place):
        if not _SPEAKER.fullmatch(folder.name):
            continue
        if choice.protocol == "sure" and folder.name in _NOT_SURE:
            continue
        for path in files(folder, ".wav", ".flac"):
            if not path.stem.endswith("_mic2"):
                clips.append(_clip(path, root, folder.name, choice))
    if choice.target == "text":
        clips = _transcribed(clips, root, place)
    if not clips:
        raise LayoutError(f"{place}: the folders of the speakers hold no .wav or .flac files")
    if choice.protocol == "sure":
        return clips
    if choice.target == "speaker":
        of_speaker: dict[str, list[str]] = defaultdict(list)
        for clip in clips:
            of_speaker[clip.label].append(_utterance(clip))
        parts = {speaker: _tenths(names, 1) for speaker, names in of_speaker.items()}
        return [replace(clip, split=parts[clip.label][_utterance(clip)]) for clip in clips]
    of_all = _tenths(sorted({clip.speaker or "" for clip in clips}), 2)  # one alone has nobody to be told from
    return [replace(clip, split=of_all[clip.speaker or ""]) for clip in clips]


def _clip(path: Path, root: Path, speaker: str, choice: Choice) -> Clip:
    label = "" if choice.target == "text" else speaker
    return Clip(path=path, name=relative(path, root), label=label, speaker=speaker)


def _utterance(clip: Clip) -> str:
    """'p225_001' of p225_001_mic1.flac."""
    return clip.path.stem.removesuffix("_mic1")


def _tenths(names: Sequence[str], least: int) -> dict[str, str]:
    """Name -> split: a tenth each for test and val, but `least`; the names that their hash puts first."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(f"vctk {name}".encode()).digest())
    count = max(least, len(names) // 10)
    parts = ["test"] * count + ["val"] * count
    return dict(zip(ordered, parts + ["train"] * (len(names) - len(parts)), strict=False))


def _standard(clips: Sequence[Clip], options: DataOptions) -> Splits:
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for i, clip in enumerate(clips):
        parts[clip.split or "train"].append(i)
    whole = options.target not in (None, "speaker")
    among = "of the speakers" if whole else "of every speaker's recordings"
    return Splits.of_parts(**parts, protocol=f"standard: 80, 10 and 10 % {among}, by a hash of their names")


def _sure_speakers(clips: Sequence[Clip], options: DataOptions) -> Splits:
    """The first 80 % of every speaker's recordings train, the next 10 % validate, the last 10 % test."""
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for ids in _of_speakers(clips).values():
        tenth = len(ids) // 10
        first = len(ids) - 2 * tenth
        parts["train"] += ids[:first]
        parts["val"] += ids[first : first + tenth]
        parts["test"] += ids[first + tenth :]
    return Splits.of_parts(**parts, protocol="sure: 80, 10 and 10 % of every speaker's recordings in order of name")


def _sure_verification(clips: Sequence[Clip]) -> Splits:
    """Eight speakers test; of every other one the last 50 recordings validate."""
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for speaker, ids in _of_speakers(clips).items():
        if speaker in _HELD_OUT:
            parts["test"] += ids
        else:
            parts["train"] += ids[:-_SURE_VAL]
            parts["val"] += ids[-_SURE_VAL:]
    return Splits.of_parts(
        **parts, protocol=f"sure: {len(_HELD_OUT)} speakers test, 50 clips of each other one are val"
    )


def _of_speakers(clips: Sequence[Clip]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for i in sorted(range(len(clips)), key=lambda i: clips[i].name):
        found[clips[i].speaker or ""].append(i)
    return found


def _sure(clips: Sequence[Clip], options: DataOptions) -> Splits:
    if options.target == "text":
        raise SplitError("protocol 'sure' has no speech recognition on vctk; use data.protocol=standard")
    if options.target == "verification":
        return _sure_verification(clips)
    return _sure_speakers(clips, options)


def _transcribed(clips: Sequence[Clip], root: Path, place: Path) -> list[Clip]:
    """The clips that have a text: of one speaker (p315) the texts were lost before the corpus was published."""
    home = next((folder / "txt" for folder in (root, place.parent) if (folder / "txt").is_dir()), None)
    if home is None:
        raise LayoutError(f"{root} has no folder 'txt' with the texts; target text needs it")
    found = []
    for clip in clips:
        path = home / (clip.speaker or "") / f"{_utterance(clip)}.txt"
        text = " ".join(decoded(path, "utf-8-sig", "latin-1").split()) if path.is_file() else ""
        if text:
            found.append(replace(clip, text=text))
    if len(found) < len(clips):
        tell(f"vctk: {len(clips) - len(found)} of {len(clips)} recordings have no text and are left out")
    return found


def _place(root: Path) -> Path | None:
    """The folder of the speakers."""
    for name in _PLACES:
        if any(_SPEAKER.fullmatch(folder.name) for folder in folders(root / name)):
            return root / name
    return None


def looks_like(root: Path) -> bool:
    return _place(root) is not None


DATASET = Dataset(
    name="vctk",
    summary="VCTK: 110 English speakers of many accents, some 400 sentences each",
    layout=(
        "PATH/wav48_silence_trimmed/p225/p225_001_mic1.flac   version 0.92; or\n"
        "PATH/wav48/p225/p225_001.wav                         version 0.80, or wav16, or PATH/p225/ itself\n"
        "PATH/txt/p225/p225_001.txt                           needed for target text"
    ),
    targets={
        "speaker": Target("classification", "the speaker", speakers_recur=True),
        "verification": Target("verification", "whether two recordings are of one speaker"),
        "text": Target("speech_recognition", "the sentence"),
    },
    protocols={
        "standard": Protocol(
            "target speaker: 80, 10 and 10 % of every speaker's recordings, by a hash of their names; the other "
            "targets: of 80, 10 and 10 % of the speakers. Many sentences are read by many speakers",
            _standard,
        ),
        "sure": Protocol(
            "without p280, p315 and s5. Target speaker: 80, 10 and 10 % of every speaker's recordings in order of "
            "name (there: of the directory). Verification: eight speakers test, the last 50 recordings of every other "
            "one validate (there only the first 512 files of each split were used)",
            _sure,
        ),
    },
    read=read,
    looks_like=looks_like,
    citation='J. Yamagishi, C. Veaux, K. MacDonald, "CSTR VCTK Corpus", University of Edinburgh, 2019',
    licence="CC BY 4.0 (version 0.80: ODC-By 1.0)",
)
