"""From one clip to one row of the feature cache, and from many clips at once."""

from __future__ import annotations

import contextlib
import math
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from petl.frontend import AudioError, FrontEnd, decode
from trainables.data.clips import Clip

if TYPE_CHECKING:
    import numpy as np
    from soundfile import SoundFile
    from torch import Tensor

MAX_FRAMES = 4096
"""Frames kept of a clip: the longest input that can be asked for (41 s)."""

_AHEAD = 4  # clips in flight per thread: bounds the memory, keeps the threads busy
AGAIN = "; tried again next time"
"""How the details of a clip end that could not be read for a fault that may not be the file's."""

_DETAIL = 200  # characters of an unforeseen error

LENGTH_TOLERANCE = 0.1  # seconds that a header may be wrong by: lengths of compressed files are rounded to blocks
_DATA_SIZE = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_STREAMED = 0x7FFF0000  # bytes; who writes to a pipe does not know the size and puts in the largest one
_ENDLESS = 1e7  # seconds; libsndfile's answer where a header gives no length

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
    truncated: bool = False  # the header promises more than there is
    scale: float = 1.0  # what stored whole numbers are multiplied by
    reason: str = ""  # why it cannot be used
    detail: str = ""


def extract(clip: Clip, front_end: FrontEnd) -> Row:
    """Decode a clip and compute its rows; what is wrong with it is in the row, never raised."""
    import numpy as np

    try:
        return _extract(clip, front_end)
    except AudioError as error:
        reason, detail, passing = str(error.reason), error.detail, error.passing
    except Exception as error:  # whatever a decoder does on one file must not end the work on all others
        reason, detail = "unreadable", " ".join(f"{type(error).__name__}: {error}".split())[:_DETAIL]
        passing = isinstance(error, (OSError, MemoryError)) or "allocate memory" in str(error)  # torch's own way
    detail += AGAIN if passing else ""
    return Row(np.zeros((0, front_end.width), front_end.storage), reason=reason, detail=detail)


def _extract(clip: Clip, front_end: FrontEnd) -> Row:
    import torch

    # A little more than is kept, so that the end of the part does not show in the resampled last frame.
    limit = (MAX_FRAMES * front_end.hop + 2 * front_end.window) / front_end.sample_rate + (clip.start or 0.0)
    end = limit if clip.end is None else min(clip.end, limit)
    wave_S = decode(clip.path, front_end.sample_rate, clip.start, end)
    features_TM = front_end.extract(wave_S)[: front_end.rows(MAX_FRAMES)]
    stored_TM, scale = packed(features_TM, front_end.storage)
    # Whole numbers are always finite, whatever they were made of; half precision overflows earlier.
    if not (torch.isfinite(features_TM).all() and torch.isfinite(stored_TM).all() and math.isfinite(scale)):
        raise AudioError("not finite", "its samples are so large that the features overflow")
    wide_TM = stored_TM.double() if front_end.storage == "float16" else stored_TM.new_zeros(0)
    seconds = len(wave_S) / front_end.sample_rate
    promised = min(_promised(clip), end) - (clip.start or 0.0)
    return Row(
        features_TM=stored_TM.numpy(),
        frames=front_end.frames_in(len(stored_TM)),
        seconds=seconds,
        total=float(wide_TM.sum()),
        squares=float(wide_TM.square().sum()),
        silent=not bool(wave_S.any()),
        truncated=seconds < promised - LENGTH_TOLERANCE,
        scale=scale,
    )


def _promised(clip: Clip) -> float:
    """Seconds of the whole recording by its header; 0 where that does not say."""
    import soundfile

    try:
        with soundfile.SoundFile(str(clip.path)) as file:
            return promised_seconds(file)
    except (soundfile.SoundFileError, OSError, ValueError, TypeError):
        return 0.0


def promised_seconds(file: SoundFile) -> float:
    """Length of an open recording by its header; 0 where that does not say."""
    seconds: float = file.frames / file.samplerate
    # Of uncompressed files libsndfile counts what is there, and notes what the header says in its log.
    for said, found in _DATA_SIZE.findall(file.extra_info):
        if int(found) < int(said) < _STREAMED:
            seconds *= int(said) / max(1, int(found))
    return seconds if seconds < _ENDLESS else 0.0


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


def computed(jobs: Iterable[Callable[[], Row]], workers: int) -> Generator[Row, None, None]:
    """Yield what the jobs return, in their order, computed by `workers` threads a few jobs ahead.

    Decoding and the transforms release the interpreter, so threads do (`benchmarks/feature_cache.py`); torch's own
    threads are held at one meanwhile, or they would fight over the same cores.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = iter(jobs)
        flying: deque[Future[Row]] = deque()
        while True:
            for job in islice(waiting, workers * _AHEAD - len(flying)):
                flying.append(pool.submit(job))
            if not flying:
                return
            yield flying.popleft().result()
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
