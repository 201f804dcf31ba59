"""Training clips that cannot be learned from: what a clip is said to give is what the model gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import petl
from petl.frontend import FrontEnd, WaveformFrontEnd
from petl.hub import read_config, read_front_end
from petl.model import AudioModel
from petl.outputs.tokens import Tokens
from petl.shape import BackboneShape
from tests.trainables import checkpoints
from trainables.augment.speeds import sped_up
from trainables.config import TrialConfig
from trainables.data.lengths import filled
from trainables.opening import open_for, tokens_of

_RATE = 16000
_FRAMES = 120  # of the longest input of the tiny models
Tiny = tuple[AudioModel, Callable[[int], int]]


@pytest.fixture(scope="module")
def tiny(tiny_ast: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tiny]:
    """A model that writes, and what is said of its tokens."""
    root = tmp_path_factory.mktemp("tiny")
    known: dict[str, Tiny] = {}

    def make(kind: str) -> Tiny:
        if kind not in known:
            place = str(tiny_ast if kind == "ast" else checkpoints.save(kind, root / kind))
            front_end = FrontEnd.from_preprocessor(read_front_end(place)).with_frames(64 if kind == "ast" else _FRAMES)
            if isinstance(front_end, WaveformFrontEnd):
                front_end = replace(front_end, masks=True)
            strides = {"time_stride": 8} if kind == "ast" else {}
            backbone = petl.load_backbone(place, frames=front_end.backbone_frames, **strides)
            adapted = petl.attach(backbone, {"method": "linear"}, seed=0)
            model = AudioModel(adapted, Tokens.of(["ab"], "characters"), front_end, seed=0).eval()
            known[kind] = model, tokens_of(BackboneShape.from_config(read_config(place)), strides.get("time_stride"))
        return known[kind]

    return make


def _given(model: AudioModel, values: Any) -> list[int]:
    """Tokens that the model has for each clip of a batch."""
    with torch.no_grad():
        logits = model(values.values, values.mask)
    lengths_B = model.lengths(values.mask)
    return [logits.shape[1]] * len(values) if lengths_B is None else lengths_B.tolist()


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2-stable", "whisper", "ast"])
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(400, 12000), min_size=1, max_size=4), st.sampled_from([0.0, 0.05, 0.1, 0.3]))
def test_a_clip_gives_the_tokens_that_it_is_said_to_give(
    tiny: Callable[[str], Tiny], kind: str, lengths: list[int], speed: float
) -> None:
    model, tokens = tiny(kind)
    front_end = model.front_end
    rows = [front_end.extract(0.1 * torch.randn(samples)) for samples in lengths]
    assert [tokens(filled(front_end, len(row))) for row in rows] == _given(model, front_end.collate(rows))
    # Of waveforms, as fast as augmentation makes them.
    faster = [sped_up(samples, speed, front_end.window) for samples in lengths]
    waves_BS = 0.1 * torch.randn(len(faster), max(faster))
    said = [
        tokens(filled(front_end, n if not front_end.spectrogram else front_end.rows(front_end.frames_of(n))))
        for n in faster
    ]
    assert said == _given(model, front_end.collate_waveforms(waves_BS, torch.tensor(faster)))


@pytest.mark.parametrize(("kind", "speed"), [("wav2vec2", 0.0), ("whisper", 0.0), ("wav2vec2", 0.1), ("whisper", 0.1)])
def test_texts_as_long_as_their_clips_allow_are_kept_and_longer_ones_left_out(
    tiny: Callable[[str], Tiny], kind: str, speed: float, tmp_path: Path
) -> None:
    model, _ = tiny(kind)
    counts = (3205, 4801, 6399, 8000)
    rows = ["path,text,split"]
    for number, samples in enumerate(counts):
        front_end = model.front_end
        after = sped_up(samples, speed, front_end.window)
        given_ = _given(model, front_end.collate_waveforms(torch.randn(1, after), torch.tensor([after])))[0]
        noise = np.random.default_rng(number).standard_normal(samples)
        for more in (0, 1):
            name = f"{number}-{more}.wav"
            soundfile.write(tmp_path / name, (0.1 * (1 + more) * noise).astype("float32"), _RATE)
            rows.append(f"{name},{('ab' * 99)[: given_ + more]},train")
    for split in ("val", "test"):
        soundfile.write(tmp_path / f"{split}.wav", np.full(12000, 0.1, "float32"), _RATE)
        rows.append(f"{split}.wav,ab,{split}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    place = checkpoints.save(kind, tmp_path / kind)
    flat = {"backbone": str(place), "dataset": "manifest", "data": str(tmp_path), "data.target": "text"}
    config = TrialConfig.from_flat({**flat, "method": "linear", **({"aug.speed": speed} if speed else {})})
    (data,) = open_for(config)
    assert [data.dropped_title(i) for i, _ in data.dropped] == [f"{number}-1.wav" for number in range(len(counts))]
