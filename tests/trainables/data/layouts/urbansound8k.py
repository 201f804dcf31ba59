"""UrbanSound8K in miniature: two slices of one recording for each class in every fold."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

CLASSES = (
    *("air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling", "engine_idling", "gun_shot"),
    *("jackhammer", "siren", "street_music"),
)


def write(root: Path, *, audio: bool = True) -> Path:
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in range(1, 11):
        for number, name in enumerate(CLASSES):
            for piece in range(2):
                recorded = 1000 * fold + number
                file = f"{recorded}-{number}-0-{piece}.wav"
                rows.append(f"{file},{recorded},{17.5 + piece},{21.5 + piece},1,{fold},{number},{name}")
                recording(root / "audio" / f"fold{fold}" / file, audio, pitch=300 + 60 * number, seed=len(rows))
    text(root / "metadata" / "UrbanSound8K.csv", "\n".join(rows) + "\n")
    text(root / "UrbanSound8K_README.txt", "UrbanSound8K\n")
    return root
