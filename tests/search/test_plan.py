"""The plan of a dry run: counts, data, rungs, and what it refuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from rich.console import Console
from safetensors.numpy import save_file

from petl.counts import BackboneShape, trainable_parameters
from petl.errors import UserError
from search.plan import make_plan, render
from search.resources import GroupPlan
from search.sizes import method_sizes, outside_bounds, trainable_params
from search.space import Space, load_space, parse_space

_ROOT = Path(__file__).parents[2]
_MOA = _ROOT / "spaces" / "moa.yaml"
_GROUPS = GroupPlan(groups=2, workers=1, cpus=1, gpus=0)
_SMALL = {
    "model_type": "audio-spectrogram-transformer",
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_length": 128,
}


@pytest.fixture
def backbone(tmp_path: Path) -> str:
    """Directory with a configuration and a file of weights of which a plan reads nothing but the header."""
    directory = tmp_path / "small-ast"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(_SMALL))
    save_file({"layernorm.weight": np.ones(4, dtype=np.float32)}, directory / "model.safetensors")
    return str(directory)


def _text(space: Space, width: int = 100) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(make_plan(space, _GROUPS)))
    return console.export_text()


def test_the_plan_of_the_main_space(backbone: str) -> None:
    space = load_space(_MOA, {"backbone": backbone})
    plan = make_plan(space, _GROUPS)
    assert plan.rungs == (3, 9)
    assert plan.data.output.size == 9
    assert plan.data.clips == {"train": 243, "val": 117, "test": 117}
    linear = next(s for s in plan.sizes if s.method == "linear")
    assert (linear.least, linear.default, linear.most) == (1417, 1417, 1417), "2*128 + 9*128 + 9"
    shape = BackboneShape.from_config(_SMALL)
    for entry in plan.enqueued:
        method = space.trial_config(space.complete(entry.params)).method
        assert entry.trainable == trainable_parameters(method, shape, 9)
        assert not entry.refused
    text = _text(space)
    for expected in (
        "6 layers of width 128",
        "9 classes; clips: 243 training, 117 validation, 117 test",
        "24 of up to 27 epochs (at most 648 epochs in all)",
        "compared after epoch 3, 9; the best 1/3 goes on",
        "2 at a time, each 1 worker of 1 CPU",
        "moa.experts          2 to 15",
        "method in soft_moa, dense_moa",
        "soft_moa-e7-r128",
        "1,417",
    ):
        assert expected in text, text


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_plan_fits_the_terminal(backbone: str, width: int) -> None:
    text = _text(load_space(_MOA, {"backbone": backbone, "budget.time": "90m"}), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "1h30m" in text


def test_the_extremes_are_those_of_the_whole_space(backbone: str) -> None:
    """Against brute force over every size-relevant setting of the main space."""
    space = load_space(_MOA, {"backbone": backbone})
    shape = BackboneShape.from_config(_SMALL)
    sizes = {s.method: s for s in method_sizes(space, shape, 10)}
    counts = [
        trainable_params(
            space,
            space.complete(
                {
                    "method": "soft_moa",
                    "moa.experts": e,
                    "moa.slots": s,
                    "moa.reduction": r,
                    "moa.location": at,
                    "moa.expert": expert,
                }
            ),
            shape,
            10,
        )
        for e in (2, 3, 8, 15)
        for s in (1, 2, 4)
        for r in (8, 16, 128)
        for at in ("attention", "ffn", "both")
        for expert in ("bottleneck", "convpass")
    ]
    assert (min(counts), max(counts)) == (sizes["soft_moa"].least, sizes["soft_moa"].most)


def test_real_recordings_are_counted_without_decoding(tmp_path: Path, backbone: str) -> None:
    data = tmp_path / "clips"
    for label in ("cat", "dog", "<b>"):
        (data / label).mkdir(parents=True)
        for number in range(10):
            soundfile.write(data / label / f"{number}.wav", np.zeros(800, dtype=np.float32), 16000)
    space = load_space(_MOA, {"backbone": backbone, "dataset": "folder", "data": str(data)})
    plan = make_plan(space, _GROUPS)
    assert plan.data.output.labels == ("<b>", "cat", "dog")
    assert sum(plan.data.clips.values()) == 30
    assert next(s for s in plan.sizes if s.method == "linear").least == 2 * 128 + 3 * 129
    assert "3 classes" in _text(space, 200)


def test_data_that_is_not_there_is_refused(tmp_path: Path, backbone: str) -> None:
    given = {"backbone": backbone, "dataset": "esc50", "data": str(tmp_path / "nowhere")}
    with pytest.raises(UserError, match="nowhere"):
        make_plan(load_space(_MOA, given), _GROUPS)


def test_a_backbone_without_usable_weights_is_refused(backbone: str) -> None:
    weights = Path(backbone) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(UserError, match="4 bytes are missing"):
        make_plan(load_space(_MOA, {"backbone": backbone}), _GROUPS)
    weights.unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        make_plan(load_space(_MOA, {"backbone": backbone}), _GROUPS)


def test_a_backbone_that_is_no_ast_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="bert"):
        make_plan(load_space(_MOA, {"backbone": str(tmp_path)}), _GROUPS)


def test_options_that_do_not_fit_the_backbone_name_their_line(backbone: str) -> None:
    head = "schema: petl.space/1\nbudget: {trials: 1}\nbase: {method: adapter}\nparams:\n"
    shape = BackboneShape.from_config(_SMALL)
    space = parse_space(head + "  adapter.reduction: {choice: [64, 512]}\n", "demo.yaml")
    with pytest.raises(UserError, match=r"demo\.yaml, line 5: adapter\.reduction is 512, which leaves a width of 0"):
        method_sizes(space, shape, 10)
    space = parse_space(head + "  layers.first: {int: [0, 11]}\n", "demo.yaml")
    with pytest.raises(UserError, match=r"demo\.yaml, line 5: layers\.first is 6, but the backbone has 6 layers"):
        method_sizes(space, shape, 10)


def test_bounds(backbone: str) -> None:
    text = _MOA.read_text().replace("# - {metric: trainable_params, mode: min, max: 1_500_000}", "{bound}")

    def bounded(bound: str) -> Space:
        return parse_space(
            text.replace("{bound}", f"- {{metric: trainable_params, {bound}}}"), "demo.yaml", {"backbone": backbone}
        )

    plan = make_plan(bounded("max: 19_000"), _GROUPS)
    assert [entry.name for entry in plan.enqueued if not entry.refused] == [
        "linear",
        "adapter-r64",
        "lora-r128",
        "linear",
    ]
    assert "outside the bound: not trained" in _text(bounded("max: 19_000"), 200)
    objectives = bounded("max: 19_000, min: 10").objectives
    assert outside_bounds(objectives, 19_000) == ""
    assert outside_bounds(objectives, 19_001) == "19,001 trainable parameters, more than 19,000"
    assert outside_bounds(objectives, 9) == "9 trainable parameters, fewer than 10"
    with pytest.raises(
        UserError, match="even the smallest configuration has 1,417 trainable parameters, more than 1,000"
    ):
        make_plan(bounded("max: 1000"), _GROUPS)
    with pytest.raises(UserError, match=r"even the largest configuration has .* fewer than 900,000,000"):
        make_plan(bounded("min: 900_000_000"), _GROUPS)


def test_a_plan_needs_no_torch_and_no_ray(backbone: str) -> None:
    code = f"""
import sys
from search.plan import make_plan, render
from search.resources import local_resources, plan_groups
from search.space import load_space
from rich.console import Console
from safetensors.numpy import save_file
space = load_space('spaces/moa.yaml', {{'backbone': {backbone!r}}})
Console(file=open('/dev/null', 'w')).print(render(make_plan(space, plan_groups(local_resources()))))
heavy = {{'torch', 'torchaudio', 'ray', 'optuna', 'transformers', 'mlflow'}}
print(sorted({{m.split('.')[0] for m in sys.modules}} & heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
