"""ESC-50 in miniature: four of its classes, two of them in ESC-10; takes of one recording in every fold."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

CLASSES = {"dog": (0, True), "rain": (10, True), "door_wood_knock": (30, False), "can_opening": (34, False)}


def write(root: Path, *, audio: bool = True) -> Path:
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for name, (number, ten) in CLASSES.items():
            for source, take in ((0, "A"), (1, "A"), (1, "B")):
                recorded = 100000 * fold + 100 * number + source
                file = f"{fold}-{recorded}-{take}-{number}.wav"
                rows.append(f"{file},{fold},{number},{name},{ten},{recorded},{take}")
                recording(root / "audio" / file, audio, pitch=300 + 15 * number, seed=len(rows), rate=44100)
    text(root / "meta" / "esc50.csv", "\n".join(rows) + "\n")
    return root
