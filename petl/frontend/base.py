"""What all front ends have in common.

A clip passes three steps, so that the costly ones run once per clip and the cheap one per batch: `decode` (file ->
waveform), `extract` (waveform -> rows worth keeping) and `collate` (rows of several clips -> `ModelInput`). Where
waveforms change from batch to batch, `collate_waveforms` is the last two at once, on their device. Lengths are counted
in *frames* of 10 ms everywhere (`hop` samples), whatever a row is.

Shapes: S samples, T rows of a clip, M numbers per row, B clips.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from petl.errors import UserError
from petl.frontend.audio import AudioError, decode
from petl.frontend.inputs import ModelInput
from petl.shape import BackboneShape

if TYPE_CHECKING:
    from torch import Tensor

WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010
_RATES = (1_000, 768_000)  # Hz, from what nobody hears anything in to the fastest converters


class FrontEnd(ABC):
    """What turns audio into the input of one backbone. `frames` is the longest input it gives.

    Subclasses are frozen dataclasses. `kind` is transformers' `feature_extractor_type`; `storage` the number format
    in which a cache may keep rows (see `trainables.data.features`); `spectrogram` whether the input has a frequency
    axis that SpecAugment can mask, `time_axis` where its time axis is then; `shortest` and `longest` bound the
    length that is chosen when nobody asks for one.
    """

    kind: ClassVar[str]
    storage: ClassVar[Literal["float16", "int16"]] = "float16"
    spectrogram: ClassVar[bool] = True
    time_axis: ClassVar[int] = 1
    shortest: ClassVar[int]

    sample_rate: int
    frames: int

    @property
    def window(self) -> int:
        """Samples of 25 ms: nothing shorter can be used."""
        return int(self.sample_rate * WINDOW_SECONDS)

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return int(self.sample_rate * HOP_SECONDS)

    @property
    @abstractmethod
    def longest(self) -> int:
        """Frames that are used at most when the length is taken from the clips."""

    @property
    @abstractmethod
    def width(self) -> int:
        """M, the numbers of one row."""

    @property
    def masked(self) -> bool:
        """Whether the backbone is told which positions are padding."""
        return False

    @property
    def backbone_frames(self) -> int | None:
        """The `frames` to load the backbone with; None when its input can have any length."""
        return self.frames

    @property
    def zero(self) -> float:
        """What a value of 0 before the normalisation is after it, for spectrograms."""
        return 0.0

    @property
    @abstractmethod
    def normalisation(self) -> str:
        """How values are scaled, in words."""

    @abstractmethod
    def frames_of(self, samples: int) -> int:
        """Frames of a waveform of `samples` samples."""

    @abstractmethod
    def rows(self, frames: int) -> int:
        """Rows that a clip of `frames` frames has: T."""

    @abstractmethod
    def frames_in(self, rows: int) -> int:
        """Frames of a clip of T rows."""

    @abstractmethod
    def extract(self, waveform_S: Tensor) -> Tensor:
        """What is worth keeping of a clip, before anything that depends on other clips or on the length: (T, M).

        Raises `AudioError` (too short) for less than 25 ms.
        """

    @abstractmethod
    def collate(self, rows: Sequence[Tensor]) -> ModelInput:
        """A batch of clips, each (T, M) as `extract` gave it, cut or padded, and normalised."""

    @abstractmethod
    def samples_in(self, frames: int) -> int:
        """Samples of a clip that its first `frames` frames depend on: what is behind them may be cut off."""

    @abstractmethod
    def collate_waveforms(self, waves_BS: Tensor, lengths_B: Tensor) -> ModelInput:
        """The batch that `collate` makes of what `extract` gives of each clip, on the device of the waveforms.

        Clip b is the first `lengths_B[b]` samples of `waves_BS[b]` (float32); what is behind them is not looked at.
        Keep `lengths_B` on the CPU, or the device is waited for. Raises `AudioError` (too short) for less than 25 ms.
        Equal up to the rounding of sums.
        """

    @abstractmethod
    def to_preprocessor(self) -> dict[str, Any]:
        """The contents of a `preprocessor_config.json` that gives this front end again."""

    @classmethod
    @abstractmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """The reverse of `to_preprocessor`; what is left out has transformers' default."""

    @abstractmethod
    def check(self, shape: BackboneShape) -> None:
        """Raise `UserError` when the input is not what a backbone of this shape takes."""

    @abstractmethod
    def _identity(self) -> dict[str, Any]:
        """Everything that the rows depend on."""

    def digest(self) -> str:
        """Name of the rows: equal when `decode` and `extract` would give equal numbers."""
        return hashlib.sha256(json.dumps(self._identity(), sort_keys=True).encode()).hexdigest()[:16]

    def with_frames(self, frames: int) -> Self:
        """The same for another length of input; `UserError` when it cannot have that."""
        return replace(self, frames=frames)  # type: ignore[type-var]

    def nearest_length(self, frames: int) -> int:
        """The length to use for clips of `frames` frames when nobody asks for one."""
        return max(self.shortest, min(frames, self.longest))

    def describe(self) -> dict[str, Any]:
        """Plain facts for reports."""
        return {
            "front_end": self.kind,
            "sample_rate": self.sample_rate,
            "frames": self.frames,
            "normalisation": self.normalisation,
        }

    @staticmethod
    def from_preprocessor(values: Mapping[str, Any]) -> FrontEnd:
        """Read the contents of a `preprocessor_config.json`; what is left out has transformers' default.

        Raises `UserError` for a kind of feature extractor that is not known or for values of the wrong type.
        """
        from petl.frontend.kinds import class_of

        return class_of(values).read(values)

    def _long_enough(self, samples: int) -> None:
        if samples < self.window:
            raise AudioError(
                "too short",
                f"{1000 * samples / self.sample_rate:.1f} ms; features need at least {1000 * WINDOW_SECONDS:.0f} ms",
            )

    def _positive(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise UserError(f"front end: {name} is {getattr(self, name)}; it must be at least 1")

    def _frames_have_samples(self) -> None:
        """And not so many that a few seconds of them fill the memory."""
        least, most = _RATES
        if not least <= self.sample_rate <= most:
            raise UserError(
                f"front end: sample_rate is {self.sample_rate} (sampling_rate in preprocessor_config.json); it must be "
                f"from {least:,} to {most:,} Hz"
            )

    def _check_size(self, shape: BackboneShape, mel_bins: int) -> None:
        """For front ends of spectrograms: their frames and mel bins must be the backbone's."""
        if (self.frames, mel_bins) != (shape.max_frames, shape.mel_bins):
            raise UserError(
                f"the front end gives {self.frames} frames of {mel_bins} mel bins, but the "
                f"backbone was loaded for {shape.max_frames} of {shape.mel_bins}; "
                f"load it with load_backbone(…, frames={self.frames})"
            )

    def _wrong_input(self, wanted: str) -> UserError:
        return UserError(
            f"preprocessor_config.json names a {self.kind}, but the backbone takes {wanted}; use the "
            "preprocessor_config.json that belongs to the backbone"
        )


def whole(values: Mapping[str, Any], key: str, default: int) -> int:
    """A whole number of a `preprocessor_config.json`; `UserError` names the key."""
    value = values.get(key, default)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = int(value)
        if isinstance(value, str) or number == value:
            return number
    raise UserError(f"preprocessor_config.json: {key} is {value!r}; a whole number is needed")


def number(values: Mapping[str, Any], key: str, default: float) -> float:
    """A finite number of a `preprocessor_config.json`; `UserError` names the key."""
    value = values.get(key, default)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        found = float(value)
        if math.isfinite(found):
            return found
    raise UserError(f"preprocessor_config.json: {key} is {value!r}; a finite number is needed")


def clip_features(
    path: str | Path, front_end: FrontEnd, start: float | None = None, end: float | None = None
) -> Tensor:
    """`decode` and `extract` in one: the rows (T, M) of a recording, with the path in every `AudioError`."""
    waveform_S = decode(path, front_end.sample_rate, start, end)
    try:
        return front_end.extract(waveform_S)
    except AudioError as error:
        raise AudioError(error.reason, error.detail, path) from None
