"""Real audio files for the tests, made with soundfile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def tone(
    path: Path, seconds: float = 0.3, rate: int = 16000, channels: int = 1, pitch: float = 440.0, seed: int = 0
) -> Path:
    """Write a noisy tone; the container follows the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = round(seconds * rate)
    time_S = np.arange(samples) / rate
    noise_S = 0.05 * np.random.default_rng(seed).standard_normal(samples)
    wave_SC = np.stack([0.3 * np.sin(2 * np.pi * pitch * (c + 1) * time_S) + noise_S for c in range(channels)], axis=1)
    soundfile.write(path, wave_SC.astype(np.float32), rate)
    return path


def class_folders(root: Path, classes: int = 3, clips: int = 6, seconds: float = 0.2) -> Path:
    """A folder per class, every clip different."""
    for c in range(classes):
        for i in range(clips):
            tone(root / f"class{c}" / f"clip{i}.wav", seconds, pitch=300 + 200 * c, seed=100 * c + i)
    return root


def esc50(root: Path, classes: int = 2, folds: int = 5, per_fold: int = 4, write: bool = True) -> Path:
    """ESC-50's layout; clips 0 and 1 of every fold come from one source recording."""
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, folds + 1):
        for c in range(classes):
            for i in range(per_fold):
                source = 1000 * fold + 100 * c + max(i, 1)
                name = f"{fold}-{source}-{'ABCDEFGH'[i]}-{c}.wav"
                lines.append(f"{name},{fold},{c},kind{c},True,{source},{'ABCDEFGH'[i]}")
                if write:
                    tone(root / "audio" / name, 0.1, pitch=300 + 200 * c, seed=source + i)
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir(exist_ok=True)
    (root / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    return root
