"""The space files that come with the project, overrides, rungs, durations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import petl
from petl import BackboneShape, trainable_parameters
from petl.errors import UserError
from petl.hub import read_config
from search.sizes import method_sizes
from search.space import (
    SchedulerOptions,
    Space,
    dump,
    duration_text,
    load_space,
    parse_assignments,
    parse_duration,
    parse_space,
)

_ROOT = Path(__file__).parents[2]
_EMBEDDED = BackboneShape.from_config(read_config("embedded"))
_ANY_FAMILY = ["sure", "moa", "adapter", "lora", "prompt", "prefix", "all", "experts_slots", "budget"]
_FILES = sorted((_ROOT / "spaces").glob("*.yaml"))
_SPEECH = ("emotion", "speaker", "intent", "speech_recognition")
_NEED_DATA = ("environmental_sound", "keyword_spotting", "tagging", *_SPEECH)
"""Spaces about published data sets, which somebody has to have."""
_BASE = BackboneShape.from_config({"model_type": "wav2vec2"})


def _load(file: Path) -> Space:
    return load_space(file, {"data": "somewhere"} if file.stem in _NEED_DATA else {})


def _shape(file: Path) -> BackboneShape:
    return _BASE if file.stem in _SPEECH else _EMBEDDED


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)
def test_every_space_file_is_sound(file: Path) -> None:
    space = _load(file)
    assert space.name == file.stem
    assert space.notes == ()
    assert parse_space(dump(space)) == space
    assert space.budget.trials is not None and space.budget.trials >= len(space.enqueue)
    for partial in space.enqueue:
        space.trial_config(space.complete(partial))
    for branch in space.branches():
        assert trainable_parameters(space.trial_config(branch).method, _shape(file), 9) > 0
    assert {size.method for size in method_sizes(space, _shape(file), 9)} == set(space.methods())


@pytest.mark.parametrize("file", [f for f in _FILES if f.stem not in _SPEECH], ids=lambda file: file.stem)
def test_what_is_tried_first_can_be_built(file: Path) -> None:
    """On the embedded backbone, and as large as the plan says."""
    space = _load(file)
    backbone = petl.load_backbone("embedded")
    seen = []
    for partial in space.enqueue:
        method = space.trial_config(space.complete(partial)).method
        if method in seen:
            continue
        seen.append(method)
        adapted = petl.attach(backbone, method.to_flat(), seed=0)
        assert sum(p.numel() for p in adapted.trainable().values()) == trainable_parameters(method, _EMBEDDED)
        adapted.detach()


@pytest.mark.parametrize("name", [pytest.param("all", marks=pytest.mark.slow), *(n for n in _ANY_FAMILY if n != "all")])
def test_spaces_that_run_on_any_family(name: str) -> None:
    """Including AST-base, wav2vec 2.0 base and large: every option fits, down to the ends of all ranges."""
    space = load_space(_ROOT / "spaces" / f"{name}.yaml")
    stable = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    for config in ({"model_type": _EMBEDDED.family}, {"model_type": "wav2vec2"}, {"model_type": "whisper"}):
        assert method_sizes(space, BackboneShape.from_config(config), 9)
    assert method_sizes(space, BackboneShape.from_config({"model_type": "wav2vec2", **large, **stable}), 9)


def test_the_placement_study_holds_the_six_functions_and_no_other() -> None:
    space = load_space(_ROOT / "spaces" / "ablation_placement.yaml")
    assert space.size() == 6 * 3 == space.budget.trials
    methods = {space.trial_config(space.complete(partial)).method for partial in space.enqueue}
    cases = {(m.adapter.location, m.adapter.placement, m.adapter.where) for m in methods}
    assert len(cases) == 6
    assert not any(placement == "sequential" and order == "after" for _, placement, order in cases)


@pytest.mark.parametrize(("name", "choices"), [("ablation_lora_targets", 5), ("ablation_kernel", 8)])
def test_studies_are_grids_over_three_seeds(name: str, choices: int) -> None:
    space = load_space(_ROOT / "spaces" / f"{name}.yaml")
    assert space.size() == 3 * choices == space.budget.trials
    assert len(space.enqueue) == choices
    assert space.scheduler.rungs(27) == ()


def test_the_budget_space_rejects_what_is_outside_on_each_backbone() -> None:
    space = load_space(_ROOT / "spaces" / "budget.yaml")
    objective = space.objectives[1]
    assert (objective.bound_min, objective.bound_max) == (50_000, 1_000_000)
    for shape in (_EMBEDDED, BackboneShape()):
        counts = [
            trainable_parameters(space.trial_config(space.complete(partial)).method, shape, 9)
            for partial in space.enqueue
        ]
        assert sum(50_000 <= count <= 1_000_000 for count in counts) >= 6


def test_published_settings_are_in_their_spaces() -> None:
    """The presets of SURE and AAT, as their spaces compute them."""
    for name, names in {
        "sure": ["sure_conv_adapter", "sure_bottleneck", "sure_lora", "sure_prefix", "sure_full", "sure_linear"],
        "aat": ["aat_head", "aat_mlp", "aat_mlp_spatial", "aat_prompt", "aat_partial", "aat_full"],
    }.items():
        space = load_space(_ROOT / "spaces" / f"{name}.yaml")
        tried = [space.trial_config(space.complete(partial)).method.to_flat() for partial in space.enqueue]
        for preset in names:
            flat = petl.MethodConfig.from_flat(petl.preset(preset)).to_flat()
            assert any({**tried_flat, **flat} == tried_flat for tried_flat in tried), preset


def test_the_main_space_asks_the_main_question() -> None:
    space = load_space(_ROOT / "spaces" / "moa.yaml")
    assert space.methods() == ("soft_moa", "dense_moa", "adapter", "lora", "linear")
    assert {p["method"] for p in space.enqueue} == set(space.methods()), "every baseline is inside every search"
    published = space.complete(space.enqueue[1])
    assert published["moa.experts"] == 7
    assert published["moa.slots"] == 1
    assert published["moa.reduction"] == 128
    assert published["moa.location"] == "attention"
    assert published["optim.lr"] == 5e-3
    assert published["optim.weight_decay"] == 0.1
    assert space.max_epochs() == 27
    assert space.scheduler.rungs(27) == (3, 9)
    assert space.budget.trials == 24


def test_the_two_objective_form_in_the_comment_works() -> None:
    text = (_ROOT / "spaces" / "moa.yaml").read_text().replace("# - {metric: trainable", "- {metric: trainable")
    space = parse_space(text)
    assert space.objectives[1].metric == "trainable_params"
    assert space.objectives[1].bound_max == 1_500_000


def test_overrides_replace_the_fixed_part_and_the_settings() -> None:
    given = {
        "epochs": 9,
        "data": "/some/where",
        "dataset": "esc50",
        "seed": 3,
        "sampler.seed": 3,
        "scheduler.eta": 4,
        "budget.trials": 2,
        "budget.time": "30m",
        "train.batch_size": 8,
    }
    space = load_space(_ROOT / "spaces" / "moa.yaml", given)
    config = space.trial_config(space.complete({}))
    assert (config.epochs, config.data.path, config.data.dataset, config.seed) == (9, "/some/where", "esc50", 3)
    assert config.train.batch_size == 8
    assert (space.sampler.seed, space.scheduler.eta, space.scheduler.grace_epochs) == (3, 4, 3)
    assert (space.budget.trials, space.budget.time) == (2, 1800.0)
    assert parse_space(dump(space)) == space, "the resolved space stands on its own"
    assert space.digest() != load_space(_ROOT / "spaces" / "moa.yaml").digest()


def test_overrides_can_bring_sections_the_file_lacks() -> None:
    text = "schema: petl.space/1\nparams: {method: {choice: [linear, lora]}}\n"
    space = parse_space(text, "x/tiny.yaml", {"budget.trials": 1, "epochs": 2, "scheduler.name": "none"})
    assert (space.name, space.base, space.budget.trials) == ("tiny", {"epochs": 2}, 1)
    assert space.scheduler.rungs(27) == ()


def test_notes_tell_what_was_perhaps_not_meant() -> None:
    text = "schema: petl.space/1\nparams: {method: {choice: [linear, lora]}}\nbudget: {trials: 9}\n"
    text += "base: {epochs: 3}\nenqueue: [{method: lora}, {method: lora}]\n"
    notes = " | ".join(parse_space(text).notes)
    assert "enqueue[2] is the same configuration as enqueue[1]" in notes
    assert "scheduler.grace_epochs 3 is not below 3 epochs: no trial can be stopped early" in notes
    assert "the space holds only 2 configurations" in notes
    fewer = parse_space(text, overrides={"budget.trials": 1}).notes
    assert any("2 configurations are enqueued, but only 1" in note for note in fewer)


def test_absolute_paths_for_the_run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backbone").mkdir()
    given = {"data": "clips", "dataset": "folder", "backbone": "backbone"}
    space = load_space(_ROOT / "spaces" / "moa.yaml", given).absolute()
    assert space.base["data"] == str(tmp_path / "clips")
    assert space.base["backbone"] == str(tmp_path / "backbone")
    hub = load_space(_ROOT / "spaces" / "moa.yaml", {"backbone": "some/model"}).absolute()
    assert hub.base["backbone"] == "some/model"


def test_rungs_are_exact() -> None:
    assert SchedulerOptions().rungs(27) == (3, 9)
    assert SchedulerOptions().rungs(28) == (3, 9, 27)
    assert SchedulerOptions(grace_epochs=1, eta=2).rungs(8) == (1, 2, 4)
    assert SchedulerOptions(name="none").rungs(27) == ()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2 d", 172800), ("1.5h", 5400), ("45", 45)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(duration_text(seconds)) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "-3m", "3 m x", "0s", "m", float("nan"), float("inf"), -1, True, 10**400, "9" * 400]
)
def test_no_durations(text: str | float) -> None:
    with pytest.raises(ValueError, match="no length of time"):
        parse_duration(text)


def test_settings_are_read_like_the_file() -> None:
    given = ["optim.weight_decay=1e-2", "lora.targets = q,k", "data='007'", "backbone=a=b", "epochs=3", "epochs=4"]
    assert parse_assignments(given) == {
        "optim.weight_decay": 0.01,
        "lora.targets": "q,k",
        "data": "007",
        "backbone": "a=b",
        "epochs": 4,
    }
    for text in ("epochs", "=3", ""):
        with pytest.raises(UserError, match="write key=value"):
            parse_assignments([text])


def test_spaces_need_no_torch_and_no_ray() -> None:
    code = (
        "import sys; from search.space import load_space; load_space('spaces/moa.yaml'); "
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'ray', 'optuna', 'transformers', 'mlflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
