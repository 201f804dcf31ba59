"""VCTK in miniature: twelve speakers with ten sentences."""

from __future__ import annotations

from pathlib import Path

from tests.trainables.data.layouts.recordings import recording, text

SPEAKERS = ("p225", "p226", "p227", "p228", "p229", "p280", "p315", "p360", "p361", "p362", "p363", "s5")
_HEAD = "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\n"


def write(root: Path, *, audio: bool = True, version: str = "0.92") -> Path:
    """Version 0.92 (two microphones, .flac of 48 kHz, p280 with one, no text of p315) or 0.80 (.wav, no s5)."""
    new = version == "0.92"
    for place, speaker in enumerate(SPEAKERS):
        if speaker == "s5" and not new:
            continue
        for number in range(1, 11):
            name, seed, pitch = f"{speaker}_{number:03d}", 10 * place + number, 200 + 80 * place
            if new:
                for microphone in ("mic1", "mic2") if speaker != "p280" else ("mic1",):
                    path = root / "wav48_silence_trimmed" / speaker / f"{name}_{microphone}.flac"
                    recording(path, audio, pitch=pitch, seed=seed, rate=48000)
            else:
                recording(root / "wav48" / speaker / f"{name}.wav", audio, pitch=pitch, seed=seed, rate=48000)
            if speaker != "p315":
                text(root / "txt" / speaker / f"{name}.txt", f"Please call Stella {number}. \n")
    text(root / "wav48_silence_trimmed" / "log.txt", "trimmed") if new else None
    text(root / "speaker-info.txt", _HEAD + "p225  23  F    English    Southern  England\n")
    return root
