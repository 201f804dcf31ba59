"""A manifest with a column for everything: 24 clips of four speakers in given splits."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

_COLUMNS = "path,label,labels,negatives,text,phonemes,speaker,slot:action,slot:object,slot_text,split"
_WORDS = ("turn on", "turn off", "louder")
_PHONES = ("T ER N AA N", "T ER N AO F", "L AW D ER")
_VALUES = (("activate", "lights"), ("deactivate", "lights"), ("increase", "none"))


def write(root: Path, *, audio: bool = True) -> Path:
    rows = [_COLUMNS]
    for number in range(24):
        kind, speaker = number % 3, f"speaker{number // 3 % 4}"
        tags, noes = (f"kind{kind};low", "high") if number % 2 else (f"kind{kind}", "low;high")
        split = ("train", "train", "train", "train", "val", "val", "test", "test")[number // 3]
        action, thing = _VALUES[kind]
        marked = f"B-action {_WORDS[kind]} E-action"
        rows.append(
            f"clips/{number:02d}.wav,kind{kind},{tags},{noes},{_WORDS[kind]},{_PHONES[kind]},{speaker},"
            f"{action},{thing},{marked},{split}"
        )
        recording(root / "clips" / f"{number:02d}.wav", audio, pitch=300 + 200 * kind, seed=number)
    text(root / "manifest.csv", "\n".join(rows) + "\n")
    return root
