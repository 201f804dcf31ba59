"""AudioSet in miniature: four of its classes, three lists, files named in several of the ways that are about."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

CLASSES = {
    "/m/09x0r": "Speech",
    "/m/05zppz": "Male speech, man speaking",
    "/m/0bt9lr": "Dog",
    "/m/04rlf": "Music",
}
_LISTS = {"balanced_train_segments": 12, "unbalanced_train_segments": 8, "eval_segments": 6}
_NAMES = ("{}.wav", "Y{}.wav", "{}_30.000_40.000.flac")


def write(root: Path, *, audio: bool = True) -> Path:
    mids = tuple(CLASSES)
    for place, (name, count) in enumerate(_LISTS.items()):
        rows = [
            "# Segments csv created Sun Mar  5 10:54:31 2017",
            f"# num_ytids={count}, num_segs={count}, num_unique_labels=4, num_positive_labels={2 * count}",
            "# YTID, start_seconds, end_seconds, positive_labels",
        ]
        for number in range(count):
            video = f"-Y_{name[:3]}{number:05d}"
            rows.append(f'{video}, 30.000, 40.000, "{mids[number % 4]},{mids[(number + 1) % 4]}"')
            file = _NAMES[place].format(video)
            recording(root / "audio" / name / file, audio, pitch=300 + 150 * (number % 4), seed=100 * place + number)
        text(root / f"{name}.csv", "\n".join(rows) + "\n")
    shown = [f'{n},{mid},"{title}"' for n, (mid, title) in enumerate(CLASSES.items())]
    text(root / "class_labels_indices.csv", "\n".join(("index,mid,display_name", *shown)) + "\n")
    return root
