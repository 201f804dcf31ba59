"""MELD in miniature: three dialogues of each split, the sound taken out of the videos."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
_HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
_COUNTS = {"train": 3, "dev": 1, "test": 1}  # dialogues


def write(root: Path, *, audio: bool = True) -> Path:
    """Every dialogue has one turn of every emotion; the first one holds a comma, quotes and C1 punctuation."""
    for split, dialogues in _COUNTS.items():
        table = _HEAD
        for dialogue in range(dialogues):
            for number, emotion in enumerate(EMOTIONS):
                said = '"My company\u0092s ""transition"", well\u0085 no"' if number == 0 else f"Oh {emotion}!"
                table += (
                    f"{len(table)},{said},Chandler,{emotion},neutral,{dialogue},{number},8,21,"
                    '"00:16:16,059","00:16:21,731"\n'
                )
                path = root / split / f"dia{dialogue}_utt{number}.wav"
                recording(path, audio, pitch=300 + 120 * number, seed=10 * dialogue + number)
        text(root / f"{split}_sent_emo.csv", table)
    return root
