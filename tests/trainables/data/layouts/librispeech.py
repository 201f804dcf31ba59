"""LibriSpeech in miniature: three parts, and a lexicon beside them."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

PARTS = {
    "train-clean-100": (("103", "1240"), ("19", "198")),
    "dev-clean": (("84", "121123"),),
    "test-clean": (("61", "70968"),),
}
_TEXTS = ("HE'D SEEN TWO", "TWO WORDS SEEN", "WORDS HE'D SEEN", "SEEN TWO WORDS AGAIN")
LEXICON = "HE'D\tHH IY1 D\nSEEN  S IY1 N\nSEEN  S IY0 N\nTWO  T UW1\nWORDS  W ER1 D Z\nAGAIN AH0 G EH1 N\n"


def write(root: Path, *, audio: bool = True) -> Path:
    """Four utterances of every chapter; `librispeech-lexicon.txt` lies beside the folder LibriSpeech."""
    for part, chapters in PARTS.items():
        for speaker, chapter in chapters:
            folder = root / "LibriSpeech" / part / speaker / chapter
            rows = []
            for number, words in enumerate(_TEXTS):
                name = f"{speaker}-{chapter}-{number:04d}"
                recording(folder / f"{name}.flac", audio, pitch=200 + int(speaker), seed=number)
                rows.append(f"{name} {words}")
            text(folder / f"{speaker}-{chapter}.trans.txt", "\n".join(rows) + "\n")
    text(root / "LibriSpeech" / "SPEAKERS.TXT", "; some pipe-separated facts\n")
    text(root / "librispeech-lexicon.txt", LEXICON)
    return root
