"""Adapter directories: round trips, peft, and everything that can be wrong with a directory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import ASTFeatureExtractor

import petl
from petl import AudioModel, UserError, attach, load_adapter, load_backbone, save_adapter
from petl.frontend import AstFrontEnd
from petl.layout import Layout
from petl.pooling import pooled
from tests.petl.models import CASES, LABELS, MELS, Case, inputs, tiny_checkpoint, trained

FRAMES = 40  # other than the checkpoint's, so that positions are cut
FILES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "petl_config.json",
    "preprocessor_config.json",
    "README.md",
}
LORA_CASES = [case for case in CASES if case.flat["method"] == "lora" and not case.flat.get("lora.shared")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("backbone") / "ast")


def _classifier(checkpoint: Path, flat: dict[str, Any], positions: Any = "interpolate") -> AudioModel:
    backbone = load_backbone(str(checkpoint), frames=FRAMES, positions=positions)
    front_end = AstFrontEnd(mel_bins=MELS, frames=FRAMES, mean=-3.25, std=2.5)
    model = AudioModel(attach(backbone, flat, seed=1), LABELS, front_end, seed=1)
    return trained(model).eval()


@pytest.fixture
def saved(checkpoint: Path, tmp_path: Path) -> Path:
    model = _classifier(checkpoint, {"method": "soft_moa", "moa.experts": 2, "moa.reduction": 8.0})
    return save_adapter(tmp_path / "best", model)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_round_trip(case: Case, checkpoint: Path, tmp_path: Path) -> None:
    model = _classifier(checkpoint, case.flat)
    directory = save_adapter(tmp_path / "deep" / "best", model, metadata={"trial": "t0001"})
    assert {p.name for p in directory.iterdir()} == FILES
    assert [p.name for p in directory.parent.iterdir()] == ["best"]
    loaded = load_adapter(directory)
    x_BTM = inputs(frames=FRAMES)
    assert torch.equal(loaded(x_BTM), model(x_BTM))
    assert not loaded.training and loaded.labels == LABELS and loaded.front_end == model.front_end
    assert loaded.adapted.method == model.adapted.method
    tensors = load_file(directory / "adapter_model.safetensors")
    assert sum(t.numel() for t in tensors.values()) == sum(t.numel() for t in model.stored().values())
    recorded = json.loads((directory / "petl_config.json").read_text())
    assert recorded["metadata"] == {"trial": "t0001"} and recorded["method"] == case.method.to_flat()


def test_patch_strides_are_remembered(checkpoint: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(checkpoint), frames=FRAMES, frequency_stride=8, time_stride=6)
    front_end = AstFrontEnd(mel_bins=MELS, frames=FRAMES)
    model = AudioModel(attach(backbone, {"method": "linear"}, seed=1), LABELS, front_end, seed=1).eval()
    directory = save_adapter(tmp_path / "a", model)
    assert torch.equal(load_adapter(directory)(inputs(frames=FRAMES)), model(inputs(frames=FRAMES)))
    recorded = json.loads((directory / "petl_config.json").read_text())
    assert recorded["backbone"]["time_stride"] == 6
    recorded["backbone"]["time_stride"] = "6"
    (directory / "petl_config.json").write_text(json.dumps(recorded))
    with pytest.raises(UserError, match="time_stride is '6'"):
        load_adapter(directory)
    recorded["backbone"] |= {"time_stride": 1, "frequency_stride": 1}
    (directory / "petl_config.json").write_text(json.dumps(recorded))
    values = json.loads((directory / "preprocessor_config.json").read_text())
    (directory / "preprocessor_config.json").write_text(json.dumps({**values, "max_length": 60_000}))
    with pytest.raises(UserError, match="more than 131072 patches"):
        load_adapter(directory)


def test_adapters_of_before_strides_were_recorded_load(saved: Path) -> None:
    expected = load_adapter(saved)(inputs(frames=FRAMES))
    recorded = json.loads((saved / "petl_config.json").read_text())
    del recorded["backbone"]["frequency_stride"], recorded["backbone"]["time_stride"]
    (saved / "petl_config.json").write_text(json.dumps(recorded))
    assert torch.equal(load_adapter(saved)(inputs(frames=FRAMES)), expected)


def test_zero_positions_are_remembered(checkpoint: Path, tmp_path: Path) -> None:
    model = _classifier(checkpoint, {"method": "linear"}, positions="zero")
    loaded = load_adapter(save_adapter(tmp_path / "a", model))
    assert torch.equal(loaded(inputs(frames=FRAMES)), model(inputs(frames=FRAMES)))


def test_the_front_end_file_is_transformers_own(saved: Path) -> None:
    extractor = ASTFeatureExtractor.from_pretrained(saved)
    assert (extractor.mean, extractor.std, extractor.max_length, extractor.num_mel_bins) == (-3.25, 2.5, FRAMES, MELS)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("case", LORA_CASES, ids=str)
def test_lora_loads_in_plain_peft(case: Case, checkpoint: Path, tmp_path: Path) -> None:
    model = _classifier(checkpoint, case.flat)
    directory = save_adapter(tmp_path / "best", model)
    config = json.loads((directory / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["target_modules"] == sorted(config["target_modules"])

    adapted = PeftModel.from_pretrained(load_backbone(str(checkpoint), frames=FRAMES), str(directory)).eval()
    tensors = load_file(directory / "adapter_model.safetensors")
    tokens = adapted(input_values=inputs(frames=FRAMES)).last_hidden_state
    layout = Layout(model.adapted.family.special, 0, tokens.shape[1] - model.adapted.family.special, (1, 1))
    logits = functional.linear(pooled(tokens, layout, model.pooling), tensors["head.weight"], tensors["head.bias"])
    assert torch.equal(logits, load_adapter(directory)(inputs(frames=FRAMES)))
    # peft trains, saves and merges exactly our tensors.
    ours = {n for n in tensors if not n.startswith("head.")}
    theirs = PeftModel.from_pretrained(load_backbone(str(checkpoint), frames=FRAMES), str(directory), is_trainable=True)
    theirs.save_pretrained(str(tmp_path / "peft"))
    again = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert again.keys() == ours
    assert all(torch.equal(again[name], tensors[name]) for name in ours)


@pytest.mark.parametrize(
    ("flat", "peft_type"),
    [
        ({"method": "soft_moa", "moa.reduction": 8.0}, "PETL_SOFT_MOA"),
        ({"method": "adapter+lora", "adapter.width": 2}, "PETL_ADAPTER_LORA"),
    ],
)
def test_other_methods_are_labelled(flat: dict[str, Any], peft_type: str, checkpoint: Path, tmp_path: Path) -> None:
    directory = save_adapter(tmp_path / "a", _classifier(checkpoint, flat))
    config = json.loads((directory / "adapter_config.json").read_text())
    assert config["peft_type"] == peft_type and config["base_model_name_or_path"] == str(checkpoint)
    assert {k: config[k] for k in flat} == flat


def test_model_card(checkpoint: Path, tmp_path: Path) -> None:
    model = _classifier(checkpoint, {"method": "lora", "lora.rank": 2})
    card = {
        "task": "environmental sound",
        "license": "apache-2.0",
        "metrics": {"test/accuracy": 0.912345, "val/accuracy": 0.95},
        "configuration": {"method": "lora", "optim.lr": 0.005},
        "provenance": {"data digest": "ab|cd", "seed": 3},
    }
    directory = save_adapter(
        tmp_path / "a", model, card=card, backbone="MIT/ast-finetuned-audioset-10-10-0.4593", revision="f826b80"
    )
    _, header, body = (directory / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "peft",
        "base_model": "MIT/ast-finetuned-audioset-10-10-0.4593",
        "pipeline_tag": "audio-classification",
        "license": "apache-2.0",
        "tags": ["audio-classification", "petl-search", "lora"],
    }
    for text in (
        "at revision `f826b80`",
        "| accuracy | test | 0.9123 |",
        "| accuracy | val | 0.95 |",
        "| `optim.lr` | `0.005` |",
        "| data digest | ab\\|cd |",
        "3: dog, rain, sea",
        "petl.load_adapter(",
        "revision='f826b80',",
        "PeftModel.from_pretrained(",
    ):
        assert text in body
    config = json.loads((directory / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (
        "MIT/ast-finetuned-audioset-10-10-0.4593",
        "f826b80",
    )
    save_adapter(directory, model, card="# Mine\n")
    assert (directory / "README.md").read_text() == "# Mine\n"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_snippet_of_the_card_loads_the_same_network(dtype: torch.dtype, checkpoint: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(checkpoint), frames=FRAMES, positions="zero", frequency_stride=8, time_stride=6)
    front_end = AstFrontEnd(mel_bins=MELS, frames=FRAMES)
    flat = {"method": "lora", "lora.rank": 2}
    model = trained(AudioModel(attach(backbone, flat, seed=1), LABELS, front_end, seed=1)).to(dtype).eval()
    directory = save_adapter(tmp_path / "a", model)
    snippet = (directory / "README.md").read_text().split("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"petl": petl}
    exec(snippet.replace("path/to/this/directory", str(directory)), names)
    x_BTM = inputs(frames=FRAMES).to(dtype)
    with torch.inference_mode():
        found = names["adapted"].eval()(input_values=x_BTM).last_hidden_state
        assert torch.equal(found, model.adapted(x_BTM).last_hidden_state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("flat", [{"method": "lora", "lora.rank": 2}, {"method": "full", "backbone_mode": "eval"}])
def test_other_number_formats(
    dtype: torch.dtype, late: bool, flat: dict[str, Any], checkpoint: Path, tmp_path: Path
) -> None:
    """A backbone that was cast before the method was attached, or with it."""
    backbone = load_backbone(str(checkpoint), frames=FRAMES)
    backbone = backbone if late else backbone.to(dtype)
    front_end = AstFrontEnd(mel_bins=MELS, frames=FRAMES)
    model = trained(AudioModel(attach(backbone, flat, seed=1), LABELS, front_end, seed=1)).to(dtype).eval()
    directory = save_adapter(tmp_path / "a", model)
    loaded = load_adapter(directory)
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    x_BTM = inputs(frames=FRAMES).to(dtype)
    with torch.inference_mode():
        assert torch.equal(loaded(x_BTM), model(x_BTM))
    _edit_config(backbone={**json.loads((directory / "petl_config.json").read_text())["backbone"], "dtype": "int8"})(
        directory
    )
    with pytest.raises(UserError, match="dtype is 'int8'; allowed: 'float32'"):
        load_adapter(directory)


def test_mixed_number_formats_are_not_saved(checkpoint: Path, tmp_path: Path) -> None:
    model = _classifier(checkpoint, {"method": "linear"})
    model.adapted.backbone.to(torch.bfloat16)
    with pytest.raises(UserError, match="parameters are in bfloat16, float32; only one number format"):
        save_adapter(tmp_path / "a", model)
    assert not (tmp_path / "a").exists()


def test_adapters_of_before_number_formats_were_recorded_load(saved: Path) -> None:
    expected = load_adapter(saved)(inputs(frames=FRAMES))
    recorded = json.loads((saved / "petl_config.json").read_text())
    del recorded["backbone"]["dtype"]
    (saved / "petl_config.json").write_text(json.dumps(recorded))
    assert torch.equal(load_adapter(saved)(inputs(frames=FRAMES)), expected)


def test_what_is_too_long_to_be_loaded_is_not_saved(checkpoint: Path, tmp_path: Path) -> None:
    model = _classifier(checkpoint, {"method": "linear"})
    model.front_end = AstFrontEnd(mel_bins=MELS, frames=2**16 + 1)
    with pytest.raises(UserError, match="the front end: max_length 65537 is beyond 65536 frames"):
        save_adapter(tmp_path / "a", model)


def test_saving_again_replaces_the_directory(checkpoint: Path, saved: Path) -> None:
    (saved / "left-over.txt").write_text("old")
    save_adapter(saved, _classifier(checkpoint, {"method": "linear"}))
    assert {p.name for p in saved.iterdir()} == FILES
    assert load_adapter(saved).adapted.method.method == "linear"
    assert [p.name for p in saved.parent.iterdir()] == ["best"]


def test_saving_spares_what_is_no_adapter(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    model = _classifier(checkpoint, {"method": "linear"})
    for place in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(UserError, match="left alone"):
            save_adapter(place, model)
    with pytest.raises(UserError, match="cannot be written"):
        save_adapter(tmp_path / "thesis.txt" / "deeper", model)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    load_adapter(save_adapter(tmp_path / "empty", model))


def test_a_failed_save_leaves_nothing_and_the_old_one_whole(
    checkpoint: Path, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    model = _classifier(checkpoint, {"method": "linear"})

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        save_adapter(saved, model)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == ["best"]


def test_the_backbone_may_have_moved(checkpoint: Path, saved: Path, tmp_path: Path) -> None:
    expected = load_adapter(saved)(inputs(frames=FRAMES))
    recorded = json.loads((saved / "petl_config.json").read_text())
    recorded["backbone"]["name"] = str(tmp_path / "gone")
    (saved / "petl_config.json").write_text(json.dumps(recorded))
    with pytest.raises(UserError, match="gone"):
        load_adapter(saved)
    assert torch.equal(load_adapter(saved, backbone=str(checkpoint))(inputs(frames=FRAMES)), expected)


def test_the_commit_of_a_hub_backbone_is_recorded(checkpoint: Path, tmp_path: Path) -> None:
    """Also when the search names the backbone without a revision: main may have moved by the time it is loaded."""
    model = _classifier(checkpoint, {"method": "lora", "lora.rank": 2})
    model.adapted.config._name_or_path, model.adapted.config._commit_hash = "someone/ast", "c" * 40
    cases: list[tuple[dict[str, Any], tuple[str, str | None]]] = [
        ({}, ("someone/ast", "c" * 40)),
        ({"backbone": "someone/ast"}, ("someone/ast", "c" * 40)),
        ({"backbone": "someone/ast", "revision": "v1"}, ("someone/ast", "v1")),
        ({"backbone": "another/ast"}, ("another/ast", None)),
    ]
    for given, expected in cases:
        config = json.loads((save_adapter(tmp_path / "a", model, **given) / "adapter_config.json").read_text())
        assert (config["base_model_name_or_path"], config["revision"]) == expected


def test_a_relative_directory_is_recorded_in_full(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _classifier(checkpoint, {"method": "linear"})
    monkeypatch.chdir(checkpoint.parent)
    directory = save_adapter(tmp_path / "a", model, backbone="ast")
    monkeypatch.chdir(tmp_path)
    load_adapter(directory)


def test_the_embedded_backbone(tmp_path: Path) -> None:
    model = AudioModel(
        attach(load_backbone(frames=100), {"method": "linear"}, seed=0), LABELS, AstFrontEnd(frames=100), seed=0
    )
    directory = save_adapter(tmp_path / "a", model)
    assert json.loads((directory / "petl_config.json").read_text())["backbone"]["name"] == "embedded"
    x_BTM = torch.randn(2, 100, 128)
    assert torch.equal(load_adapter(directory)(x_BTM), model.eval()(x_BTM))


def test_another_backbone_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="right sizes but other weights"):
        load_adapter(saved, backbone=str(tiny_checkpoint(tmp_path / "other", seed=9)))


def test_a_backbone_of_another_size_is_refused(checkpoint: Path, saved: Path) -> None:
    recorded = json.loads((saved / "petl_config.json").read_text())
    recorded["backbone"]["hidden_size"] = 768
    (saved / "petl_config.json").write_text(json.dumps(recorded))
    with pytest.raises(UserError, match=r"hidden_size 32, but the adapter was trained on .* with 768"):
        load_adapter(saved)


def _edit_tensors(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        tensors = load_file(directory / "adapter_model.safetensors")
        edit(tensors)
        save_file(tensors, directory / "adapter_model.safetensors")

    return apply


def _edit_config(**changed: Any) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        values = {**json.loads((directory / "petl_config.json").read_text()), **changed}
        (directory / "petl_config.json").write_text(json.dumps(values))

    return apply


def _write(name: str, text: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_text(text) and None


def _truncate(name: str, size: int) -> Callable[[Path], None]:
    return lambda directory: os.truncate(directory / name, size)


PHI = "base_model.model.layers.0.attention.soft_moa.phi"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_truncate("adapter_model.safetensors", 500), "not a complete safetensors file"),
        (_truncate("adapter_model.safetensors", 3), "not a complete safetensors file"),
        (lambda d: (d / "adapter_model.safetensors").write_bytes(b"\x80\x04." * 50), "not a complete safetensors"),
        (lambda d: (d / "adapter_model.safetensors").unlink(), "cannot be read"),
        (lambda d: (d / "preprocessor_config.json").unlink(), r"preprocessor_config\.json: cannot be read"),
        (lambda d: (d / "petl_config.json").unlink(), "is not an adapter directory"),
        (_truncate("petl_config.json", 40), "not valid JSON"),
        (_edit_tensors(lambda t: t.pop(PHI)), f"lacks '{PHI}'"),
        (_edit_tensors(lambda t: t.pop("head.bias")), "lacks 'head.bias'"),
        (_edit_tensors(lambda t: t.update(more=torch.zeros(1))), "'more', which the configuration has no place"),
        (_edit_tensors(lambda t: t.update({PHI: torch.zeros(32, 2, 2)})), r"shape \(32, 2, 2\), .* needs \(32, 2, 1\)"),
        (_edit_tensors(lambda t: t[PHI].fill_(torch.inf)), "not finite"),
        (_edit_config(labels=["a", "b"]), r"head\.weight' has shape \(3, 32\), but the configuration needs \(2, 32\)"),
        (_edit_config(labels="abc"), "'labels' must be a list"),
        (_edit_config(labels=["a", "a", "b"]), "all different"),
        (_edit_config(method={"method": "soft_moe"}), "did you mean 'soft_moa'"),
        (_edit_config(method=["soft_moa"]), "'method' must be an object"),
        (_edit_config(schema="petl.adapter/9"), "newer"),
        (_edit_config(backbone="x"), "'backbone' must be"),
        (_edit_config(output={"kind": ["tags"]}), "output kind .* is not known"),
        (_edit_config(output={"kind": "tags", "threshold": 10**400}), "threshold of tags is huge"),
        (_edit_config(output={"kind": "slots", "slots": [["x", 10**400]]}), r"petl_config\.json"),
        (_edit_config(output={"kind": "tokens", "unit": ["a"]}), "output unit"),
        (_edit_config(labels=["a", "\ud800", "c"]), "surrogates not allowed"),
        (_edit_config(method={"method": "lora", "lora.alpha": 10**400}), r"petl_config\.json"),
        (_edit_config(method={"method": "adapter", "adapter.reduction": 1e-320}), r"petl_config\.json"),
        (_edit_config(method={"method": "+".join(["lora"] * 20000)}), r"petl_config\.json"),
        (_write("petl_config.json", '{"schema": ' + "1" * 5000 + "}"), "not valid JSON"),
        (_write("petl_config.json", "[" * 100_000), "not valid JSON"),
        (_write("preprocessor_config.json", '{"feature_extractor_type": ["a"]}'), r"preprocessor_config\.json"),
        (_write("preprocessor_config.json", '{"max_length": 1e999}'), "max_length"),
    ],
)
def test_damaged_and_hostile_directories(damage: Callable[[Path], Any], said: str, saved: Path) -> None:
    damage(saved)
    with pytest.raises(UserError, match=said):
        load_adapter(saved)


def test_a_file_larger_than_any_adapter_is_not_read(saved: Path) -> None:
    os.truncate(saved / "adapter_model.safetensors", 5 * 2**30)  # sparse: it takes no room
    with pytest.raises(UserError, match="larger than 4 GB, which no adapter of this method is"):
        load_adapter(saved)


def test_a_configuration_cannot_ask_for_endless_memory(saved: Path) -> None:
    """Sizes a stranger writes are checked against the file before anything that large is made."""
    _edit_config(method={"method": "adapter", "adapter.width": 10**12})(saved)
    with pytest.raises(UserError, match=r"describes 195,.* trained numbers, but .* are stored"):
        load_adapter(saved)
    front_end = json.loads((saved / "preprocessor_config.json").read_text())
    (saved / "preprocessor_config.json").write_text(json.dumps({**front_end, "max_length": 10**12}))
    with pytest.raises(UserError, match="max_length 1000000000000 is beyond"):
        load_adapter(saved)
