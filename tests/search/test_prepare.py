"""What is refused before a search starts because it does not fit the kind of backbone."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from petl.counts import BackboneShape
from petl.errors import UserError
from search.live import LineView
from search.prepare import positions_note, prepare_data
from search.sizes import fitted
from tests.trainables import checkpoints
from trainables.config import TrialConfig


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("wavlm", {"aug.freq_mask": 8}, r"aug\.freq_mask is 8, but the backbone reads waveforms"),
        ("wavlm", {"time_stride": 8}, "time_stride moves the patches of a spectrogram"),
        ("whisper", {"frequency_stride": 8}, "frequency_stride moves the patches of a spectrogram"),
        ("wavlm", {"positions": "zero"}, "positions is 'zero', but backbone family 'wavlm' has no position embeddings"),
        ("whisper", {"positions": "zero"}, "positions is 'zero', but backbone family 'whisper'"),
        ("whisper", {"data.frames": 31}, r"data\.frames is 31; .* must be even"),
        ("whisper", {"data.frames": 400}, r"data\.frames is 400, but the backbone has positions for 120"),
    ],
)
def test_what_does_not_fit_the_backbone(
    kind: str, more: dict[str, Any], said: str, tones: Path, tmp_path: Path
) -> None:
    backbone = checkpoints.save(kind, tmp_path / kind)
    flat = {"backbone": str(backbone), "dataset": "folder", "data": str(tones), "method": "linear", **more}
    with pytest.raises(UserError, match=said):
        prepare_data(TrialConfig.from_flat(flat), LineView(Console(file=io.StringIO())), threading.Event())


def test_a_front_end_of_another_family_is_refused_before_data_are_read(tmp_path: Path) -> None:
    backbone = checkpoints.save("wavlm", tmp_path / "wavlm")
    (backbone / "preprocessor_config.json").write_text('{"feature_extractor_type": "ASTFeatureExtractor"}')
    flat = {"backbone": str(backbone), "dataset": "folder", "data": str(tmp_path / "none"), "method": "linear"}
    with pytest.raises(UserError, match="ASTFeatureExtractor"):
        prepare_data(TrialConfig.from_flat(flat), LineView(Console(file=io.StringIO())), threading.Event())


_AST, _DEIT = {"model_type": "audio-spectrogram-transformer"}, {"model_type": "deit"}
_WHISPER = {"model_type": "whisper"}


@pytest.mark.parametrize(
    ("config", "flat", "frames", "said"),
    [
        (_AST, {}, 1024, "as pretrained, 12 x 101 patches for 1024 frames"),
        (_AST, {"frequency_stride": 10, "time_stride": 10}, 1024, "as pretrained, 12 x 101 patches for 1024 frames"),
        (_AST, {"positions": "zero"}, 1024, "as pretrained, 12 x 101 patches for 1024 frames"),
        (_AST, {}, 1020, "as pretrained, 12 x 101 patches for 1020 frames"),
        (
            _AST,
            {"time_stride": 4},
            512,
            "interpolated along time: pretrained with 12 x 101 patches for 1024 frames, "
            "used with 12 x 125 patches for 512 frames",
        ),
        (
            _AST,
            {"time_stride": 16, "positions": "zero"},
            1024,
            "set to zero: pretrained with 12 x 101 patches for 1024 frames, used with 12 x 64 patches for 1024 frames",
        ),
        (
            _AST,
            {"frequency_stride": 5},
            512,
            "cut along time, interpolated along frequency: pretrained with 12 x 101 patches for 1024 frames, "
            "used with 23 x 50 patches for 512 frames",
        ),
        (
            _DEIT,
            {},
            1024,
            "cut along frequency, interpolated along time: pretrained with 14 x 14 patches for images, "
            "used with 12 x 101 patches for 1024 frames",
        ),
        (_WHISPER, {}, 3000, "as pretrained, for 3000 frames"),
        (_WHISPER, {}, 500, "the first 250 of 1500: pretrained for 3000 frames, used for 500"),
        ({"model_type": "wav2vec2"}, {}, 300, "relative: inputs of any length, here of at most 300 frames of 10 ms"),
    ],
)
def test_what_is_said_about_positions(
    config: dict[str, str], flat: dict[str, Any], frames: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = TrialConfig.from_flat({"backbone": str(tmp_path), "method": "linear", **flat})
    own = BackboneShape.from_config(config)
    assert positions_note(base, own, fitted(own, base, frames), frames) == said
