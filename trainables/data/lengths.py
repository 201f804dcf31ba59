"""How long the input is when nobody asks for a length, and how much of it a clip fills."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from petl.frontend import FrontEnd, WaveformFrontEnd
from trainables.config import DataOptions
from trainables.data.features import MAX_FRAMES
from trainables.data.planning import DataPlan

if TYPE_CHECKING:
    import numpy as np

TokensOf = Callable[[int], int]
"""How many tokens along time a backbone makes of so many input positions (see `filled`)."""

_CUT_SHARE = 0.01  # of the clips that may be cut then, so that two long ones do not make all the others longer


def input_length(plan: DataPlan, options: DataOptions, frames_N: np.ndarray, front_end: FrontEnd) -> int:
    """Frames of the longest input when nobody asks for a length, from the frames of every clip of the plan.

    What trains and validates decides: recordings of the test may not change what is learned. They count where they
    only keep a transcript from being cut, and nothing else becomes longer for it.
    """
    splits = plan.splits
    learned = sorted(frames_N[[*splits.train, *splits.val] or [*splits.test]].tolist())
    # A transcript belongs to the whole of its clip, so that sequences are not cut while there is room.
    cut = 0 if plan.output.sequence else int(_CUT_SHARE * len(learned))
    frames = front_end.nearest_length(learned[len(learned) - 1 - cut])
    if plan.output.sequence and front_end.backbone_frames is None:
        fixed = options.padding == "fixed" or (isinstance(front_end, WaveformFrontEnd) and front_end.fixed)
        longest = learned[-1] if fixed else max(learned[-1], *frames_N[[*splits.test]].tolist())
        frames = max(frames, min(longest, MAX_FRAMES))
    return frames


def filled(front_end: FrontEnd, rows: int) -> int:
    """Positions of the input, as its mask counts them, that a clip of so many cached rows fills.

    They are samples of waveforms, else frames.
    """
    if isinstance(front_end, WaveformFrontEnd):
        return min(rows, front_end.rows(front_end.frames))
    return min(front_end.frames_in(rows), front_end.frames)
