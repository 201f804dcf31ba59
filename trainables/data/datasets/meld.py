"""MELD: turns from a television series with seven emotions (torch-free)."""

from __future__ import annotations

from pathlib import Path

from trainables.data.clips import SPLIT_NAMES, Clip
from trainables.data.datasets._files import relative
from trainables.data.datasets.base import Choice, Dataset, Expected, LayoutError, Protocol, Target, needed
from trainables.data.datasets.tables import Row, each, read_table

_EMOTIONS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
_VIDEOS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}

# The published tables hold punctuation of code page 1252 as control characters, such as U+0092 for an apostrophe.
_PUNCTUATION = {
    code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}


def read(root: Path, choice: Choice) -> list[Clip]:
    """List the rows of the three tables; `group` is the dialogue."""
    needed(root, *(name for name in map(_table_name, _VIDEOS) if _table(root, name) is None), dataset="meld")
    clips: list[Clip] = []
    for split, videos in _VIDEOS.items():
        table = _table(root, _table_name(split))
        assert table is not None
        clips += _rows(table, _recordings(root, split, videos), split, root, choice)
    return clips


def _rows(table: Path, folder: Path, split: str, root: Path, choice: Choice) -> list[Clip]:
    seen: dict[str, int] = {}

    def clip(row: Row) -> Clip:
        dialogue = row.integer("Dialogue_ID", 0)
        name = f"dia{dialogue}_utt{row.integer('Utterance_ID', 0)}.wav"
        if name in seen:
            raise row.error(f"{name} is listed already in row {seen[name]}")
        seen[name] = row.number
        return Clip(
            path=folder / name,
            name=relative(folder / name, root),
            label=row.one_of("Emotion", _EMOTIONS) if choice.target == "emotion" else "",
            split=SPLIT_NAMES[split],
            group=f"{split} dialogue {dialogue}",
            text=row.text("Utterance").translate(_PUNCTUATION) if choice.target == "text" else None,
            speaker=row.optional_text("Speaker"),
        )

    return each(read_table(table, _COLUMNS), clip)


def _table_name(split: str) -> str:
    return f"{split}_sent_emo.csv"


def _table(root: Path, name: str) -> Path | None:
    """A table lies beside the folders of the splits or in its own; the archive has it both ways."""
    places = (root / name, root / name.partition("_")[0] / name)
    return next((place for place in places if place.is_file()), None)


def _recordings(root: Path, split: str, videos: str) -> Path:
    """The folder with the .wav files of a split; `LayoutError` where there are only videos."""
    places = (root / split, root / split / videos, root / videos)
    for place in places:
        if place.is_dir() and any(place.glob("dia*.wav")):
            return place
    for place in places:
        if place.is_dir() and any(place.glob("dia*.mp4")):
            raise LayoutError(
                f"{place} holds videos, and sound is read from .wav files. Take it out with ffmpeg: "
                f"mkdir -p '{places[0]}' && for f in '{place}'/*.mp4; do ffmpeg -v error -i \"$f\" -vn -ac 1 -ar 16000 "
                f'\'{places[0]}\'/"$(basename "$f" .mp4)".wav; done (and the same for the other splits)'
            )
    return places[0]


def looks_like(root: Path) -> bool:
    return all(_table(root, _table_name(split)) is not None for split in _VIDEOS)


DATASET = Dataset(
    name="meld",
    summary="MELD: emotions in dialogues of a television series",
    layout=(
        "PATH/{train,dev,test}_sent_emo.csv       Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID,…\n"
        "PATH/{train,dev,test}/dia<D>_utt<U>.wav  the sound of the published videos"
    ),
    targets={
        "emotion": Target("classification", "the emotion, one of 7", speakers_recur=True),
        "text": Target("speech_recognition", "what is said", speakers_recur=True),
    },
    protocols={
        "standard": Protocol("the published splits"),
        "sure": Protocol("the same as standard; there one recording of train and one of dev were missing"),
    },
    read=read,
    looks_like=looks_like,
    expected=(
        Expected("emotion", "", 13708, 7, {"train": 9989, "val": 1109, "test": 2610}, source="Poria et al. 2019"),
        Expected("text", "", 13708, None, {"train": 9989, "val": 1109, "test": 2610}, source="Poria et al. 2019"),
    ),
    citation='S. Poria et al., "MELD: A Multimodal Multi-Party Dataset for Emotion Recognition", ACL 2019',
    licence="for research; the recordings belong to the makers of the series",
)
