"""Speech Commands in miniature: every word by five speakers, one for validation, one for the test; a noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from tests.trainables.data.layouts.recordings import recording, text

WORDS = (
    *("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"),
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow"),
    *("backward", "follow", "forward", "learn", "visual"),
)
SPEAKERS = {"train": ("0a7c2a8d", "1b4c9b89", "f2e59fea"), "validation": ("3c257192",), "testing": ("a69b9b3e",)}


def write(root: Path, *, audio: bool = True, words: tuple[str, ...] = WORDS) -> Path:
    lists: dict[str, list[str]] = {name: [] for name in SPEAKERS}
    for number, word in enumerate(words):
        for name, speakers in SPEAKERS.items():
            for speaker in speakers:
                file = f"{word}/{speaker}_nohash_0.wav"
                lists[name].append(file)
                recording(root / file, audio, pitch=250 + 20 * number, seed=number)
    for name in ("validation", "testing"):
        text(root / f"{name}_list.txt", "\n".join(lists[name]) + "\n")
    noise_S = 0.1 * np.random.default_rng(0).standard_normal(15 * 4000)
    (root / "_background_noise_").mkdir()
    soundfile.write(root / "_background_noise_" / "white_noise.wav", noise_S, 4000, subtype="PCM_16")
    text(root / "_background_noise_" / "README.md", "noise\n")
    text(root / "LICENSE", "Creative Commons Attribution 4.0\n")
    return root


def write_test_archive(root: Path, name: str = "speech_commands_test_set_v0.02") -> Path:
    """The test set of the task with twelve classes, unpacked."""
    for word in (*WORDS[:10], "_unknown_"):
        recording(root / name / word / "a69b9b3e_nohash_0.wav", False)
    for number in range(2):
        recording(root / name / "_silence_" / f"{number}.wav", False)
    return root / name
