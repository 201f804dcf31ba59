"""Audio SNIPS in miniature: two voices, three sentences of every split."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

VOICES = ("Amy", "Joey")
_SENTENCES = (
    (
        "add step to me to the 50 clásicos playlist",
        "O entity_name entity_name entity_name O O playlist playlist O",
        "AddToPlaylist",
    ),
    ("rate Guns & Roses , five ?", "O object_name object_name object_name O rating_value O", "RateBook"),
    ("what is the weather in Rome", "O O O O O city", "GetWeather"),
)
_SLOTS = ("O", "entity_name", "playlist", "object_name", "rating_value", "city")


def write(root: Path, *, audio: bool = True) -> Path:
    rows = []
    for split in ("train", "valid", "test"):
        for voice in VOICES:
            for number, (words, slots, intent) in enumerate(_SENTENCES):
                name = f"{voice}-snips-{split}-{number}"
                rows.append(f"{name} BOS {words} EOS\tO {slots} {intent}")
                recording(root / split / f"{name}.wav", audio, pitch=300 + 150 * number, seed=len(rows))
    text(root / "all.iob.snips.txt", "\n".join(rows) + "\n")
    text(root / "slots.txt", "\n".join(_SLOTS) + "\n")
    return root
