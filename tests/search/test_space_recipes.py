"""Published recipes asked for on the command line: what they take from a space; resolved files; options of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petl.errors import ConfigError, UserError
from search.commands.evaluate import _config
from search.commands.train import train_again
from search.export import TRIAL_SCHEMA
from search.space import Space, SpaceError, dump, load_space, parse_space
from trainables.config import TrialConfig
from trainables.recipes import recipe

_ROOT = Path(__file__).parents[2]
_AST = "MIT/ast-finetuned-audioset-10-10-0.4593"
_BASE = "facebook/wav2vec2-base-960h"
_XLSR = "jonatasgrosman/wav2vec2-large-xlsr-53-english"
_TRAINING = ("aug.", "optim.", "schedule.", "train.")


def _given(name: str, dataset: str, backbone: str, **more: Any) -> dict[str, Any]:
    beside = {key.replace("__", "."): value for key, value in more.items()}
    return {"recipe": name, "dataset": dataset, "backbone": backbone, "data": "/somewhere", **beside}


def _load(space: str, name: str, dataset: str, backbone: str, **more: Any) -> Space:
    return load_space(_ROOT / "spaces" / f"{space}.yaml", _given(name, dataset, backbone, **more))


@pytest.mark.parametrize(
    ("space", "name", "dataset", "backbone"),
    [
        *((space, "petl_ast", "esc50", _AST) for space in ("moa", "adapter", "lora", "prompt", "prefix", "budget")),
        ("sure", "sure", "esd", _XLSR),
        ("sure", "sure", "librispeech", _XLSR),
        ("aat", "aat", "esc50", _AST),
        ("keyword_spotting", "petl_ast", "speech_commands_v2", _AST),
        ("tagging", "petl_ast", "esc50", _AST),
        ("emotion", "sure", "iemocap", _XLSR),
    ],
)
def test_a_space_with_a_recipe_trains_what_the_paper_trained(
    space: str, name: str, dataset: str, backbone: str
) -> None:
    found = _load(space, name, dataset, backbone)
    assert [note for note in found.notes if note.startswith(f"recipe {name} fixes ")]
    for partial in found.enqueue:
        params = found.complete(partial)
        named = {k: v for k, v in found.flat(params).items() if not k.startswith(_TRAINING)}
        published = recipe(name, named)
        plain = TrialConfig.from_flat(named)  # what the case is without anything that the space says of training
        config = found.trial_config(params)
        assert (config.aug, config.optim, config.schedule, config.train) == (
            plain.aug, plain.optim, plain.schedule, plain.train,
        )  # fmt: skip
        assert config.epochs == published["epochs"] and config.optim.lr == published["optim.lr"]
    assert parse_space(dump(found)) == found, "the run directory's copy is the same space"


def test_nothing_of_the_files_own_training_stays() -> None:
    probe = _load("keyword_spotting", "petl_ast", "speech_commands_v2", _AST)
    aug = probe.trial_config(probe.complete({"method": "linear"})).aug
    assert (aug.roll, aug.mixup, aug.freq_mask, aug.time_mask) == (0, 0, 0, 0)
    text = (_ROOT / "spaces" / "emotion.yaml").read_text()
    text = text[: text.index("params:")] + "params:\n  method: {choice: [linear, adapter]}\nbudget: {trials: 2}\n"
    emotion = parse_space(text, "x", {"recipe": "petl_ast", "data": "/x", "backbone": _BASE})
    config = emotion.trial_config(emotion.complete({"method": "linear"}))
    assert (config.schedule.warmup_ratio, config.train.grad_clip, config.method.pooling) == (0, 0, "mean")


_SMALL = """
schema: petl.space/1
name: small
base: {method: lora, pooling: cls, norms: none, head.kind: norm_linear, backbone_mode: train, train.deadline: 50,
       train.gradient_checkpointing: true, lora.targets: "q,k,v"}
params:
  optim.lr: {float: [1e-4, 1e-2], log: true}
  aug.mixup: {choice: [0.0, 0.5]}
  lora.alpha: {choice: [4, 16]}
enqueue:
  - {aug.mixup: 0.5, lora.alpha: 4}
budget: {trials: 2}
"""


def test_general_options_are_the_recipes_and_those_of_methods_stay() -> None:
    given = _given("petl_ast", "esc50", _AST)
    space = parse_space(_SMALL, "small", given)
    own = {"method", "train.deadline", "train.gradient_checkpointing", "lora.targets"}
    assert set(space.base) == own | set(given)
    assert [p.key for p in space.params] == ["lora.alpha"] and space.enqueue == ({"lora.alpha": 4},)
    assert space.notes[0] == "recipe petl_ast fixes aug.mixup, optim.lr, which the space would sample"
    method = space.trial_config(space.complete({})).method
    assert (method.pooling, method.norms, method.head.kind, method.backbone_mode) == ("mean", None, "linear", None)
    assert method.lora.targets == "q,k,v"


@pytest.mark.parametrize("prefix", ["", "base."])
def test_what_is_given_beside_the_recipe_wins(prefix: str) -> None:
    beside = {f"{prefix}optim.lr": 0.25, f"{prefix}aug.mixup": 0.5, f"{prefix}epochs": 4, f"{prefix}norms": "final"}
    space = parse_space(_SMALL, "small", {**_given("petl_ast", "esc50", _AST), **beside})
    config = space.trial_config(space.complete(space.enqueue[0]))
    assert (config.optim.lr, config.aug.mixup, config.epochs, config.method.norms) == (0.25, 0.5, 4, "final")
    assert not [note for note in space.notes if "fixes" in note], "the user fixed it"


def test_a_recipe_that_leaves_nothing_to_sample_is_told() -> None:
    text = _SMALL.replace("  lora.alpha: {choice: [4, 16]}\n", "").replace(", lora.alpha: 4", "")
    with pytest.raises(SpaceError, match=r"recipe petl_ast fixes aug\.mixup, optim\.lr, which is all that this space"):
        parse_space(text, "small", _given("petl_ast", "esc50", _AST))


def test_the_target_is_the_spaces() -> None:
    assert _load("speaker", "sure", "vctk", _XLSR, data__target="speaker").base["data.target"] == "speaker"
    with pytest.raises(SpaceError, match=r"nothing for method 'adapter' on dataset 'vctk' \(verification\)"):
        _load("speaker", "sure", "vctk", _XLSR)


def test_what_a_recipe_lacks_is_told_for_every_line() -> None:
    with pytest.raises(SpaceError) as caught:
        _load("lora", "aat", "esc50", _AST)
    assert "params.method: recipe 'aat' has nothing for method 'lora'" in str(caught.value)
    assert "enqueue[2]: recipe 'aat' has nothing for method 'lora'" in str(caught.value)


def test_the_longest_trial_counts() -> None:
    """SURE trains its ConvAdapter on LibriSpeech for 224 epochs and everything else for 28."""
    space = _load("sure", "sure", "librispeech", _XLSR)
    assert space.trial_config(space.complete({"method": "lora"})).epochs == 28
    assert space.max_epochs() == 224
    assert space.scheduler.rungs(space.max_epochs()) == (3, 9, 27, 81)
    sampled = parse_space(_SMALL.replace("  lora.alpha:", "  epochs: {choice: [5, 27], default: 5}\n  lora.alpha:"))
    assert sampled.max_epochs() == 27 and sampled.trial_config(sampled.complete({})).epochs == 5


# -- resolved configurations -------------------------------------------------------------------------------------------


def _resolved(**more: Any) -> dict[str, Any]:
    flat = {**_given("petl_ast", "esc50", _AST), "method": "lora", **{k.replace("__", "."): v for k, v in more.items()}}
    return TrialConfig.from_flat(flat).to_flat()


def test_an_adapter_of_a_recipe_is_evaluated_on_other_data() -> None:
    adapter = _resolved()
    for dataset, target in (("folder", None), ("manifest", None), ("urbansound8k", "sound")):
        data = _config(adapter, "/own", dataset, {}).data
        assert (data.dataset, data.path, data.target) == (dataset, "/own", target)
        assert (data.protocol, data.fold, data.shots, data.draw) == ("standard", 1, None, 1)
    same = _config(adapter, None, None, {"data.fold": 2})
    assert (same.data.protocol, same.data.fold, same.data.target, same.recipe) == ("petl_ast", 2, "sound", None)
    assert _config(adapter, "/own", "manifest", {"data.target": "text"}).data.target == "text"
    with pytest.raises(UserError, match="holds every setting already"):
        _config(adapter, None, None, {"recipe": "aat"})


def test_recipes_are_for_spaces_not_for_trial_files(tmp_path: Path) -> None:
    import io

    import yaml
    from rich.console import Console

    quiet = Console(file=io.StringIO())
    trial = tmp_path / "best.yaml"
    trial.write_text(yaml.safe_dump({"schema": TRIAL_SCHEMA, "config": _resolved()}))
    with pytest.raises(UserError, match=r"--set recipe=aat: a trial file holds every setting .* launch.py"):
        train_again(trial, tmp_path / "out", ["recipe=aat"], quiet, quiet)


# -- options -----------------------------------------------------------------------------------------------------------


def test_a_whole_number_is_text_where_text_is_read() -> None:
    space = load_space(_ROOT / "spaces" / "keyword_spotting.yaml", {"data": "/x", "data.subset": 12})
    assert space.base["data.subset"] == "12" and space.trial_config(space.complete({})).data.subset == "12"
    config = TrialConfig.from_flat({"dataset": "speech_commands_v2", "data": 7, "data.subset": 12, "data.fold": 3})
    assert (config.data.path, config.data.subset, config.data.fold) == ("7", "12", 3)
    for wrong in (True, 1.5):
        with pytest.raises(ConfigError, match=r"data\.subset: Input should be a valid string"):
            TrialConfig.from_flat({"data.subset": wrong})


def test_averaging_starts_within_the_trial() -> None:
    assert TrialConfig.from_flat({"epochs": 9, "train.average_first": 9}).train.average_first == 9
    with pytest.raises(ConfigError, match="is beyond the last of 9 epochs") as caught:
        TrialConfig.from_flat({"epochs": 9, "train.average_first": 10})
    assert caught.value.key == "train.average_first"


@pytest.mark.parametrize(
    ("base", "sampled", "said"),
    [
        ({}, "schedule.step_factor: {float: [0.1, 0.9]}", "schedule.step_factor is sampled, but with schedule.name"),
        ({"schedule.name": "step"}, "schedule.step_factor: {float: [0.1, 0.9]}", ""),
        ({}, "aug.mixup_alpha: {float: [1, 9]}", "aug.mixup_alpha is sampled, but with aug.mixup 0 nothing reads it"),
        ({"aug.mixup": 0.5}, "aug.mixup_alpha: {float: [1, 9]}", ""),
        ({}, "aug.mask_fill: {choice: [mean, zero]}", "with aug.freq_mask 0 and aug.time_mask 0 nothing reads it"),
        ({"aug.time_mask": 8}, "aug.mask_fill: {choice: [mean, zero]}", ""),
        ({"train.loss": "bce"}, "train.margin: {float: [0, 1]}", "with train.loss 'bce' nothing reads it"),
        ({}, "train.margin: {float: [0, 1]}", ""),
    ],
)
def test_sampled_options_that_nothing_reads_are_noted(base: dict[str, Any], sampled: str, said: str) -> None:
    text = _SMALL.replace("aug.mixup: {choice: [0.0, 0.5]}", sampled).replace("aug.mixup: 0.5, ", "")
    notes = [note for note in parse_space(text, "small", base).notes if "nothing reads it" in note]
    assert bool(notes) == bool(said) and said in "".join(notes)
