"""What the two versions of Speech Commands share: a folder per word and two lists (torch-free)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from trainables.data.clips import SPLITS, Clip
from trainables.data.datasets._files import files
from trainables.data.datasets.base import Choice, LayoutError, needed
from trainables.data.datasets.tables import Row, each, read_list

CORE = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_AUXILIARY = ("bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow")
WORDS_1 = (*CORE, *_DIGITS, *_AUXILIARY)
WORDS_2 = (*WORDS_1, "backward", "follow", "forward", "learn", "visual")
ELEVEN = (*CORE, "four")
UNKNOWN, SILENCE = "_unknown_", "_silence_"

CITATION = 'P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", arXiv 1804.03209, 2018'

_LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
_NOISE = "_background_noise_"
_SHARE = 0.1  # unknown words, and silence, for every clip of the ten words
_PARTS = {"train": (0.0, 0.8), "val": (0.8, 0.9), "test": (0.9, 1.0)}  # of every recording of noise
_PIECE = 1.0  # seconds


def read(root: Path, choice: Choice, name: str, words: tuple[str, ...], test_archive: str) -> list[Clip]:
    """List the clips of a subset: all words, ELEVEN, or "12" (CORE, unknown words and silence).

    What is on neither list trains. A speaker's clips are one group; the lists never part them.
    """
    needed(root, *_LISTS.values(), dataset=name)
    taken = ELEVEN if choice.subset == "11" else words
    _check_folders(root, taken, name)
    listed = {file: split for split in _LISTS for file in _list(root / _LISTS[split], words)}
    clips = [clip for word in taken for clip in _word(root, word, listed)]
    return _twelve(root, clips, test_archive) if choice.subset == "12" else clips


def _list(path: Path, words: Sequence[str]) -> list[str]:
    """The files on a list, each of them `<word>/<file>`."""

    def entry(row: Row) -> str:
        line = row.text("line")
        word, _, file = line.partition("/")
        if word not in words or not file or "/" in file:
            raise row.error(f"'{line}' is not <word>/<file> with one of the {len(words)} words")
        return line

    return each(read_list(path), entry)


def _check_folders(root: Path, words: Sequence[str], name: str) -> None:
    missing = [word for word in words if not (root / word).is_dir()]
    if missing:
        raise LayoutError(
            f"{root} is not a whole copy of '{name}': there is no folder "
            f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''} ({len(missing)} of {len(words)} words missing)"
        )
    if name == "speech_commands_v1" and (root / "forward").is_dir() and (root / "backward").is_dir():
        raise LayoutError(f"{root} has words of version 2 ('forward', 'backward'); it is 'speech_commands_v2'")


def _word(root: Path, word: str, listed: dict[str, str]) -> list[Clip]:
    """The clips of a word: the files that are there, and those that the lists name."""
    there = {f"{word}/{file.name}" for file in files(root / word, ".wav")}
    return [
        _clip(root, file, word, listed.get(file, "train"))
        for file in sorted(there | {file for file in listed if file.startswith(f"{word}/")})
    ]


def _clip(root: Path, name: str, label: str, split: str) -> Clip:
    speaker, mark, _ = name.rpartition("/")[2].partition("_nohash_")
    known = speaker if mark else None
    return Clip(path=root / name, name=name, label=label, split=split, group=known, speaker=known)


def _twelve(root: Path, clips: Sequence[Clip], test_archive: str) -> list[Clip]:
    """Ten words, `_unknown_` and `_silence_`, a tenth as many of each as of the words, rounded up, in every split.

    That is the share of the published task (arXiv 1804.03209, section 7) and of its test archive, which is used for
    the test where it is below `root`. Unknown clips are those of the other words that a hash of their name puts first.
    Silence is cut from the recordings of noise at even distances: training pieces from the first 80 % of each,
    validation from the next tenth, test from the last one, so that no noise is in two splits.
    """
    archive = root / test_archive
    found = []
    for split in SPLITS:
        if split == "test" and archive.is_dir():
            found += _archived(root, archive)
            continue
        core = [clip for clip in clips if clip.split == split and clip.label in CORE]
        other = [clip for clip in clips if clip.split == split and clip.label not in CORE]
        share = math.ceil(_SHARE * len(core) - 1e-9)
        drawn = sorted(other, key=lambda clip: hashlib.sha256(clip.name.encode()).digest())[:share]
        found += [*core, *(_clip(root, clip.name, UNKNOWN, split) for clip in drawn), *_silence(root, split, share)]
    return found


def _archived(root: Path, archive: Path) -> list[Clip]:
    labels = (*CORE, UNKNOWN, SILENCE)
    missing = [label for label in labels if not (archive / label).is_dir()]
    if missing:
        raise LayoutError(f"{archive}: the test archive has no folder {', '.join(missing)}")
    return [
        _clip(root, file.relative_to(root).as_posix(), label, "test")
        for label in labels
        for file in files(archive / label, ".wav")
    ]


def _silence(root: Path, split: str, count: int) -> list[Clip]:
    """`count` pieces of one second, evenly over a split's part of all recordings of noise."""
    import soundfile

    first, last = _PARTS[split]
    spans: list[tuple[str, float, float]] = []  # file, first and last second where a piece may begin
    for file in files(root / _NOISE, ".wav") if (root / _NOISE).is_dir() else ():
        try:
            seconds = soundfile.info(file).duration
        except soundfile.SoundFileError as error:
            raise LayoutError(f"{file}: the recording of noise cannot be read ({error})") from None
        if (last - first) * seconds > _PIECE:
            spans.append((f"{_NOISE}/{file.name}", first * seconds, last * seconds - _PIECE))
    if not spans:
        raise LayoutError(
            f"{root / _NOISE}: silence for {split} is cut from recordings of more than 10 s, and there are none"
        )
    ends = list(accumulate(stop - start for _, start, stop in spans))
    pieces = []
    for number in range(count):
        place = (number + 0.5) / count * ends[-1]
        which = next(i for i, end in enumerate(ends) if place <= end)
        name, _, stop = spans[which]
        at = round(stop - (ends[which] - place), 3)
        pieces.append(Clip(path=root / name, name=name, label=SILENCE, split=split, start=at, end=round(at + 1.0, 3)))
    return pieces
