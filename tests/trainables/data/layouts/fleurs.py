"""FLEURS in miniature: two languages as the hub has them, archives unpacked."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

_COUNTS = {"train": 6, "dev": 2, "test": 2}


def write(root: Path, *, audio: bool = True, base: str = "data") -> Path:
    """Two readers of every sentence; quotes stay as they are in the tables, which have no header."""
    for language, words in (("en_us", "a tornado is a spinning column"), ("de_de", "ein tornado ist eine säule")):
        for split, count in _COUNTS.items():
            rows = []
            for number in range(count):
                sentence = len(split) * 100 + number // 2
                name = f"{10**15 + sentence * 7 + number}.wav"
                characters = " ".join(words.replace(" ", "|")) + " |"
                gender = ("MALE", "FEMALE")[number % 2]
                rows.append(f'{sentence}\t{name}\tA "{words}" {sentence}.\t{words}\t{characters}\t6400\t{gender}')
                path = root / base / language / "audio" / split / name
                recording(path, audio, pitch=300 + 100 * number, seed=sentence)
            text(root / base / language / f"{split}.tsv", "\n".join(rows) + "\n")
    return root
