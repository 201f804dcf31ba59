"""Version 0.01 of Speech Commands in miniature: five words less."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts import speech_commands_v2

WORDS = speech_commands_v2.WORDS[:30]


def write(root: Path, *, audio: bool = True) -> Path:
    return speech_commands_v2.write(root, audio=audio, words=WORDS)
