"""The classifier on every family: inputs of different lengths in one batch, pooling, prediction."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from petl import AudioModel, attach
from petl.frontend import AstFrontEnd, FrontEnd, WaveformFrontEnd, WhisperFrontEnd
from tests.petl.models import LABELS, MODELS, TinyModel, trained

METHOD = {"method": "adapter+lora", "adapter.width": 4, "lora.rank": 2}
BY_NAME = {model.name: model for model in MODELS}


def front_end_of(model: TinyModel, **more: Any) -> FrontEnd:
    shape = model.shape
    if shape.samples:
        return WaveformFrontEnd(**{"masks": True, **more})
    kind = AstFrontEnd if model.kind == "AST" else WhisperFrontEnd
    return kind(mel_bins=shape.mel_bins, frames=shape.max_frames)


def _classifier(model: TinyModel, flat: dict[str, Any], **more: Any) -> AudioModel:
    adapted = attach(model.build(), flat, seed=1)
    return trained(AudioModel(adapted, LABELS, front_end_of(model, **more), seed=1)).eval()


def _waves(*samples: int) -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(0, 0.1, count) for i, count in enumerate(samples)]


def _logits(model: AudioModel, waves: list[np.ndarray]) -> Tensor:
    x = model.front_end.collate([model.features(wave) for wave in waves])
    with torch.inference_mode():
        return model(x.values, x.mask)


SAME: list[tuple[TinyModel, dict[str, Any]]] = [
    *((tiny, {}) for tiny in MODELS),
    (BY_NAME["wav2vec2"], {"masks": False, "fixed": True, "frames": 12}),  # sees the padding, always as much of it
]


@pytest.mark.parametrize("pooling", ["masked_mean", "stats"])
@pytest.mark.parametrize(("tiny", "more"), SAME, ids=str)
def test_a_clip_gives_the_same_whatever_it_is_batched_with(tiny: TinyModel, more: dict[str, Any], pooling: str) -> None:
    model = _classifier(tiny, {**METHOD, "pooling": pooling}, **more)
    waves = _waves(600, 1900, 431, 1200)
    together = _logits(model, waves)
    for i, wave in enumerate(waves):
        torch.testing.assert_close(_logits(model, [wave])[0], together[i], atol=2e-5, rtol=1e-4)
    found = model.predict_many(waves, batch_size=3)
    for i, prediction in enumerate(found):
        expected = together[i].softmax(-1).tolist()
        assert list(prediction.probabilities.values()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["wav2vec2", "whisper", "ast"])
def test_pooling_leaves_padding_out_where_the_backbone_takes_no_mask(name: str) -> None:
    tiny = BY_NAME[name]
    model = _classifier(tiny, {**METHOD, "pooling": "masked_mean"}, **({"masks": False} if name == "wav2vec2" else {}))
    x = model.front_end.collate([model.features(wave) for wave in _waves(450, 1900)])
    assert x.mask is not None
    with torch.inference_mode():
        tokens_BND = model.adapted(x.values).last_hidden_state
        layout = model.adapted.layout
        assert layout.mask_BT is None
        lead = layout.special + layout.prompts
        first = int(x.mask[0].sum())
        shape = tiny.shape
        if name == "ast":
            columns = max(1, (first - shape.patch) // shape.time_stride + 1)
            body = tokens_BND[0, lead:].view(*layout.grid, -1)[:, :columns].flatten(0, 1)
        else:
            body = tokens_BND[0, lead : lead + shape.tokens(first)]
        torch.testing.assert_close(model(x.values, x.mask)[0], model.head(body.mean(0)), atol=1e-6, rtol=1e-5)
        unmasked = model(x.values)[0]
        assert not torch.allclose(unmasked, model(x.values, x.mask)[0], atol=1e-5)


def test_the_mask_reaches_the_backbone_only_when_the_front_end_says_so() -> None:
    tiny = BY_NAME["wav2vec2-stable"]
    masked, unmasked = _classifier(tiny, METHOD), _classifier(tiny, METHOD)
    unmasked.front_end = WaveformFrontEnd(masks=False)
    waves = _waves(450, 1900)
    assert not torch.allclose(_logits(masked, waves)[0], _logits(unmasked, waves)[0], atol=1e-5)
    assert masked.adapted.layout.mask_BT is not None and unmasked.adapted.layout.mask_BT is None


@pytest.mark.parametrize("pooling", ["mean", "prompts", "speech", "prompts+speech"])
@pytest.mark.parametrize("tiny", [BY_NAME["wavlm"], BY_NAME["whisper"], BY_NAME["ast"]], ids=str)
def test_prompts_are_told_from_speech(tiny: TinyModel, pooling: str) -> None:
    model = _classifier(tiny, {"method": "prompt", "prompt.length": 3, "pooling": pooling})
    x = tiny.inputs()
    with torch.inference_mode():
        tokens_BND = model.adapted(x).last_hidden_state
        special = tiny_special(tiny)
        parts = {
            "mean": tokens_BND,
            "prompts": tokens_BND[:, special : special + 3],
            "speech": tokens_BND[:, special + 3 :],
            "prompts+speech": tokens_BND[:, special:],
        }
        assert torch.equal(model(x), model.head(parts[pooling].mean(1)))


def tiny_special(tiny: TinyModel) -> int:
    return 2 if tiny.kind == "AST" else 0


@pytest.mark.parametrize("tiny", [BY_NAME["wav2vec2-stable"], BY_NAME["wavlm"], BY_NAME["whisper"]], ids=str)
def test_gradients_reach_everything(tiny: TinyModel) -> None:
    model = _classifier(tiny, {**METHOD, "head.kind": "projector", "pooling": "stats", "head.width": 5}).train()
    x = model.front_end.collate([model.features(wave) for wave in _waves(450, 1900)])
    model(x.values, x.mask).square().sum().backward()
    for name, parameter in model.trainable().items():
        assert parameter.grad is not None and bool(torch.isfinite(parameter.grad).all()), name
        assert bool(parameter.grad.any()), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "flat", [{}, {"pooling": "stats", "head.kind": "projector"}, {"pooling": "masked_mean"}], ids=str
)
def test_an_ast_compiles_in_one_piece(flat: dict[str, Any]) -> None:
    model = _classifier(BY_NAME["ast"], {**METHOD, **flat})
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = model.front_end.collate([model.features(wave) for wave in _waves(4500, 16000)])
    assert x.mask is not None
    torch.testing.assert_close(compiled(x.values, x.mask), model(x.values, x.mask))
    torch.testing.assert_close(compiled(x.values), model(x.values))
    torch._dynamo.reset()


@pytest.mark.parametrize("tiny", [BY_NAME["wav2vec2"], BY_NAME["whisper"], BY_NAME["ast"]], ids=str)
def test_a_copy_is_a_model_of_its_own(tiny: TinyModel) -> None:
    model = _classifier(tiny, {**METHOD, "pooling": "stats", "head.kind": "norm_linear"})
    waves = _waves(450, 1900)
    expected = _logits(model, waves)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter.add_(1)
    assert torch.equal(_logits(twin, waves), expected)
    assert not torch.equal(_logits(model, waves), expected)


@pytest.mark.parametrize("tiny", [BY_NAME["wav2vec2"], BY_NAME["whisper"]], ids=str)
def test_models_in_double_precision_predict_too(tiny: TinyModel) -> None:
    model = _classifier(tiny, {**METHOD, "pooling": "stats"})
    waves = _waves(450, 1900)
    single = model.predict_many(waves)
    double = model.double().predict_many(waves)
    for one, two in zip(single, double, strict=True):
        assert two.probabilities == pytest.approx(one.probabilities, abs=1e-4)
