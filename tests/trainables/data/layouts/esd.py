"""ESD in miniature: three speakers, two sentences of every emotion and split."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")  # in the order of the published numbers
_NUMBERS = {"evaluation": (1, 20), "test": (21, 50), "train": (51, 350)}  # first and last of every emotion
_SENTENCES = {
    "0011": "The nine the eggs, I keep.",
    "0012": "I\u2019ve never been so hungry.",  # an apostrophe that is not ASCII
    "0001": "打远一看，它们的确很是美丽。",
}
_CHINESE = {"Neutral": "中立", "Angry": "生气", "Happy": "快乐", "Sad": "伤心", "Surprise": "惊喜"}
_ENCODINGS = {"0011": "cp1252", "0012": "utf-16", "0001": "gb2312"}


def write(root: Path, *, audio: bool = True, parted: bool = True) -> Path:
    """With `parted` every emotion has folders for the splits; else the numbers alone tell."""
    for speaker, sentence in _SENTENCES.items():
        rows = []
        for place, emotion in enumerate(EMOTIONS):
            for split, numbers in _NUMBERS.items():
                for number in numbers:
                    name = f"{speaker}_{350 * place + number:06d}"
                    folder = root / speaker / emotion / split if parted else root / speaker / emotion
                    recording(folder / f"{name}.wav", audio, pitch=300 + 150 * place, seed=350 * place + number)
                    rows.append(f"{name}\t{sentence}\t{_CHINESE[emotion] if speaker == '0001' else emotion}")
        rows[1] = rows[1].replace("\t", "  ")  # a few published rows are like these two
        rows[2] = rows[2].rpartition("\t")[0]
        text(root / speaker / f"{speaker}.txt", "\r\n".join(rows) + "\r\n\r\n", _ENCODINGS[speaker])
    return root
