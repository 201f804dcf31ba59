"""From one clip to one row of the feature cache, and from many clips at once."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from petl.frontend import AudioError, FrontEnd, decode, fbank
from trainables.data.clips import Clip

if TYPE_CHECKING:
    import numpy as np

MAX_FRAMES = 4096
"""Frames kept of a clip: the longest input that can be asked for (41 s)."""

_AHEAD = 4  # clips in flight per thread: bounds the memory, keeps the threads busy


@dataclass(frozen=True)
class Row:
    """Features of a clip as stored (float16, T x M; T = 0 when it cannot be used) and facts about them."""

    features_TM: np.ndarray
    frames: int = 0
    seconds: float = 0.0
    total: float = 0.0  # sum of the stored features,
    squares: float = 0.0  # and of their squares: mean and deviation of any split follow at once
    silent: bool = False
    reason: str = ""  # why it cannot be used
    detail: str = ""


def extract(clip: Clip, front_end: FrontEnd) -> Row:
    """Decode a clip and compute its raw log-mel features; what is wrong with it is in the row, not raised."""
    import numpy as np
    import torch

    # A little more than is kept, so that the end of the part does not show in the resampled last frame.
    limit = (MAX_FRAMES * front_end.hop + 2 * front_end.window) / front_end.sample_rate + (clip.start or 0.0)
    end = limit if clip.end is None else min(clip.end, limit)
    try:
        wave_S = decode(clip.path, front_end.sample_rate, clip.start, end)
        features_TM = fbank(wave_S, front_end)[:MAX_FRAMES].half()
        if not torch.isfinite(features_TM).all():
            raise AudioError("not finite", "its samples are so large that the features overflow")
    except AudioError as error:
        return Row(np.zeros((0, front_end.mel_bins), np.float16), reason=error.reason, detail=error.detail)
    wide_TM = features_TM.double()
    return Row(
        features_TM=features_TM.numpy(),
        frames=len(features_TM),
        seconds=len(wave_S) / front_end.sample_rate,
        total=float(wide_TM.sum()),
        squares=float(wide_TM.square().sum()),
        silent=not bool(wave_S.any()),
    )


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
