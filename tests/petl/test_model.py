"""The classifier: pooling, head, prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from petl import AudioModel, Prediction, UserError, attach
from petl.frontend import AstFrontEnd, FrontEnd, WaveformFrontEnd, WhisperFrontEnd, clip_features
from petl.pooling import pooled
from tests.petl.models import FRAMES, HIDDEN, LABELS, MELS, inputs, tiny_backbone, trained

FRONT_END = AstFrontEnd(mel_bins=MELS, frames=FRAMES)


def _classifier(seed: int = 0, **options: str) -> AudioModel:
    adapted = attach(tiny_backbone(), {"method": "soft_moa", "moa.reduction": 8.0, **options}, seed=seed)
    return AudioModel(adapted, LABELS, FRONT_END, seed=seed)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    wave = np.random.default_rng(0).normal(0, 0.1, (9000, 2))
    soundfile.write(tmp_path / "clip.wav", wave, 22050)
    return tmp_path / "clip.wav"


@pytest.mark.parametrize("pooling", ["mean", "cls", "cls+dist", "patches"])
def test_logits(pooling: str) -> None:
    model = trained(_classifier(pooling=pooling))
    logits = model(inputs())
    tokens = model.adapted(inputs()).last_hidden_state
    assert torch.equal(logits, model.head(pooled(tokens, model.adapted.layout, pooling)))
    assert logits.shape == (2, 3)


def test_cls_and_distillation_is_the_backbones_own_pooling() -> None:
    model = _classifier(pooling="cls+dist")
    out = model.adapted(inputs())
    assert torch.equal(pooled(out.last_hidden_state, model.adapted.layout, "cls+dist"), out.pooler_output)


def test_the_head_trains_and_is_seeded() -> None:
    one, two, other = _classifier(0), _classifier(0), _classifier(1)
    assert one.trainable().keys() - one.adapted.trainable().keys() == {"head.weight", "head.bias"}
    assert {id(p) for p in one.trainable().values()} == {id(p) for p in one.parameters() if p.requires_grad}
    assert torch.equal(one.head.weight, two.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)
    assert one.head.weight.shape == (3, HIDDEN) and not one.head.bias.any()
    before = torch.get_rng_state()
    AudioModel(one.adapted, LABELS, FRONT_END, seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_state_goes_round() -> None:
    one, other = trained(_classifier(0)), _classifier(1)
    other.load_adapter_state(one.adapter_state())
    assert torch.equal(one(inputs()), other(inputs()))
    with pytest.raises(UserError, match="head"):
        other.load_adapter_state(other.adapted.adapter_state())


def test_mode_reaches_the_method_and_not_the_backbone() -> None:
    model = _classifier().train()
    assert model.head.training and model.adapted.added.training
    assert not model.adapted.backbone.training and not model.adapted.backbone.layers[0].training


def test_predicting_a_file(clip: Path) -> None:
    model = trained(_classifier()).train()
    found = model.predict(clip)
    assert isinstance(found, Prediction)
    features = FRONT_END.collate([clip_features(clip, FRONT_END)]).values[0]
    expected = model.eval()(features.unsqueeze(0)).softmax(-1)[0]
    torch.testing.assert_close(torch.tensor([found.probabilities[name] for name in LABELS]), expected)
    assert found.label == LABELS[int(expected.argmax())]
    assert found.probability == max(found.probabilities.values())
    assert sum(found.probabilities.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "front_end",
    [
        FRONT_END,
        AstFrontEnd(mel_bins=MELS, frames=FRAMES, sample_rate=48000),
        WaveformFrontEnd(frames=30),
        WhisperFrontEnd(mel_bins=80, frames=20, chunk=1),
        WhisperFrontEnd(mel_bins=80, frames=100, chunk=1),
    ],
    ids=["ast", "ast48", "waveform", "whisper", "whisper whole"],
)
@pytest.mark.parametrize("rate", [4000, 16000, 44100])
def test_a_recording_is_read_no_further_than_the_input_reaches(front_end: FrontEnd, rate: int, tmp_path: Path) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 4 * rate)
    soundfile.write(tmp_path / "long.wav", wave, rate, subtype="FLOAT")
    model = _classifier()
    model.front_end = front_end
    whole, heard = clip_features(tmp_path / "long.wav", front_end), model.features(tmp_path / "long.wav")
    assert front_end.rows(front_end.frames) <= len(heard)
    assert len(heard) < len(whole) or front_end.frames == 100  # a Whisper keeps no more than its chunk
    torch.testing.assert_close(front_end.collate([heard]).values, front_end.collate([whole]).values, rtol=0, atol=1e-4)
    wave[3 * rate :] = np.nan  # nobody looks there
    soundfile.write(tmp_path / "spoilt.wav", wave, rate, subtype="FLOAT")
    assert torch.equal(model.features(tmp_path / "spoilt.wav"), heard)


def test_predicting_leaves_the_mode(clip: Path) -> None:
    model = _classifier().train()
    model.predict(str(clip))
    assert model.training and model.head.training
    model.eval().predict(clip)
    assert not model.training


def test_predicting_waveforms_in_order() -> None:
    model = trained(_classifier())
    waves = [np.random.default_rng(i).normal(0, 0.1, 4000 + 500 * i) for i in range(5)]
    together = model.predict_many(iter(waves), batch_size=2)
    for wave, found in zip(waves, together, strict=True):
        alone = model.predict(torch.tensor(wave))
        assert alone.label == found.label
        assert alone.probabilities == pytest.approx(found.probabilities, abs=1e-5)
    assert model.predict_many([]) == []


def test_what_cannot_be_predicted(tmp_path: Path) -> None:
    model = _classifier()
    with pytest.raises(UserError, match=r"nowhere\.wav"):
        model.predict(tmp_path / "nowhere.wav")
    with pytest.raises(UserError, match=r"shape \(samples,\); found \(2, 4000\)"):
        model.predict(np.zeros((2, 4000)))
    with pytest.raises(UserError, match="NaN"):
        model.predict(np.full(4000, np.nan))
    with pytest.raises(UserError, match="too short"):
        model.predict(np.zeros(100))


@pytest.mark.parametrize("labels", [[], ["one"], ["a", "a"]])
def test_labels(labels: list[str]) -> None:
    with pytest.raises(UserError, match="two labels"):
        AudioModel(attach(tiny_backbone(), {}), labels, FRONT_END)


def test_a_front_end_of_another_length() -> None:
    with pytest.raises(UserError, match=r"gives 100 frames of 32 mel bins, .* loaded for 64 of 32"):
        AudioModel(attach(tiny_backbone(), {}), LABELS, AstFrontEnd(mel_bins=MELS, frames=100))
