"""VoxPopuli in miniature, as its own scripts cut it or as the hub has it."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

_COUNTS = {"train": 4, "dev": 2, "test": 2}
_PUBLISHED = ("id", "raw_text", "normalized_text", "speaker_id", "split", "gender")


def write(root: Path, *, audio: bool = True, hub: bool = False) -> Path:
    """The first utterance of train has no normalised text; texts hold lone quotes."""
    header = [*_PUBLISHED, "is_gold_transcript", "accent"] if hub else list(_PUBLISHED)
    home = root / "data" / "en" if hub else root / "transcribed_data" / "en"
    for split, count in _COUNTS.items():
        rows = ["\t".join(header)]
        for number in range(count):
            name = f"20{11 + number}0114-0900-PLENARY-{number}-en_20110114-17:12:3{number}_{len(split)}"
            normal = "" if split == "train" and number == 0 else f'he said "no to number {number}'
            speaker = "None" if number == 1 else f"{4500 - 100 * len(split) + number}"  # nobody is in two splits
            values = [name, f'He said "No to number {number}.', normal, speaker, split, "female"]
            rows.append("\t".join([*values, "True", "None"] if hub else values))
            path = home / split / f"{split}_part_0" / f"{name}.wav" if hub else home / name[:4] / f"{name}.ogg"
            recording(path, audio, pitch=300 + 100 * number, seed=number)
        text(home / f"asr_{split}.tsv", "\n".join(rows) + "\n")
    return root
