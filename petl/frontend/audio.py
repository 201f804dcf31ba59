"""Decoding recordings: any format libsndfile reads, mono, at the rate a backbone wants (torch on first use only).

S samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from petl.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from soundfile import SoundFile
    from torch import Tensor

_KERNEL = 10_000_000  # numbers of a filter that is still quick and small
_OFF = 1e-5  # how far a rate may be off: a tenth of a millisecond in ten seconds

_SYSTEM = 2  # libsndfile's code for an error of the system: no right to read, no handle left, a broken disk

_BLOCK = 1 << 20  # samples decoded at a time when a header cannot be trusted

AudioFault = Literal["unreadable", "empty", "not finite", "too short"]


class AudioError(UserError):
    """One recording cannot be used. `reason` is the kind of fault, `detail` the finding, `path` the file.

    `passing`: the fault may be the system's (its disk, its memory), so that another try may find none.
    """

    def __init__(self, reason: AudioFault, detail: str, path: str | Path | None = None, passing: bool = False) -> None:
        self.reason: AudioFault = reason
        self.passing = passing
        self.detail = detail
        self.path = None if path is None else str(path)
        super().__init__(f"{reason}: {detail}" if path is None else f"{path}: {reason}: {detail}")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.detail, self.path, self.passing)


def decode(path: str | Path, sample_rate: int, start: float | None = None, end: float | None = None) -> Tensor:
    """Read a recording as mono float32 in [-1, 1], shape (S,), at `sample_rate` Hz.

    Anything libsndfile reads (wav, flac, ogg, mp3, ...), any rate, any number of channels (averaged).
    `start` and `end` in seconds select a part, and only that part is read; an `end` behind the end of the
    recording means its end. Raises `AudioError`: unreadable, empty, not finite.
    """
    import numpy as np
    import torch
    from torchaudio.functional import resample

    with opened(path) as file:
        rate = file.samplerate
        read = list(blocks(file, path, start, end))
    if not read:
        raise AudioError("empty", "it holds no samples", path)
    samples_SC = read[0] if len(read) == 1 else np.concatenate(read)
    wave_S = torch.from_numpy(samples_SC)
    wave_S = wave_S[:, 0] if wave_S.shape[1] == 1 else wave_S.mean(1)
    if not torch.isfinite(wave_S).all():
        bad = int((~torch.isfinite(wave_S)).sum())
        raise AudioError("not finite", f"{bad} of {len(wave_S)} samples are NaN or infinite", path)
    given, wanted = _ratio(rate, sample_rate, path)
    return resample(wave_S, given, wanted).contiguous()


def _ratio(rate: int, wanted: int, path: str | Path | None = None) -> tuple[int, int]:
    """Two small numbers that are to each other as the rates are, or nearly so.

    The filter of rates with few common factors would not fit into memory: torchaudio has one for every phase.
    """
    exact = nearby = Fraction(rate, wanted)
    while _kernel(nearby) > _KERNEL and nearby.denominator > 1:
        nearby = exact.limit_denominator(nearby.denominator // 2)
    if not nearby or _kernel(nearby) > _KERNEL or abs(nearby / exact - 1) > _OFF:
        raise AudioError("unreadable", f"{rate:,} Hz cannot be resampled to {wanted:,} Hz; convert it", path)
    return nearby.numerator, nearby.denominator


def _kernel(ratio: Fraction) -> int:
    """Numbers in torchaudio's filters from a rate of `numerator` to one of `denominator`."""
    given, wanted = ratio.numerator, ratio.denominator
    return wanted * (given + 14 * math.ceil(given / max(1, min(given, wanted))))


@contextmanager
def opened(path: str | Path) -> Iterator[SoundFile]:
    """A recording to read from; whatever goes wrong with it, in here too, is raised as `AudioError` (torch-free)."""
    import soundfile

    if not Path(path).is_file():
        raise AudioError("unreadable", "there is no such file", path, passing=True)
    if Path(path).stat().st_size == 0:
        raise AudioError("empty", "the file has 0 bytes", path)
    try:
        with soundfile.SoundFile(str(path)) as file:
            yield file
    except (soundfile.SoundFileError, OSError, ValueError, TypeError, MemoryError) as error:
        passing = isinstance(error, (OSError, MemoryError)) or getattr(error, "code", 0) == _SYSTEM
        raise AudioError("unreadable", _first_line(error), path, passing) from None


def blocks(
    file: SoundFile, path: str | Path, start: float | None = None, end: float | None = None
) -> Iterator[np.ndarray]:
    """Samples (S, channels) of an open file, of the part asked for, some at a time; nothing where there are none."""
    first = round((start or 0.0) * file.samplerate)
    if first < 0 or (end is not None and end <= (start or 0.0)):
        raise AudioError("empty", f"nothing lies between {start or 0.0:g} s and {end} s", path)
    if first:
        if first >= file.frames:
            length = file.frames / file.samplerate
            raise AudioError("empty", f"start {start:g} s is not before its end at {length:.3f} s", path)
        file.seek(first)
    wanted = None if end is None else round(end * file.samplerate) - first
    # The length in a damaged header can be anything, so it is never trusted with an allocation.
    while wanted is None or wanted > 0:
        block = file.read(_BLOCK if wanted is None else min(_BLOCK, wanted), dtype="float32", always_2d=True)
        if not len(block):
            return
        yield block
        wanted = None if wanted is None else wanted - len(block)


def _first_line(error: BaseException) -> str:
    """What libsndfile says, without the object and the path in front of it."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.rpartition(": ")[2].rstrip(".") if text.startswith("Error opening") else text
