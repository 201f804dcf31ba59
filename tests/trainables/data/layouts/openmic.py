"""OpenMIC-2018 in miniature: 40 clips of 20 artists to train on, 20 of others for the test; three annotations each."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

INSTRUMENTS = (
    *("accordion", "banjo", "bass", "cello", "clarinet", "cymbals", "drums", "flute", "guitar", "mallet_percussion"),
    *("mandolin", "organ", "piano", "saxophone", "synthesizer", "trombone", "trumpet", "ukulele", "violin", "voice"),
)


def write(root: Path, *, audio: bool = True) -> Path:
    """Clip n: instrument n clearly heard, n + 3 as often as not, n + 7 hardly (all modulo 20)."""
    labels = ["sample_key,instrument,relevance,num_responses"]
    metadata = ["track_id,artist_id,artist_name,track_title,sample_key,start_time"]
    parts: dict[str, list[str]] = {"train": [], "test": []}
    for number in range(60):
        track = 46 + 2500 * number
        key = f"{track:06d}_{3840 * (number % 3)}"
        for step, relevance in ((0, "0.94505"), (3, "0.5"), (7, "0.17105")):
            labels.append(f"{key},{INSTRUMENTS[(number + step) % 20]},{relevance},3")
        metadata.append(f'{track},{number // 2},"Somebody, {number // 2}","He said ""la""",{key},0.0')
        parts["train" if number < 40 else "test"].append(key)
        recording(root / "audio" / key[:3] / f"{key}.ogg", audio, pitch=250 + 40 * (number % 20), seed=number)
    text(root / "openmic-2018-aggregated-labels.csv", "\n".join(labels) + "\n")
    text(root / "openmic-2018-metadata.csv", "\n".join(metadata) + "\n")
    for name, keys in parts.items():
        text(root / "partitions" / f"split01_{name}.csv", "\n".join(keys) + "\n")
    return root
