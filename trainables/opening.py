"""The data of a trial as its backbone reads them."""

from __future__ import annotations

from pathlib import Path

from petl.frontend import FrontEnd
from petl.hub import read_config, read_front_end
from petl.shape import AST_TYPE, BackboneShape
from trainables.config import TrialConfig
from trainables.data import AudioData, Busy, idle, open_repeats
from trainables.data.lengths import TokensOf
from trainables.data.progress import Progress


def open_for(
    config: TrialConfig, *, cache_root: Path | None = None, progress: Progress | None = None, busy: Busy = idle
) -> list[AudioData]:
    """Open the data of every repeat of a trial (see `trainables.data.open_data`)."""
    shape = BackboneShape.from_config(read_config(config.backbone, config.revision))
    return open_repeats(
        config.data,
        FrontEnd.from_preprocessor(read_front_end(config.backbone, config.revision)),
        cache_root=cache_root,
        progress=progress,
        busy=busy,
        waveforms=waveforms_needed(config),
        tokens=tokens_of(shape, config.time_stride),
        speed=config.aug.speed,
    )


def tokens_of(shape: BackboneShape, time_stride: int | None = None) -> TokensOf:
    """Tokens along time by the positions of the input that a clip fills: as many as `AudioModel.lengths` says."""

    def tokens(length: int) -> int:
        if shape.family == AST_TYPE:
            return max(1, (length - shape.patch) // (time_stride or shape.time_stride) + 1)
        return max(1, shape.tokens(length))

    return tokens


def waveforms_needed(config: TrialConfig) -> bool:
    """Whether training needs the waveforms themselves."""
    return config.aug.of_waveform
