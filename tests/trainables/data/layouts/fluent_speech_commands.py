"""Fluent Speech Commands in miniature: four intents, other speakers in every table."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

SAID = (
    ("Change language", "change language", "none", "none"),
    ("Turn on the lights in the kitchen", "activate", "lights", "kitchen"),
    ("Lights off in the bedroom, please", "deactivate", "lights", "bedroom"),
    ("Turn it up", "increase", "volume", "none"),
)
SPEAKERS = {
    "train": ("2BqVo8kVB2Skwgyb", "4BrX8aDqK2cLZRYl"),
    "valid": ("5o9BvRGEGvhaeBwA",),
    "test": ("7NqqnAOPVVSKnxyv",),
}


def write(root: Path, *, audio: bool = True) -> Path:
    """`root` holds the folder that the archive unpacks to; every speaker says everything twice."""
    home = root / "fluent_speech_commands_dataset"
    for split, speakers in SPEAKERS.items():
        rows = [",path,speakerId,transcription,action,object,location"]
        for speaker in speakers:
            for number, (words, *values) in enumerate(SAID * 2):
                file = f"wavs/speakers/{speaker}/{number:08x}-4474-11e9-a9a5-5dbec3b8816a.wav"
                spoken = f'"{words}"' if "," in words else words
                rows.append(f"{len(rows) - 1},{file},{speaker},{spoken},{','.join(values)}")
                recording(home / file, audio, pitch=300 + 150 * (number % 4), seed=len(rows))
        text(home / "data" / f"{split}_data.csv", "\n".join(rows) + "\n")
    return root
