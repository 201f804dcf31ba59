"""From one clip to one row of the feature cache, and from many clips at once."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from petl.frontend import AudioError, FrontEnd, decode
from trainables.data.clips import Clip

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MAX_FRAMES = 4096
"""Frames kept of a clip: the longest input that can be asked for (41 s)."""

_AHEAD = 4  # clips in flight per thread: bounds the memory, keeps the threads busy


_PCM = 32768  # steps of a 16-bit recording from 0 to full scale


@dataclass(frozen=True)
class Row:
    """A clip as stored (T x M, see `packed`; T = 0 when it cannot be used) and facts about it."""

    features_TM: np.ndarray
    frames: int = 0
    seconds: float = 0.0
    total: float = 0.0  # sum of the stored features,
    squares: float = 0.0  # and of their squares: mean and deviation of any split follow at once
    silent: bool = False
    scale: float = 1.0  # what stored whole numbers are multiplied by
    reason: str = ""  # why it cannot be used
    detail: str = ""


def extract(clip: Clip, front_end: FrontEnd) -> Row:
    """Decode a clip and compute its rows; what is wrong with it is in the row, not raised."""
    import numpy as np
    import torch

    # A little more than is kept, so that the end of the part does not show in the resampled last frame.
    limit = (MAX_FRAMES * front_end.hop + 2 * front_end.window) / front_end.sample_rate + (clip.start or 0.0)
    end = limit if clip.end is None else min(clip.end, limit)
    try:
        wave_S = decode(clip.path, front_end.sample_rate, clip.start, end)
        features_TM = front_end.extract(wave_S)[: front_end.rows(MAX_FRAMES)]
        stored_TM, scale = packed(features_TM, front_end.storage)
        # Whole numbers are always finite, whatever they were made of; half precision overflows earlier.
        if not (torch.isfinite(features_TM).all() and torch.isfinite(stored_TM).all() and math.isfinite(scale)):
            raise AudioError("not finite", "its samples are so large that the features overflow")
    except AudioError as error:
        nothing = np.zeros((0, front_end.width), front_end.storage)
        return Row(nothing, reason=error.reason, detail=error.detail)
    wide_TM = stored_TM.double() if front_end.storage == "float16" else stored_TM.new_zeros(0)
    return Row(
        features_TM=stored_TM.numpy(),
        frames=front_end.frames_in(len(stored_TM)),
        seconds=len(wave_S) / front_end.sample_rate,
        total=float(wide_TM.sum()),
        squares=float(wide_TM.square().sum()),
        silent=not bool(wave_S.any()),
        scale=scale,
    )


def packed(features_TM: Tensor, storage: str) -> tuple[Tensor, float]:
    """Features in the format they are kept in, and the scale of whole numbers.

    "float16" rounds (log-mel values keep 11 bits). "int16" is for waveforms: samples of recordings of up to 16 bits
    keep every bit; others are divided into 32767 steps from 0 to the clip's own peak (one too small for that is 0).
    """
    import torch

    if storage == "float16":
        return features_TM.half(), 1.0
    steps_TM = features_TM * _PCM  # a power of two: exact
    scale = 1 / _PCM
    if bool((steps_TM.frac() != 0).any()) or float(steps_TM.min()) < -_PCM or float(steps_TM.max()) >= _PCM:
        scale = float(features_TM.abs().max()) / (_PCM - 1)
        if scale < torch.finfo(torch.float32).tiny:  # nothing to divide by: as good as silence
            return torch.zeros_like(features_TM, dtype=torch.int16), 1 / _PCM
        steps_TM = (features_TM / scale).round()
    return steps_TM.to(torch.int16), scale


def extract_all(
    clips: Sequence[Clip],
    front_end: FrontEnd,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Row]:
    """Yield the rows in the order of the clips, computed by `workers` threads a few clips ahead.

    Decoding and the transforms release the interpreter, so threads do; torch's own threads are held at one
    meanwhile, or they would fight over the same cores.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = iter(clips)
        flying: deque[Future[Row]] = deque()
        for done in range(len(clips)):
            for clip in islice(waiting, workers * _AHEAD - len(flying)):
                flying.append(pool.submit(extract, clip, front_end))
            row = flying.popleft().result()
            if progress is not None:
                progress(done + 1, len(clips))
            yield row
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def seconds_of(clip: Clip) -> float:
    """Length of a clip by its header, 0 when that cannot be read: good enough to ask for disk space."""
    import soundfile

    with contextlib.suppress(soundfile.SoundFileError, OSError, ValueError, TypeError):
        length = soundfile.info(str(clip.path)).duration
        return max(0.0, min(length, clip.end or length) - (clip.start or 0.0))
    return 0.0
