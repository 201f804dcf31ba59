"""Loading encoders other than an AST: task models' checkpoints, old names of tensors, what may be missing; DeiT."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DeiTConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from petl import BackboneShape, UserError, attach, load_backbone, read_config, read_front_end
from petl.backbone import fingerprint, positions_mode
from petl.positions import resized_positions
from tests.petl.models import bits, drawn
from tests.petl.test_backbone import V5_TO_V4
from tests.petl.test_families import CLASSES, LAYERED, TINY, WAVEFORM

WHISPER = next(changed for family, changed in TINY if family == "whisper")
SMALL_WHISPER: dict[str, Any] = {
    **WHISPER,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "vocab_size": 20,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "begin_suppress_tokens": None,
}
TASKS: list[tuple[str, dict[str, Any], str]] = [
    ("Wav2Vec2ForCTC", {**WAVEFORM, **LAYERED}, "wav2vec2"),
    ("Wav2Vec2ForPreTraining", {**WAVEFORM, "codevector_dim": 8, "num_codevectors_per_group": 4}, "wav2vec2"),
    ("Wav2Vec2ForSequenceClassification", WAVEFORM, "wav2vec2"),
    ("HubertForCTC", WAVEFORM, "hubert"),
    ("HubertForSequenceClassification", {**WAVEFORM, **LAYERED}, "hubert"),
    ("WavLMForXVector", {**WAVEFORM, "num_buckets": 12}, "wavlm"),
    ("Data2VecAudioForCTC", {**WAVEFORM, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5}, "data2vec_audio"),
    ("UniSpeechSatForPreTraining", {**WAVEFORM, "codevector_dim": 8, "num_codevectors_per_group": 4}, "unispeech_sat"),
    ("UniSpeechSatForCTC", {**WAVEFORM, **LAYERED}, "unispeech_sat"),
    ("WhisperForConditionalGeneration", SMALL_WHISPER, "model.encoder"),
    ("WhisperForAudioClassification", SMALL_WHISPER, "encoder"),
    ("WhisperModel", SMALL_WHISPER, "encoder"),
]


def _made(name: str, changed: dict[str, Any]) -> Any:
    cls = getattr(transformers, name, WhisperEncoder)
    return drawn(cls(cls.config_class(**changed)), 0)


def _values(shape: BackboneShape, length: int = 300) -> Tensor:
    size = (2, length) if shape.samples else (2, shape.mel_bins, shape.max_frames)
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("family", "changed"), TINY[:-1])
def test_every_family(tmp_path: Path, family: str, changed: dict[str, Any]) -> None:
    model = drawn(CLASSES[family](CLASSES[family].config_class(**changed)), 0)
    model.save_pretrained(tmp_path)
    loaded = load_backbone(str(tmp_path), frames=None if family == "whisper" else 123)
    assert type(loaded) is CLASSES[family] and not loaded.training
    assert loaded.config._attn_implementation == ("eager" if family == "wavlm" else "sdpa")
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    own, found = bits(model), bits(loaded)
    assert own.keys() == found.keys() and all(torch.equal(own[name], found[name]) for name in own)
    shape = BackboneShape.from_config(read_config(str(tmp_path)))
    assert torch.equal(loaded(_values(shape)).last_hidden_state, model(_values(shape)).last_hidden_state)
    assert positions_mode(found) == "interpolate" and fingerprint(found) == fingerprint(own)
    # The very same encoder can be written and read again.
    loaded.save_pretrained(tmp_path / "again")
    again = bits(load_backbone(str(tmp_path / "again")))
    assert again.keys() == own.keys() and all(torch.equal(own[name], again[name]) for name in own)


@pytest.mark.parametrize(("name", "changed", "prefix"), TASKS, ids=[row[0] for row in TASKS])
def test_task_models_are_read_without_their_heads(
    tmp_path: Path, name: str, changed: dict[str, Any], prefix: str
) -> None:
    model = _made(name, changed)
    model.save_pretrained(tmp_path)
    loaded = load_backbone(str(tmp_path))
    own, found = bits(model.get_submodule(prefix)), bits(loaded)
    assert own.keys() == found.keys() and all(torch.equal(own[key], found[key]) for key in own)


@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm", "unispeech-sat"])
@pytest.mark.parametrize("prefix", [True, False])
def test_old_names_of_weight_normalisation(tmp_path: Path, family: str, prefix: bool) -> None:
    """Files from before torch's parametrisations, as nearly all on the hub are."""
    model = drawn(CLASSES[family](CLASSES[family].config_class(**WAVEFORM)), 0)
    model.save_pretrained(tmp_path)
    own = bits(model)
    new, old = r"conv\.parametrizations\.weight\.original", "conv.weight_"
    renamed = {re.sub(new + "0", old + "g", re.sub(new + "1", old + "v", k)): v for k, v in own.items()}
    assert {"encoder.pos_conv_embed.conv.weight_g", "encoder.pos_conv_embed.conv.weight_v"} <= set(renamed)
    if prefix:
        renamed = {f"{family.replace('-', '_')}.{k}": v for k, v in renamed.items()}
        renamed["lm_head.weight"] = torch.zeros(5, 32)
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = bits(load_backbone(str(tmp_path)))
    assert own.keys() == found.keys() and all(torch.equal(own[key], found[key]) for key in own)


def _without(directory: Path, drop: Callable[[str], bool]) -> None:
    file = directory / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if not drop(k)}, file, metadata={"format": "pt"})


@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm", "unispeech-sat", "data2vec-audio"])
def test_the_vector_of_masked_frames_may_be_missing(tmp_path: Path, family: str) -> None:
    changed = next(c for f, c in TINY if f == family)
    model = drawn(CLASSES[family](CLASSES[family].config_class(**changed)), 0)
    model.save_pretrained(tmp_path)
    _without(tmp_path, lambda name: name == "masked_spec_embed")
    before = torch.random.get_rng_state()
    loaded = load_backbone(str(tmp_path))
    assert not loaded.masked_spec_embed.any()
    assert torch.equal(torch.random.get_rng_state(), before)
    _without(tmp_path, lambda name: "final_layer_norm" in name)
    with pytest.raises(UserError, match=r"do not fit its config\.json.*final_layer_norm"):
        load_backbone(str(tmp_path))


def test_half_precision_files_are_read_as_float32(tmp_path: Path) -> None:
    _made("Wav2Vec2Model", WAVEFORM).half().save_pretrained(tmp_path)
    assert {p.dtype for p in load_backbone(str(tmp_path)).parameters()} == {torch.float32}


def test_what_is_refused(tmp_path: Path) -> None:
    _made("Wav2Vec2Model", WAVEFORM).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"time_stride is for spectrogram patches.*'wav2vec2'"):
        load_backbone(str(tmp_path), time_stride=5)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "add_adapter": True}))
    with pytest.raises(UserError, match="add_adapter = true"):
        load_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({}, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"can run code.*Wav2Vec2Model\.from_pretrained"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize("frames", [2, 14, 40])
def test_whisper_for_shorter_inputs(tmp_path: Path, frames: int) -> None:
    model = _made("WhisperForConditionalGeneration", SMALL_WHISPER)
    model.save_pretrained(tmp_path)
    whole, cut = load_backbone(str(tmp_path)), load_backbone(str(tmp_path), frames=frames)
    values = torch.randn(2, 8, frames, generator=torch.Generator().manual_seed(1))
    out = cut(values).last_hidden_state
    assert out.shape == (2, frames // 2, 32)
    assert BackboneShape.from_config(cut.config.to_dict()).max_frames == frames
    assert torch.equal(cut.embed_positions.weight, whole.embed_positions.weight[: frames // 2])
    assert not cut.embed_positions.weight.requires_grad
    assert fingerprint(cut.state_dict()) == fingerprint(whole.state_dict())
    # By hand: the encoder's own modules on the cut input.
    x = torch.nn.functional.gelu(whole.conv1(values))
    x = torch.nn.functional.gelu(whole.conv2(x)).transpose(1, 2) + whole.embed_positions.weight[: frames // 2]
    for layer in whole.layers:
        x = layer(x, None)
    torch.testing.assert_close(out, whole.layer_norm(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", [0, 3, 42])
def test_whisper_lengths_that_do_not_go(tmp_path: Path, frames: int) -> None:
    _made("WhisperModel", SMALL_WHISPER).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"frames is {frames}.*an even number from 2 to 40"):
        load_backbone(str(tmp_path), frames=frames)


@pytest.fixture
def deit(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A distilled DeiT for 64 x 64 pixels (4 x 4 patches), as its classifier with a teacher saves it."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = DeiTConfig(**sizes, image_size=64, layer_norm_eps=1e-6)
    model = drawn(transformers.DeiTForImageClassificationWithTeacher(config), 0)
    model.save_pretrained(tmp_path)
    return tmp_path, bits(model.deit)


@pytest.mark.parametrize("names", ["v4", "v5"])
def test_deit_becomes_an_ast(deit: tuple[Path, dict[str, Tensor]], names: str) -> None:
    directory, own = deit
    if names == "v4":
        state = {}
        for name, tensor in own.items():
            for pattern, replacement in V5_TO_V4:
                name = re.sub(pattern, replacement, name)
            state[f"deit.{name}"] = tensor
        assert "deit.encoder.layer.0.attention.attention.query.weight" in state
        save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    model = load_backbone(str(directory), frames=66)
    assert type(model).__name__ == "ASTModel"
    shape = BackboneShape.from_config(model.config.to_dict())
    assert (shape.mel_bins, shape.max_frames, shape.grid()) == (128, 66, (12, 6))
    assert (model.config.layer_norm_eps, model.config._attn_implementation) == (1e-6, "sdpa")
    found = bits(model)
    kernel, table = "embeddings.patch_embeddings.projection.weight", "embeddings.position_embeddings"
    assert torch.equal(found[kernel][:, 0], own[kernel][:, 0] + own[kernel][:, 1] + own[kernel][:, 2])
    assert torch.equal(found[table], resized_positions(own[table], (4, 4), (12, 6)))
    others = found.keys() - {kernel, table}
    assert others < own.keys() and all(torch.equal(found[name], own[name]) for name in others)

    # A grey picture of the right size goes through both networks alike.
    grey = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(2))
    square = load_backbone(str(directory), frames=64, frequency_stride=16, time_stride=16)
    with torch.no_grad():
        square.embeddings.position_embeddings = torch.nn.Parameter(own[table])
    image = transformers.DeiTModel.from_pretrained(directory, add_pooling_layer=False).eval()
    expected = image(grey.transpose(1, 2)[:, None].expand(-1, 3, -1, -1)).last_hidden_state
    torch.testing.assert_close(square(grey).last_hidden_state, expected, rtol=1e-4, atol=1e-4)


def test_deit_by_default(deit: tuple[Path, dict[str, Tensor]]) -> None:
    directory, _ = deit
    (directory / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "DeiTImageProcessor", "image_mean": [0.5] * 3, "do_normalize": True})
    )
    model = load_backbone(str(directory))
    assert BackboneShape.from_config(read_config(str(directory))) == BackboneShape.from_config(model.config.to_dict())
    front_end = read_front_end(str(directory))
    assert front_end["feature_extractor_type"] == "ASTFeatureExtractor" and "image_mean" not in front_end
    assert front_end["max_length"] == model.config.max_length == 1024
    assert not load_backbone(str(directory), positions="zero").embeddings.position_embeddings.any()
    adapted = attach(model, {"method": "lora", "lora.rank": 2}, seed=0)
    assert adapted(torch.zeros(1, 1024, 128)).last_hidden_state.shape == (1, 1214, 32)


def test_plain_vision_transformers_are_not_distilled(deit: tuple[Path, dict[str, Tensor]]) -> None:
    directory, _ = deit
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "model_type": "vit"}))
    with pytest.raises(UserError, match="of type 'vit'"):
        load_backbone(str(directory))


@pytest.mark.parametrize("family", ["wav2vec2", "whisper", "data2vec-audio"])
def test_front_ends_without_a_file(tmp_path: Path, family: str) -> None:
    changed = next(c for f, c in TINY if f == family)
    CLASSES[family](CLASSES[family].config_class(**changed)).save_pretrained(tmp_path)
    found = read_front_end(str(tmp_path))
    kind = "WhisperFeatureExtractor" if family == "whisper" else "Wav2Vec2FeatureExtractor"
    assert found["feature_extractor_type"] == kind
    if family == "whisper":
        assert (found["feature_size"], found["nb_max_frames"]) == (8, 40)
    else:  # a GroupNorm goes over the padding, too: such models were trained without masks
        assert found["return_attention_mask"] is (family == "data2vec-audio")
    nested = {"feature_extractor": {"feature_extractor_type": kind, "sampling_rate": 8000}, "processor_class": "Any"}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert read_front_end(str(tmp_path))["sampling_rate"] == 8000
