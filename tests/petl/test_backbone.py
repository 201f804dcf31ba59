"""Loading an AST: layouts, lengths, strides, and everything that can be wrong with a directory.

Other families are in `test_backbone_families.py`.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ASTConfig, ASTModel

from petl import UserError, load_backbone, read_config, read_front_end
from petl.backbone import fingerprint, positions_mode
from petl.positions import Positions, resized_positions
from petl.shape import BackboneShape
from tests.petl.models import (
    HIDDEN,
    LAYERS,
    TINY,
    TINY_SHAPE,
    bits,
    inputs,
    tiny_backbone,
    tiny_checkpoint,
    tiny_tagger,
)

V5_TO_V4 = [
    (r"^layers\.", "encoder.layer."),
    (r"attention\.q_proj", "attention.attention.query"),
    (r"attention\.k_proj", "attention.attention.key"),
    (r"attention\.v_proj", "attention.attention.value"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "ast")


def _v4(name: str) -> str:
    for pattern, replacement in V5_TO_V4:
        name = re.sub(pattern, replacement, name)
    return name


def test_a_directory(checkpoint: Path) -> None:
    model = load_backbone(str(checkpoint))
    assert torch.equal(model(inputs()).last_hidden_state, tiny_backbone()(inputs()).last_hidden_state)
    assert not model.training
    assert model.config._attn_implementation == "sdpa"
    assert model.config._name_or_path == str(checkpoint)
    assert BackboneShape.from_config(read_config(str(checkpoint))) == TINY_SHAPE


@pytest.mark.parametrize("prefix", ["", "audio_spectrogram_transformer."])
@pytest.mark.parametrize("layout", ["v4", "v5"])
def test_key_layouts(checkpoint: Path, prefix: str, layout: str) -> None:
    """Hub checkpoints carry transformers 4's names and, mostly, the classifier's prefix."""
    state = bits(tiny_backbone())
    named = {prefix + (_v4(k) if layout == "v4" else k): v for k, v in state.items()}
    if layout == "v4":
        assert f"{prefix}encoder.layer.0.attention.attention.query.weight" in named
    if prefix:
        named["classifier.dense.weight"] = torch.zeros(3, HIDDEN)
    save_file(named, checkpoint / "model.safetensors", metadata={"format": "pt"})
    loaded = bits(load_backbone(str(checkpoint)))
    assert loaded.keys() == state.keys()
    assert all(torch.equal(state[name], loaded[name]) for name in state)


def test_classifier_checkpoints(tmp_path: Path) -> None:
    tagger = tiny_tagger()
    tagger.save_pretrained(tmp_path)
    expected = tagger.audio_spectrogram_transformer(inputs()).last_hidden_state
    assert torch.equal(load_backbone(str(tmp_path))(inputs()).last_hidden_state, expected)


@pytest.mark.parametrize("frames", [16, 30, 64, 65, 120])
@pytest.mark.parametrize("positions", ["interpolate", "zero"])
def test_other_lengths(checkpoint: Path, frames: int, positions: str) -> None:
    model = load_backbone(str(checkpoint), frames=frames, positions=positions)  # type: ignore[arg-type]
    assert model.config.max_length == frames
    out = model(inputs(frames=frames)).last_hidden_state
    assert out.shape == (2, TINY_SHAPE.tokens(frames), HIDDEN)
    same_grid = TINY_SHAPE.grid(frames) == TINY_SHAPE.grid()
    assert positions_mode(model.state_dict()) == ("interpolate" if same_grid else positions)
    own, loaded = bits(tiny_backbone()), bits(model)
    name = "embeddings.position_embeddings"
    assert all(torch.equal(own[k], loaded[k]) for k in own if k != name)
    if positions == "interpolate":
        assert torch.equal(own[name][:, :2], loaded[name][:, :2])


@pytest.mark.parametrize(("frequency_stride", "time_stride"), [(16, 16), (5, None), (None, 4), (16, 7)])
@pytest.mark.parametrize("positions", ["interpolate", "zero"])
def test_other_strides(
    checkpoint: Path, frequency_stride: int | None, time_stride: int | None, positions: Positions
) -> None:
    model = load_backbone(
        str(checkpoint), frames=50, positions=positions, frequency_stride=frequency_stride, time_stride=time_stride
    )
    wanted = replace(TINY_SHAPE, max_frames=50, frequency_stride=frequency_stride or 10, time_stride=time_stride or 10)
    assert BackboneShape.from_config(model.config.to_dict()) == wanted
    assert model(inputs(frames=50)).last_hidden_state.shape == (2, wanted.tokens(), HIDDEN)
    name = "embeddings.position_embeddings"
    own, loaded = bits(tiny_backbone()), bits(model)
    assert torch.equal(loaded[name], resized_positions(own[name], TINY_SHAPE.grid(), wanted.grid(), positions))
    assert fingerprint(loaded) == fingerprint(own)
    # The same as an AST that was built with these strides.
    built = ASTModel(
        ASTConfig(**{**TINY, "max_length": 50}, **_strides(wanted)),
    ).eval()
    built.load_state_dict(loaded)
    assert torch.equal(built(inputs(frames=50)).last_hidden_state, model(inputs(frames=50)).last_hidden_state)


def _strides(shape: BackboneShape) -> dict[str, int]:
    return {"frequency_stride": shape.frequency_stride, "time_stride": shape.time_stride}


def test_strides_that_keep_the_grid(checkpoint: Path) -> None:
    """16 of 32 mel bins from patch to patch give two rows, as 10 do: the rows lie elsewhere all the same."""
    model = load_backbone(str(checkpoint), frequency_stride=16)
    assert TINY_SHAPE.grid() == replace(TINY_SHAPE, frequency_stride=16).grid()
    assert not torch.equal(model(inputs()).last_hidden_state, tiny_backbone()(inputs()).last_hidden_state)
    assert model.embeddings.patch_embeddings.projection.stride == (16, 10)


def test_strides_that_make_no_sense(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="time_stride is 0"):
        load_backbone(str(checkpoint), time_stride=0)


def test_patch_sizes_written_as_pairs(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "patch_size": [16, 16]}))
    assert torch.equal(load_backbone(str(checkpoint))(inputs()).last_hidden_state, tiny_backbone()(inputs())[0])


def test_loading_leaves_random_numbers_alone(checkpoint: Path) -> None:
    before = torch.random.get_rng_state()
    load_backbone(str(checkpoint), frames=90)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_lengths_below_a_patch(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="15 frames are shorter than one patch"):
        load_backbone(str(checkpoint), frames=15)


def test_fingerprint_tells_backbones_apart(checkpoint: Path) -> None:
    state = tiny_backbone().state_dict()
    assert fingerprint(state) == fingerprint(load_backbone(str(checkpoint), frames=40).state_dict())
    assert fingerprint(state) != fingerprint(tiny_backbone(seed=1).state_dict())


def test_front_end_of_a_checkpoint(checkpoint: Path) -> None:
    assert read_front_end(str(checkpoint))["mean"] == -4.2677393
    (checkpoint / "preprocessor_config.json").write_text(json.dumps({"mean": -1.5, "num_mel_bins": 32}))
    found = read_front_end(str(checkpoint))
    assert (found["mean"], found["num_mel_bins"], found["sampling_rate"]) == (-1.5, 32, 16000)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist; give a directory, a hub id"):
        load_backbone(str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"has no config\.json, so it is not a checkpoint"):
        load_backbone(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is a file; give the directory"):
        load_backbone(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("[1]", "holds a list"),
        ("[" * 100_000, "not valid JSON"),
        ('{"model_type": "bert"}', "of type 'bert', which has no table of sites; supported: audio-spectrogram-transf"),
        ('{"model_type": "wav2vec2"}', "its weights are .* bytes; they are cut off, or do not belong together"),
        ("\x00\x01", "not valid JSON"),
    ],
    ids=["cut", "list", "deep", "bert", "wav2vec2", "binary"],
)
def test_broken_configurations(checkpoint: Path, text: str, said: str) -> None:
    (checkpoint / "config.json").write_text(text)
    with pytest.raises(UserError, match=said):
        load_backbone(str(checkpoint))


def test_no_weights_and_pickled_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model\.safetensors"):
        load_backbone(str(checkpoint))
    torch.save(tiny_backbone().state_dict(), checkpoint / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"found pytorch_model\.bin.*can run code.*save_pretrained"):
        load_backbone(str(checkpoint))


def test_damaged_weights(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="weights cannot be read"):
        load_backbone(str(checkpoint))


def test_missing_tensors_are_not_invented(checkpoint: Path) -> None:
    """transformers fills what is missing with fresh random values; a frozen backbone must not."""
    state = load_file(checkpoint / "model.safetensors")
    kept = {k: v for k, v in state.items() if "1.intermediate" not in k}
    assert len(kept) == len(state) - 2
    save_file(kept, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"do not fit its config\.json.*layers\.1\.mlp\.fc1"):
        load_backbone(str(checkpoint))


def test_tensors_of_another_size(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["num_hidden_layers"] = LAYERS + 1
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="do not fit"):
        load_backbone(str(checkpoint))
    config.update(num_hidden_layers=LAYERS, hidden_size=2 * HIDDEN)
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"cannot be read|do not fit"):
        load_backbone(str(checkpoint))
