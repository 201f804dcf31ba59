"""Decoding every clip to the end, with nothing kept but facts (torch-free).

S samples of a block, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from petl.frontend import AudioError
from petl.frontend.audio import blocks, opened
from petl.frontend.base import WINDOW_SECONDS
from trainables.data.clips import Clip
from trainables.data.features import LENGTH_TOLERANCE, promised_seconds

_AT_ONCE = 500  # clips in the hands of the threads


@dataclass(frozen=True)
class Heard:
    """What is known of a clip that was decoded; `reason` as in `BadFile` where it cannot be used."""

    seconds: float = 0.0
    rate: int = 0  # Hz
    channels: int = 0
    silent: bool = False  # every sample is 0
    promised: float = 0.0  # seconds by its header; 0 where there is as much
    reason: str = ""
    detail: str = ""


def listen(clips: Sequence[Clip], workers: int, progress: Callable[[int, int], None] | None = None) -> list[Heard]:
    """Decode all clips with `workers` threads; `progress(done, total)` is called after each."""
    found: list[Heard] = []
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(clips), _AT_ONCE):
            for heard in pool.map(hear, clips[first : first + _AT_ONCE]):
                found.append(heard)
                if progress is not None:
                    progress(len(found), len(clips))
    return found


def hear(clip: Clip) -> Heard:
    """Decode one clip, a block at a time; judged like `petl.frontend.decode` does."""
    try:
        return _hear(clip)
    except AudioError as error:
        return Heard(reason=error.reason, detail=error.detail)


def _hear(clip: Clip) -> Heard:
    import numpy as np

    samples = broken = 0
    silent = True
    with opened(clip.path) as file:
        rate, channels, whole = file.samplerate, file.channels, promised_seconds(file)
        for block_SC in blocks(file, clip.path, clip.start, clip.end):
            mono_S = block_SC[:, 0] if channels == 1 else block_SC.mean(axis=1)
            samples += len(mono_S)
            broken += len(mono_S) - int(np.isfinite(mono_S).sum())
            silent = silent and not mono_S.any()
    if not samples:
        return Heard(reason="empty", detail="it holds no samples")
    if broken:
        return Heard(reason="not finite", detail=f"{broken} of {samples} samples are NaN or infinite")
    seconds = samples / rate
    if seconds < WINDOW_SECONDS:
        least = f"features need at least {1000 * WINDOW_SECONDS:.0f} ms"
        return Heard(seconds, rate, channels, reason="too short", detail=f"{1000 * seconds:.1f} ms; {least}")
    promised = min(whole, math.inf if clip.end is None else clip.end) - (clip.start or 0.0)
    return Heard(seconds, rate, channels, silent, promised if seconds < promised - LENGTH_TOLERANCE else 0.0)
