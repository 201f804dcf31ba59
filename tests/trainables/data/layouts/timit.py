"""TIMIT in miniature: two speakers of the training half, four of the test half."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import sphere, text

TRAIN = (("DR1", "FCJF0"), ("DR2", "MARC0"))
TEST = (("DR1", "MDAB0"), ("DR1", "FAKS0"), ("DR2", "FPAS0"), ("DR1", "MSJS1"))  # core, dev, core, neither
SENTENCES = ("SA1", "SA2", "SI1027", "SX37")
_PHONES = ["h#", "sh", "ix", "hv", "eh", "dcl", "d", "y", "ax-h", "q", "ao", "r", "dcl", "jh", "ih", "n", "pau", "h#"]


def write(root: Path, *, audio: bool = True, lower: bool = False) -> Path:
    """In upper case as published, or in lower case as many copies are."""
    for half, speakers in (("TRAIN", TRAIN), ("TEST", TEST)):
        for place, (region, speaker) in enumerate(speakers):
            for number, sentence in enumerate(SENTENCES):
                name = f"{half}/{region}/{speaker}/{sentence}"
                stem = root / (name.lower() if lower else name)
                phones = "".join(f"{350 * i} {350 * (i + 1)} {phone}\n" for i, phone in enumerate(_PHONES))
                sphere(stem.with_suffix(".wav" if lower else ".WAV"), audio, pitch=300 + 100 * place, seed=number)
                text(stem.with_suffix(".phn" if lower else ".PHN"), phones)
                text(stem.with_suffix(".txt" if lower else ".TXT"), "0 6300 She had your dark suit.\n")
    return root
