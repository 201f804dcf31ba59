"""Adapter directories of every family and method: what comes back gives the same numbers, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from peft import PeftModel
from safetensors.torch import load_file

from petl import AudioModel, UserError, attach, load_adapter, load_backbone, save_adapter
from petl.frontend import FrontEnd, WaveformFrontEnd
from petl.hub import read_front_end
from tests.petl.models import LABELS, MODELS, Case, TinyModel, trained

FAMILIES = [model for model in MODELS if model.name != "ast"]  # AST's are in test_saving
PAIRS = [(model, case) for model in FAMILIES for case in model.cases]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint directory of every small model, as transformers writes it."""
    found = {}
    for model in MODELS:
        directory = tmp_path_factory.mktemp(model.name)
        model.build().save_pretrained(directory)
        found[model.name] = directory
    return found


def _classifier(directory: Path, flat: dict[str, Any]) -> AudioModel:
    front_end = FrontEnd.from_preprocessor(read_front_end(str(directory)))
    if front_end.backbone_frames is not None:
        front_end = front_end.with_frames(front_end.frames - 4)  # other than the checkpoint's
    backbone = load_backbone(str(directory), frames=front_end.backbone_frames)
    model = trained(AudioModel(attach(backbone, flat, seed=1), LABELS, front_end, seed=1))
    with torch.no_grad():  # statistics move as in training
        for tensor in model.stored().values():
            tensor.add_(0.01)
    return model.eval()


def _waves() -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(0, 0.1, count) for i, count in enumerate((450, 1900, 800))]


@pytest.mark.parametrize(("tiny", "case"), PAIRS, ids=str)
def test_round_trip(tiny: TinyModel, case: Case, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = _classifier(checkpoints[tiny.name], case.flat)
    directory = save_adapter(tmp_path / "best", model)
    loaded = load_adapter(directory)
    x = model.front_end.collate([model.features(wave) for wave in _waves()])
    with torch.inference_mode():
        assert torch.equal(loaded(x.values, x.mask), model(x.values, x.mask))
    assert loaded.front_end == model.front_end
    tensors = load_file(directory / "adapter_model.safetensors")
    assert sum(t.numel() for t in tensors.values()) == sum(t.numel() for t in model.stored().values())
    assert all(t.is_floating_point() for t in tensors.values())


@pytest.mark.parametrize("tiny", FAMILIES, ids=str)
@pytest.mark.parametrize(
    "flat",
    [
        {"lora.rank": 2, "lora.targets": "q,k,v,o,fc1,fc2", "norms": "site+final"},
        {"lora.rank": 2, "lora.targets": "fc1,fc2", "layers.first": 1, "layers.last": 1, "lora.scaling": "alpha/RR"},
    ],
    ids=["all", "feed-forward"],
)
def test_lora_loads_in_plain_peft(
    tiny: TinyModel, flat: dict[str, Any], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    model = _classifier(checkpoints[tiny.name], {"method": "lora", **flat})
    directory = save_adapter(tmp_path / "best", model)
    config = json.loads((directory / "adapter_config.json").read_text())
    if tiny.kind == "WavLM" and "q" in flat["lora.targets"]:
        assert config["peft_type"] == "PETL_LORA"  # plain peft would load it, and change nothing
        return
    frames = model.front_end.backbone_frames
    theirs = PeftModel.from_pretrained(load_backbone(str(checkpoints[tiny.name]), frames=frames), str(directory))
    x = model.front_end.collate([model.features(_waves()[1])])
    with torch.inference_mode():
        found = theirs.eval()(x.values).last_hidden_state
        assert torch.equal(found, model.adapted(x.values).last_hidden_state)
        assert not torch.equal(found, load_backbone(str(checkpoints[tiny.name]), frames=frames)(x.values)[0])


@pytest.mark.parametrize("tiny", FAMILIES, ids=str)
def test_prediction_of_a_file_survives(tiny: TinyModel, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = _classifier(checkpoints[tiny.name], {"method": "lora", "lora.rank": 2, "head.kind": "norm_linear"})
    soundfile.write(tmp_path / "clip.wav", _waves()[1], 16000)
    expected = model.predict(tmp_path / "clip.wav")
    assert load_adapter(save_adapter(tmp_path / "best", model)).predict(tmp_path / "clip.wav") == expected


@pytest.mark.parametrize("fixed", [False, True])
def test_waveforms_longer_than_any_spectrogram(fixed: bool, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Their length follows the clips, unless all are padded to the longest."""
    model = _classifier(checkpoints["wavlm"], {"method": "linear"})
    model.front_end = WaveformFrontEnd(frames=2**16 + 1, fixed=fixed)
    if fixed:
        with pytest.raises(UserError, match="the longest input 65537 is beyond 65536 frames"):
            save_adapter(tmp_path / "a", model)
    else:
        assert load_adapter(save_adapter(tmp_path / "a", model)).front_end == model.front_end


@pytest.mark.parametrize("tiny", FAMILIES, ids=str)
def test_backbones_in_bfloat16(tiny: TinyModel, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model = _classifier(checkpoints[tiny.name], {"method": "lora", "lora.rank": 2}).to(torch.bfloat16)
    loaded = load_adapter(save_adapter(tmp_path / "a", model))
    x = model.front_end.collate([model.features(wave) for wave in _waves()]).to("cpu", torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(loaded(x.values, x.mask), model(x.values, x.mask))


def test_batch_norm_statistics_are_kept(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    flat = {"method": "adapter", "adapter.block": "conformer", "adapter.width": 4, "adapter.kernel": 3}
    model = _classifier(checkpoints["wav2vec2-stable"], flat)
    gathered = model.stored().keys() - model.trainable().keys()
    assert gathered
    tensors = load_file(save_adapter(tmp_path / "a", model) / "adapter_model.safetensors")
    for name in gathered:
        assert torch.equal(tensors[f"base_model.model.{name}"], model.stored()[name])


@pytest.mark.parametrize("tiny", FAMILIES, ids=str)
def test_another_backbone_is_refused(tiny: TinyModel, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    directory = save_adapter(tmp_path / "a", _classifier(checkpoints[tiny.name], {"method": "bitfit"}))
    tiny.build(seed=9).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="right sizes but other weights"):
        load_adapter(directory, backbone=str(tmp_path / "other"))
    with pytest.raises(UserError, match="has model_type"):
        load_adapter(directory, backbone=str(checkpoints["whisper" if tiny.kind != "Whisper" else "wavlm"]))


def test_full_fine_tuning_keeps_the_fingerprint_of_the_backbone_it_started_from(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    model = _classifier(checkpoints["hubert-stable"], {"method": "full", "backbone_mode": "eval"})
    directory = save_adapter(tmp_path / "a", model)
    linear = save_adapter(tmp_path / "b", _classifier(checkpoints["hubert-stable"], {"method": "linear"}))
    prints = [json.loads((d / "petl_config.json").read_text())["backbone"]["fingerprint"] for d in (directory, linear)]
    assert prints[0] == prints[1]


def test_a_directory_that_names_another_extractor_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    directory = save_adapter(tmp_path / "a", _classifier(checkpoints["wavlm"], {"method": "linear"}))
    (directory / "preprocessor_config.json").write_text(json.dumps({"feature_extractor_type": "ASTFeatureExtractor"}))
    with pytest.raises(UserError, match="names a ASTFeatureExtractor, but the backbone takes waveforms"):
        load_adapter(directory)
