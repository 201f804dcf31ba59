"""LibriSpeech: chapters of books read aloud, cut into utterances (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainables.data.clips import Clip
from trainables.data.datasets._files import folders, lines, relative
from trainables.data.datasets._lexicon import pronounced, read_lexicon
from trainables.data.datasets._reading import refuse
from trainables.data.datasets.base import Choice, Dataset, Expected, LayoutError, Protocol, Target, needed

_COUNTS = {
    "train-clean-100": 28539,
    "train-clean-360": 104014,
    "train-other-500": 148688,
    "dev-clean": 2703,
    "dev-other": 2864,
    "test-clean": 2620,
    "test-other": 2939,
}


@dataclass(frozen=True)
class _Subset:
    train: tuple[str, ...]
    val: str = "dev-clean"
    test: str = "test-clean"

    @property
    def summary(self) -> str:
        return f"{' + '.join(self.train)}, {self.val}, {self.test}"

    def expected(self, target: str, name: str) -> Expected:
        splits = {
            "train": sum(_COUNTS[part] for part in self.train),
            "val": _COUNTS[self.val],
            "test": _COUNTS[self.test],
        }
        return Expected(target, name, sum(splits.values()), None, splits, source="Panayotov et al. 2015, counted")


_SUBSETS = {
    "clean-100": _Subset(("train-clean-100",)),
    "clean-360": _Subset(("train-clean-360",)),
    "clean-460": _Subset(("train-clean-100", "train-clean-360")),
    "other-500": _Subset(("train-other-500",), "dev-other", "test-other"),
    "960": _Subset(("train-clean-100", "train-clean-360", "train-other-500")),
}


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the utterances of the parts that make up a subset, with the text in upper case as published.

    Target speaker takes the training part alone, without splits: nobody of it is in the other two.
    """
    home, subset = _home(root), _SUBSETS[choice.subset]
    parts = dict.fromkeys(subset.train, "train")
    if choice.target != "speaker":
        parts |= {subset.val: "val", subset.test: "test"}
    needed(home, *parts, dataset="librispeech")
    clips: list[Clip] = []
    wrong: list[str] = []
    for part, split in parts.items():
        before = len(clips)
        for speaker in folders(home / part):
            for chapter in folders(speaker):
                clips += _chapter(chapter, root, split, wrong)
        if len(clips) == before and not wrong:
            raise LayoutError(f"{home / part} holds no transcripts <speaker>/<chapter>/<speaker>-<chapter>.trans.txt")
    if wrong:
        refuse(home, wrong)
    if choice.target == "speaker":
        return [replace(clip, label=clip.speaker or "", split=None, text=None) for clip in clips]
    return _spoken(clips, choice.lexicon) if choice.target == "phonemes" else clips


def _chapter(chapter: Path, root: Path, split: str, wrong: list[str]) -> list[Clip]:
    stem = f"{chapter.parent.name}-{chapter.name}"
    table = chapter / f"{stem}.trans.txt"
    if not table.is_file():
        wrong.append(f"{relative(table, root)}: the transcripts are not there")
        return []
    clips = []
    for number, line in lines(table):
        name, _, text = line.strip().partition(" ")
        if not name.startswith(f"{stem}-") or not text.strip():
            wrong.append(f"{relative(table, root)}, row {number}: '{line}'; expected {stem}-0000 and a text")
            continue
        path = chapter / f"{name}.flac"
        clips.append(
            Clip(path=path, name=relative(path, root), split=split, text=text.strip(), speaker=chapter.parent.name)
        )
    return clips


def _spoken(clips: Sequence[Clip], lexicon: Path | None) -> list[Clip]:
    phones = pronounced([clip.text or "" for clip in clips], read_lexicon(lexicon), lexicon)
    return [replace(clip, text=text) for clip, text in zip(clips, phones, strict=True)]


def _home(root: Path) -> Path:
    inner = root / "LibriSpeech"
    return inner if inner.is_dir() else root


def looks_like(root: Path) -> bool:
    return any((_home(root) / part).is_dir() for part in _COUNTS)


DATASET = Dataset(
    name="librispeech",
    summary="LibriSpeech: English books read aloud",
    layout=(
        "PATH/LibriSpeech/ or PATH itself with\n"
        "  train-clean-100/<speaker>/<chapter>/<speaker>-<chapter>-0000.flac\n"
        "  train-clean-100/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt   and so dev-clean, test-clean, …"
    ),
    targets={
        "text": Target("speech_recognition", "what is read, in upper case"),
        "phonemes": Target("phonemes", "the phones of the words by data.lexicon, with its digits of stress"),
        "speaker": Target("classification", "the speaker, among those of the training part", speakers_recur=True),
    },
    protocols={
        "standard": Protocol(
            "the published parts, no speaker in two of them; target speaker: drawn from the training part, per speaker"
        ),
        "sure": Protocol("the same as standard"),
    },
    read=read,
    looks_like=looks_like,
    subsets={name: subset.summary for name, subset in _SUBSETS.items()},
    expected=tuple(
        subset.expected(target, name) for target in ("text", "phonemes") for name, subset in _SUBSETS.items()
    ),
    citation='V. Panayotov et al., "Librispeech: an ASR corpus based on public domain audio books", ICASSP 2015',
    licence="CC BY 4.0",
)
