"""Upstream AST and SSAST checkpoints, made here in their format, as transformers' directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel

import petl
from petl import UserError, convert_ast, load_backbone, read_front_end
from tests.petl.models import bits, drawn

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "layer_norm_eps": 1e-6,
    "patch_size": 16,
}
HEADS = {"heads": 4}  # the published sizes have 64 dimensions per head


def _model(**changed: Any) -> ASTModel:
    return drawn(ASTModel(ASTConfig(**{**SIZES, **changed})), 0)


def _upstream(model: nn.Module, prefix: str = "module.v.") -> dict[str, Tensor]:
    """The tensors of transformers' AST as the authors' code names them."""
    own = bits(model)
    state = {
        "cls_token": own["embeddings.cls_token"],
        "dist_token": own["embeddings.distillation_token"],
        "pos_embed": own["embeddings.position_embeddings"],
        "head.weight": torch.zeros(1000, 32),
        "head_dist.bias": torch.zeros(1000),
    }
    for kind in ("weight", "bias"):
        state[f"patch_embed.proj.{kind}"] = own[f"embeddings.patch_embeddings.projection.{kind}"]
        state[f"norm.{kind}"] = own[f"layernorm.{kind}"]
        for i in range(2):
            layer, block = f"layers.{i}", f"blocks.{i}"
            if f"{layer}.attention.q_proj.{kind}" in own:
                fused = [own[f"{layer}.attention.{p}_proj.{kind}"] for p in "qkv"]
                state[f"{block}.attn.qkv.{kind}"] = torch.cat(fused)
            state[f"{block}.attn.proj.{kind}"] = own[f"{layer}.attention.o_proj.{kind}"]
            state[f"{block}.norm1.{kind}"] = own[f"{layer}.layernorm_before.{kind}"]
            state[f"{block}.norm2.{kind}"] = own[f"{layer}.layernorm_after.{kind}"]
            for fc in ("fc1", "fc2"):
                state[f"{block}.mlp.{fc}.{kind}"] = own[f"{layer}.mlp.{fc}.{kind}"]
    outer = prefix.removesuffix("v.")
    rest = {f"{outer}mlp_head.1.weight": torch.zeros(5, 32), f"{outer}mlp_head.1.bias": torch.zeros(5)}
    return {**{prefix + name: tensor for name, tensor in state.items()}, **rest}


def _saved(state: Any, tmp_path: Path) -> Path:
    torch.save(state, tmp_path / "upstream.pth")
    return tmp_path / "upstream.pth"


def _values(frames: int, mels: int = 128) -> Tensor:
    return torch.randn(2, frames, mels, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("prefix", ["module.v.", "v."])
@pytest.mark.parametrize("frames", [1024, 506, 126])  # AudioSet, ESC-50, Speech Commands: 101, 50, 12 columns
def test_the_same_numbers(tmp_path: Path, prefix: str, frames: int) -> None:
    model = _model(max_length=frames)
    said = {"frames": frames} if frames == 506 else {}  # 12 x 50 might be 8 x 75 too
    directory = convert_ast(_saved(_upstream(model, prefix), tmp_path), tmp_path / "out", **HEADS, **said)
    loaded = load_backbone(str(directory))
    assert loaded.config.max_length == frames
    own, found = bits(model), bits(loaded)
    assert own.keys() == found.keys() and all(torch.equal(own[name], found[name]) for name in own)
    values = _values(frames)
    assert torch.equal(loaded(values).last_hidden_state, model(values).last_hidden_state)


def test_logits_of_a_tagger_on_top(tmp_path: Path) -> None:
    """What was converted is a backbone of transformers' own classifier."""
    tagger = drawn(ASTForAudioClassification(ASTConfig(**SIZES, max_length=128, num_labels=5)), 3)
    directory = convert_ast(
        _saved(_upstream(tagger.audio_spectrogram_transformer), tmp_path), tmp_path / "out", frames=128, **HEADS
    )
    expected = tagger(_values(128)).logits
    tagger.audio_spectrogram_transformer = ASTModel.from_pretrained(directory, attn_implementation="sdpa").eval()
    torch.testing.assert_close(tagger(_values(128)).logits, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("recorded", [True, False])
def test_ssast(tmp_path: Path, recorded: bool) -> None:
    """Patches that do not overlap: 128 x 1024 in a grid of 8 x 64."""
    model = _model(frequency_stride=16, time_stride=16)
    state = _upstream(model)
    if recorded:  # beside the encoder, the pretraining's heads and the input's sizes
        state |= {"module.p_input_fdim": torch.tensor(128), "module.p_input_tdim": torch.tensor(1024)}
        state |= {"module.mask_embed": torch.zeros(1, 1, 32), "module.cpredlayer.0.weight": torch.zeros(32, 32)}
    loaded = load_backbone(str(convert_ast(_saved(state, tmp_path), tmp_path / "out", **HEADS)))
    config = loaded.config
    assert (config.frequency_stride, config.time_stride, config.max_length, config.num_mel_bins) == (16, 16, 1024, 128)
    assert torch.equal(loaded(_values(1024)).last_hidden_state, model(_values(1024)).last_hidden_state)


def test_nothing_is_guessed_where_several_grids_fit(tmp_path: Path) -> None:
    """768 positions: 12 x 64 in steps of 10, or 8 x 96 in steps of 16."""
    model = _model(frequency_stride=16, time_stride=16, max_length=1536)
    path = _saved(_upstream(model), tmp_path)
    with pytest.raises(UserError, match=r"768 .* time_stride 10, frames 646 and .* time_stride 16, frames 1536; give"):
        convert_ast(path, tmp_path / "out", **HEADS)
    for number, given in enumerate(({"frames": 1536}, {"frequency_stride": 16, "time_stride": 16})):
        loaded = load_backbone(str(convert_ast(path, tmp_path / f"out{number}", **HEADS, **given)))
        assert (loaded.config.time_stride, loaded.config.max_length) == (16, 1536)


def test_what_is_written(tmp_path: Path) -> None:
    model = _model(max_length=200, num_mel_bins=64, time_stride=5, frequency_stride=6, qkv_bias=False)
    directory = convert_ast(
        _saved({"state_dict": _upstream(model, "v.")}, tmp_path),
        tmp_path / "new" / "out",
        frames=200,
        mel_bins=64,
        time_stride=5,
        frequency_stride=6,
        mean=-1.5,
        std=2.0,
        **HEADS,
    )
    assert {p.name for p in directory.iterdir()} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    front_end = read_front_end(str(directory))
    assert (front_end["max_length"], front_end["num_mel_bins"]) == (200, 64)
    assert (front_end["mean"], front_end["std"]) == (-1.5, 2.0)
    assert ASTFeatureExtractor.from_pretrained(directory).max_length == 200
    loaded = ASTModel.from_pretrained(directory).eval()
    assert torch.equal(loaded(_values(200, 64)).last_hidden_state, model(_values(200, 64)).last_hidden_state)
    assert json.loads((directory / "config.json").read_text())["layer_norm_eps"] == 1e-6
    assert petl.BackboneShape.from_config(loaded.config.to_dict()).qkv_bias is False


def test_frame_based_ssast_is_refused(tmp_path: Path) -> None:
    state = _upstream(_model())
    state["module.v.patch_embed.proj.weight"] = torch.zeros(32, 1, 128, 2)
    with pytest.raises(UserError, match=r"shape \(32, 1, 128, 2\).*square patches.*patch-based"):
        convert_ast(_saved(state, tmp_path), tmp_path / "out", **HEADS)


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_nothing_is_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="can run code and is not read"):
        convert_ast(_saved({"v.cls_token": _Code()}, tmp_path), tmp_path / "out")
    assert "run" not in capsys.readouterr().out and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ({}, {"frames": 500}, "1212 position embeddings do not go with frames 500; give what it was trained on"),
        ({}, {"mel_bins": 8}, "do not go with mel_bins 8"),
        ({}, {"frequency_stride": 3}, "do not go with frequency_stride 3"),
        ({}, {"time_stride": 0}, "time_stride is 0; it must be at least 1"),
        ({}, {"heads": 5}, "width of 32 does not divide into 5 heads"),
        ({"module.v.pos_embed": None}, {}, "not a checkpoint of AST or SSAST"),
        ({"module.v.norm.weight": None}, {}, "missing or of another shape: layernorm.weight"),
        ({"module.v.blocks.1.mlp.fc1.weight": torch.zeros(2, 2)}, {}, "of another shape: layers.1.mlp.fc1.weight"),
        (
            {"module.v.blocks.0.attn.qkv.bias": torch.zeros(1)},
            {},
            r"v\.blocks\.0\.attn\.qkv\.bias has the shape \(1,\)",
        ),
        ({"module.v.blocks.0.attn.qkv.bias": torch.tensor(1.0)}, {}, r"attn\.qkv\.bias has the shape \(\)"),
        ({"module.v.pos_embed": torch.zeros(32)}, {}, r"v\.pos_embed has the shape \(32,\)"),
        (
            {"module.v.blocks.0.mlp.fc1.weight": torch.tensor(1.0)},
            {},
            r"v\.blocks\.0\.mlp\.fc1\.weight has the shape \(\)",
        ),
        ({"module.v.patch_embed.proj.weight": torch.zeros(32, 1, 0, 0)}, {}, r"shape \(32, 1, 0, 0\)"),
        ({"module.v.blocks.3000.norm1.bias": torch.zeros(32)}, {}, r"of v\.blocks\.3000, but none of v\.blocks\.2"),
        ({"module.v.norm.bias": torch.full((32,), torch.nan)}, {}, r"module\.v\.norm\.bias holds values that are NaN"),
        ({"module.v.norm.bias": torch.ones(32).to_sparse()}, {}, r"module\.v\.norm\.bias is a sparse tensor"),
        ({"module.p_input_tdim": torch.tensor(torch.nan)}, {}, "module.p_input_tdim is no whole number"),
    ],
    ids=[
        *("frames", "mels", "stride", "zero", "heads", "positions", "norm", "layer", "fused", "scalar-fused"),
        *("1-D positions", "scalar", "no kernel", "gap", "nan", "sparse", "nan-input"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, change: dict[str, Any], arguments: dict[str, int], said: str) -> None:
    state = {k: v for k, v in {**_upstream(_model()), **change}.items() if v is not None}
    with pytest.raises(UserError, match=said):
        convert_ast(_saved(state, tmp_path), tmp_path / "out", **{**HEADS, **arguments})
    assert not (tmp_path / "out").exists()


def test_places_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        convert_ast(tmp_path / "nothing.pth", tmp_path / "out")
    (tmp_path / "text.pth").write_text("not a checkpoint")
    with pytest.raises(UserError, match=r"text\.pth: not a"):
        convert_ast(tmp_path / "text.pth", tmp_path / "out")
    with pytest.raises(UserError, match="holds a list, not a state dictionary"):
        convert_ast(_saved([torch.zeros(1)], tmp_path), tmp_path / "out")
    with pytest.raises(UserError, match="not an empty directory"):
        convert_ast(_saved(_upstream(_model()), tmp_path), tmp_path, **HEADS)
