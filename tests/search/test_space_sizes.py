"""Sizes of the methods of a space: what changes counts, and whether the extremes are the extremes."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest

from petl.config import MethodConfig, method_keys, readers
from petl.counts import BackboneShape, trainable_parameters
from petl.errors import ConfigError, UserError
from petl.hub import read_config
from search.sizes import NO_SIZE, DoesNotFit, check_inputs, fitted, method_sizes, trainable_params
from search.space import load_space, parse_space

optuna.logging.set_verbosity(optuna.logging.ERROR)
_FILES = sorted((Path(__file__).parents[2] / "spaces").glob("*.yaml"))
_EMBEDDED = BackboneShape.from_config(read_config("embedded"))
_WAVEFORM = BackboneShape.from_config({"model_type": "wav2vec2"})
_WAVES = BackboneShape.from_config({"model_type": "wav2vec2"})
_WHISPER = BackboneShape.from_config({"model_type": "whisper"})
_AST = BackboneShape()
_BASE = "schema: petl.space/1\nbudget: {{trials: 1}}\nbase: {}\nparams: {{optim.lr: {{float: [1.0e-4, 1.0e-2]}}}}\n"
_NUMBERS = [1, 2, 3, 4, 8, 16, 31]
_FALLING = {"adapter.reduction", "lora.reduction", "moa.reduction", "layers.first"}


def _values(key: str, annotation: Any) -> list[Any]:
    """Values worth trying for an option."""
    if key == "lora.targets":
        return ["q", "q,v", "fc1,fc2"]
    if key in ("adapter.ratio", "adapter.dropout", "lora.dropout", "prompt.dropout", "prefix.dropout"):
        return [0.25, 0.5]
    if key == "partial.last":
        return [1, 2, 3, 4]
    words = [v for part in (annotation, *get_args(annotation)) for v in get_args(part) if isinstance(v, (str, bool))]
    truths = [True, False] if annotation is bool or bool in get_args(annotation) else []
    return [*words, *truths] or list(_NUMBERS)


_VALUES = {info.key: _values(info.key, info.annotation) for info in method_keys() if info.key != "method"}
_METHODS = ["adapter", "lora", "prompt", "prefix", "dense_moa", "soft_moa", "feature_adapter", "partial", "full",
            "adapter+lora", "prompt+soft_moa", "bitfit+prefix", "linear"]  # fmt: skip


def _drawn(chance: random.Random, key: str) -> dict[str, Any]:
    """A random configuration that reads `key`."""
    needs = readers(key)
    fitting = [m for m in _METHODS if not needs.get("method") or set(needs["method"]) & set(m.split("+"))]
    flat: dict[str, Any] = {"method": chance.choice(fitting)}
    flat |= {parent: chance.choice(values) for parent, values in needs.items() if parent != "method"}
    for other in chance.sample(list(_VALUES), 8):
        if other != key:
            flat.setdefault(other, chance.choice(_VALUES[other]))
    return flat


def _count(flat: dict[str, Any], shape: BackboneShape) -> int | None:
    """None for what is refused; options without a meaning are left out."""
    while True:
        try:
            return trainable_parameters(MethodConfig.from_flat(flat), shape, 9)
        except ConfigError as error:
            if error.key not in flat or "no meaning" not in str(error):
                return None
            flat = {k: v for k, v in flat.items() if k != error.key}


@pytest.mark.parametrize("key", _VALUES)
def test_which_options_change_counts_and_how(key: str) -> None:
    """Options in `NO_SIZE` change none; numbers change all counts in one direction."""
    chance = random.Random(key)
    changed, seen = False, 0
    for _ in range(150):
        flat, shape = _drawn(chance, key), chance.choice([_EMBEDDED, _WAVES])
        counts = [(value, _count({**flat, key: value}, shape)) for value in _VALUES[key]]
        found = [(value, count) for value, count in counts if count is not None]
        seen += len(found) > 1
        changed |= len({count for _, count in found}) > 1
        if key in NO_SIZE:
            assert len({count for _, count in found}) <= 1, (flat, found)
        elif all(isinstance(value, int) and not isinstance(value, bool) for value, _ in found):
            sizes = [count for _, count in found]
            assert sizes == sorted(sizes, reverse=key in _FALLING), (flat, found)
    assert seen, "no configuration was drawn that takes two values of it"
    assert changed == (key not in NO_SIZE), "an option that changes no count belongs into NO_SIZE"


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.stem)
def test_nothing_a_space_proposes_is_outside_its_extremes(file: Path) -> None:
    space = load_space(file, {} if "dataset: embedded" in file.read_text() else {"data": "somewhere"})
    shape = _EMBEDDED if "full.feature_encoder" not in file.read_text() else _WAVEFORM
    sizes = {size.method: size for size in method_sizes(space, shape, 9)}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(200):
        params = space.suggest(study.ask())
        count = trainable_params(space, params, shape, 9)
        size = sizes[str(space.flat(params)["method"])]
        assert size.least <= count <= size.most, params
    for partial in space.enqueue:
        params = space.complete(partial)
        size = sizes[str(space.flat(params)["method"])]
        assert size.least <= trainable_params(space, params, shape, 9) <= size.most, params


def _space(params: str) -> Any:
    return parse_space(f"schema: petl.space/1\nbudget: {{trials: 1}}\nparams:\n{params}", "demo.yaml")


def test_options_behind_a_switch_that_changes_no_count_are_found() -> None:
    space = _space(
        "  method: {choice: [prefix]}\n  prefix.table: {choice: [layers, embedding]}\n"
        "  prefix.reparam: {choice: [false, true], when: {prefix.table: embedding}}\n"
        "  prefix.hidden: {int: [8, 64], when: {prefix.reparam: true}}\n"
    )
    (size,) = method_sizes(space, _EMBEDDED, 9)
    flat = {"method": "prefix", "prefix.table": "embedding", "prefix.reparam": True, "prefix.hidden": 64}
    assert size.most == trainable_parameters(MethodConfig.from_flat(flat), _EMBEDDED, 9)


def test_widths_inside_a_range_that_do_not_fit_are_found() -> None:
    space = _space(
        "  method: {choice: [adapter]}\n  adapter.block: {choice: [bottleneck, conv]}\n  adapter.width: {int: [2, 4]}\n"
    )
    with pytest.raises(UserError, match=r"demo\.yaml, line 6: adapter\.width gives a width of 3, but the grouped"):
        method_sizes(space, _EMBEDDED, 9)
    text = "  method: {choice: [prompt]}\n  prompt.insertion: {choice: [insert, replace_dist]}\n"
    with pytest.raises(UserError, match=r"line 5: prompt\.insertion 'replace_dist' drops a distillation token"):
        method_sizes(_space(text), _WAVES, 9)  # although it changes no count
    with pytest.raises(UserError, match=r"line 4: pooling 'cls' needs a CLS token, which backbone family 'wav2vec2'"):
        method_sizes(_space("  pooling: {choice: [mean, cls]}\n  method: {choice: [linear, lora]}\n"), _WAVES, 9)


def test_counts_and_limits_follow_the_length_of_the_input() -> None:
    """The data's frames, `data.frames` and the strides decide how many positions and patches there are."""
    full = parse_space(_BASE.format("{method: full}"), "demo.yaml")
    counts = [trainable_params(full, full.complete({}), _AST, 9, frames) for frames in (None, 512)]
    columns = {1024: 101, 512: 50}
    assert counts[0] - counts[1] == 768 * 12 * (columns[1024] - columns[512])
    given = parse_space(_BASE.format("{method: full, data.frames: 512}"), "demo.yaml")
    assert trainable_params(given, given.complete({}), _AST, 9, None) == counts[1]
    strided = parse_space(_BASE.format("{method: full, frequency_stride: 16, time_stride: 16}"), "demo.yaml")
    assert trainable_params(strided, strided.complete({}), _AST, 9) == counts[0] - 768 * (12 * 101 - 8 * 64)
    whisper = BackboneShape.from_config({"model_type": "whisper"})
    assert fitted(whisper, full.trial_config(full.complete({})), 100).max_frames == 100

    text = "  method: {choice: [prompt]}\n  prompt.length: {int: [8, 700]}\n  prompt.insertion: {fixed: overwrite}\n"
    assert method_sizes(_space(text), _AST, 9)
    with pytest.raises(UserError, match=r"line 5: prompt\.length is 700, but there are 600 patches to overwrite"):
        method_sizes(_space(text), _AST, 9, frames=512)


@pytest.mark.parametrize(
    ("params", "shape", "said"),
    [
        (
            "  aug.time_mask: {choice: [0, 20]}\n",
            _WAVES,
            "line 4: aug.time_mask is 20, but the backbone reads",
        ),
        ("  time_stride: {choice: [8, 10]}\n", _WAVES, "line 4: time_stride moves the patches"),
        ("  positions: {choice: [interpolate, zero]}\n", _WAVES, "line 4: positions is 'zero', but backbone family"),
        ("  positions: {choice: [interpolate, zero]}\n", _WHISPER, "line 4: positions is 'zero', but backbone family"),
        ("  data.frames: {choice: [20, 21]}\n", _WHISPER, "line 4: data.frames is 21; it is halved"),
    ],
)
def test_sampled_options_about_the_input_are_tried_on_the_backbone(
    params: str, shape: BackboneShape, said: str
) -> None:
    space = _space(f"{params}  method: {{choice: [linear]}}\n")
    for find in (lambda: check_inputs(space, shape), lambda: method_sizes(space, shape, 9)):
        with pytest.raises(DoesNotFit, match=re.escape(said)):
            find()
    if params.startswith("  aug"):
        check_inputs(space, _AST)
