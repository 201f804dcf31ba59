"""ESD: 350 sentences in five emotions by ten English and ten Chinese speakers (torch-free)."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from petl.errors import nearest
from trainables.data.clips import Clip
from trainables.data.datasets._files import decoded, files, folders, relative
from trainables.data.datasets._reading import refuse, tell
from trainables.data.datasets.base import Choice, Dataset, Expected, LayoutError, Protocol, Target

_EMOTIONS = ("Angry", "Happy", "Neutral", "Sad", "Surprise")
_SPEAKERS = {"english": range(11, 21), "chinese": range(1, 11), "all": range(1, 21)}
_SPLITS = {"train": "train", "evaluation": "val", "test": "test"}
_SENTENCES = 350  # an emotion; numbers run on from emotion to emotion

_FILE = re.compile(r"(\d{4})_(\d{6})")
_LINE = re.compile(r"\W*(\d{4}_\d{6})\s+(.*\S)\s*", re.DOTALL)
_LABEL = re.compile(r"\s+(Angry|Happy|Neutral|Sad|Surprise|生气|快乐|开心|中立|伤心|惊喜)$")


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the recordings of the speakers of `choice.subset` with the split that the corpus gives.

    Copies without folders for the splits have them by number: of the 350 sentences of an emotion the first 20 are the
    evaluation, the next 30 the test. The splits share no sentence, but all speakers.
    """
    wanted = [f"{number:04d}" for number in _SPEAKERS[choice.subset]]
    speakers = [folder for folder in folders(root) if folder.name in wanted]
    if not speakers:
        found = ", ".join(folder.name for folder in folders(root)[:8]) or "no folders"
        raise LayoutError(
            f"{root} has none of the speaker folders {wanted[0]} to {wanted[-1]} of subset '{choice.subset}' "
            f"(found: {found}; data.subset is one of {', '.join(_SPEAKERS)})"
        )
    clips: list[Clip] = []
    wrong: list[str] = []
    for speaker in speakers:
        texts = _texts(speaker, wrong, root) if choice.target == "text" else {}
        for emotion in folders(speaker):
            if emotion.name not in _EMOTIONS:
                close = nearest(emotion.name, _EMOTIONS)
                wrong.append(f"{relative(emotion, root)}: no emotion{close}; allowed: {', '.join(_EMOTIONS)}")
                continue
            clips += _recordings(emotion, choice, texts, wrong, root)
    if wrong:
        refuse(root, wrong)
    if not clips:
        raise LayoutError(f"{root}: there are no .wav files in <speaker>/<emotion>/ or the splits below")
    if choice.target != "text":
        return clips
    spoken = [clip for clip in clips if clip.text]
    if len(spoken) < len(clips):
        tell(f"esd: {len(clips) - len(spoken)} of {len(clips)} recordings have no transcript and are left out")
    return spoken


def _recordings(emotion: Path, choice: Choice, texts: dict[str, str], wrong: list[str], root: Path) -> list[Clip]:
    parts = {name: emotion / name for name in _SPLITS if (emotion / name).is_dir()} or {"": emotion}
    speaker = emotion.parent.name
    clips = []
    for part, folder in parts.items():
        for path in files(folder, ".wav"):
            named = _FILE.fullmatch(path.stem)
            if named is None or named[1] != speaker or not 1 <= int(named[2]) <= _SENTENCES * len(_EMOTIONS):
                wrong.append(f"{relative(path, root)}: not a name such as {speaker}_000001.wav to {speaker}_001750.wav")
                continue
            clips.append(
                Clip(
                    path=path,
                    name=relative(path, root),
                    label={"emotion": emotion.name, "speaker": speaker}.get(choice.target, ""),
                    split=_SPLITS[part or _by_number(int(named[2]))],
                    text=texts.get(path.stem) if choice.target == "text" else None,
                    speaker=speaker,
                )
            )
    return clips


def _by_number(number: int) -> str:
    place = (number - 1) % _SENTENCES
    return "evaluation" if place < 20 else "test" if place < 50 else "train"


def _texts(speaker: Path, wrong: list[str], root: Path) -> dict[str, str]:
    """Recording -> sentence. A few published lines have blanks instead of tabs, or no emotion at their end."""
    path = speaker / f"{speaker.name}.txt"
    if not path.is_file():
        wrong.append(f"{relative(path, root)}: the transcripts are not there")
        return {}
    found = {}
    for line in _decoded(path, chinese=int(speaker.name) <= 10).split("\n"):
        matched = _LINE.fullmatch(line)
        if matched:
            found[matched[1]] = " ".join(_LABEL.sub("", matched[2]).split())
    return found


def _decoded(path: Path, chinese: bool) -> str:
    """The text of a transcript: the twenty files are in four encodings, UTF-16 among them."""
    head = path.open("rb").read(4)
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return decoded(path, "utf-16")
    if 0 in head:
        return decoded(path, "utf-16-le" if head[1:2] == b"\0" else "utf-16-be")
    return decoded(path, "utf-8-sig", "gb18030") if chinese else decoded(path, "utf-8-sig", "cp1252", "latin-1")


def looks_like(root: Path) -> bool:
    return any(
        re.fullmatch(r"00[012]\d", folder.name) and (folder / "Neutral").is_dir() for folder in folders(root)[:20]
    )


_PUBLISHED = {"train": 15000, "val": 1000, "test": 1500}

DATASET = Dataset(
    name="esd",
    summary="ESD: five emotions, ten English and ten Chinese speakers, the same sentences in each emotion",
    layout=(
        "PATH/<speaker>/<emotion>/{train,evaluation,test}/<speaker>_<number>.wav   speaker 0001 to 0020,\n"
        "     or the same without the folders of the splits                        emotion Angry, Happy, …\n"
        "PATH/<speaker>/<speaker>.txt   transcripts, needed for target text"
    ),
    targets={
        "emotion": Target("classification", "the emotion, one of 5", speakers_recur=True),
        "speaker": Target("classification", "the speaker", speakers_recur=True),
        "text": Target("speech_recognition", "the sentence", speakers_recur=True),
    },
    protocols={
        "standard": Protocol("the splits of the corpus: 300, 20 and 30 sentences of every speaker and emotion"),
        "sure": Protocol("the same as standard"),
    },
    read=read,
    looks_like=looks_like,
    subsets={
        "english": "speakers 0011 to 0020",
        "chinese": "speakers 0001 to 0010",
        "all": "all twenty speakers",
    },
    expected=(
        *(
            Expected(target, subset, 17500, classes, _PUBLISHED, source="Zhou et al. 2022")
            for target, classes in (("emotion", 5), ("speaker", 10))
            for subset in ("english", "chinese")
        ),
        Expected("emotion", "all", 35000, 5, source="Zhou et al. 2022"),
        Expected("speaker", "all", 35000, 20, source="Zhou et al. 2022"),
    ),
    citation='K. Zhou, B. Sisman, R. Liu, H. Li, "Emotional voice conversion: Theory, databases and ESD", 2022',
    licence="for research",
)
