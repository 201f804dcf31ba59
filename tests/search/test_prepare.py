"""What is refused before a search starts because it does not fit the kind of backbone."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import pytest
from rich.console import Console

from petl.errors import UserError
from search.live import LineView
from search.prepare import prepare_data
from tests.trainables import checkpoints
from trainables.config import TrialConfig


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("wavlm", {"aug.freq_mask": 8}, r"aug\.freq_mask is 8, but the backbone reads waveforms"),
        ("wavlm", {"time_stride": 8}, "time_stride moves the patches of a spectrogram"),
        ("whisper", {"frequency_stride": 8}, "frequency_stride moves the patches of a spectrogram"),
        ("whisper", {"data.frames": 31}, r"data\.frames is 31; .* must be even"),
        ("whisper", {"data.frames": 400}, r"data\.frames is 400, but the backbone has positions for 120"),
    ],
)
def test_what_does_not_fit_the_backbone(
    kind: str, more: dict[str, int], said: str, tones: Path, tmp_path: Path
) -> None:
    backbone = checkpoints.save(kind, tmp_path / kind)
    flat = {"backbone": str(backbone), "dataset": "folder", "data": str(tones), "method": "linear", **more}
    with pytest.raises(UserError, match=said):
        prepare_data(TrialConfig.from_flat(flat), LineView(Console(file=io.StringIO())), threading.Event())
