"""What is refused before a search starts because it does not fit the kind of backbone."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from petl.counts import BackboneShape
from petl.errors import UserError
from search.commands.plan import show_plan
from search.live import LineView
from search.prepare import check_precisions, check_sampled, deadline, positions_note, prepare_data, protocol_note
from search.request import Request
from search.resources import local_resources
from search.sizes import fitted
from search.space import Space, parse_space
from tests.trainables import checkpoints
from tests.trainables.miniatures import Case, write
from trainables.config import TrialConfig
from trainables.opening import open_for


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("wavlm", {"aug.freq_mask": 8}, r"aug\.freq_mask is 8, but the backbone reads waveforms"),
        ("wavlm", {"time_stride": 8}, "time_stride moves the patches of a spectrogram"),
        ("whisper", {"frequency_stride": 8}, "frequency_stride moves the patches of a spectrogram"),
        ("wavlm", {"positions": "zero"}, "positions is 'zero', but backbone family 'wavlm' has no position embeddings"),
        ("whisper", {"positions": "zero"}, "positions is 'zero', but backbone family 'whisper'"),
        ("whisper", {"data.frames": 31}, r"data\.frames is 31; .* must be even"),
        ("whisper", {"data.frames": 400}, r"data\.frames is 400, but the backbone has positions for 120"),
    ],
)
def test_what_does_not_fit_the_backbone(
    kind: str, more: dict[str, Any], said: str, tones: Path, tmp_path: Path
) -> None:
    backbone = checkpoints.save(kind, tmp_path / kind)
    flat = {"backbone": str(backbone), "dataset": "folder", "data": str(tones), "method": "linear", **more}
    with pytest.raises(UserError, match=said):
        prepare_data(TrialConfig.from_flat(flat), LineView(Console(file=io.StringIO())), threading.Event())


def test_a_front_end_of_another_family_is_refused_before_data_are_read(tmp_path: Path) -> None:
    backbone = checkpoints.save("wavlm", tmp_path / "wavlm")
    (backbone / "preprocessor_config.json").write_text('{"feature_extractor_type": "ASTFeatureExtractor"}')
    flat = {"backbone": str(backbone), "dataset": "folder", "data": str(tmp_path / "none"), "method": "linear"}
    with pytest.raises(UserError, match="ASTFeatureExtractor"):
        prepare_data(TrialConfig.from_flat(flat), LineView(Console(file=io.StringIO())), threading.Event())


_AST, _DEIT = {"model_type": "audio-spectrogram-transformer"}, {"model_type": "deit"}
_WHISPER = {"model_type": "whisper"}


@pytest.mark.parametrize(
    ("config", "flat", "frames", "said"),
    [
        (_AST, {}, 1024, "as pretrained, 12 x 101 patches for 1024 frames"),
        (_AST, {"frequency_stride": 10, "time_stride": 10}, 1024, "as pretrained, 12 x 101 patches for 1024 frames"),
        (_AST, {"positions": "zero"}, 1024, "as pretrained, 12 x 101 patches for 1024 frames"),
        (_AST, {}, 1020, "as pretrained, 12 x 101 patches for 1020 frames"),
        (
            _AST,
            {"time_stride": 4},
            512,
            "interpolated along time: pretrained with 12 x 101 patches for 1024 frames, "
            "used with 12 x 125 patches for 512 frames",
        ),
        (
            _AST,
            {"time_stride": 16, "positions": "zero"},
            1024,
            "set to zero: pretrained with 12 x 101 patches for 1024 frames, used with 12 x 64 patches for 1024 frames",
        ),
        (
            _AST,
            {"frequency_stride": 5},
            512,
            "cut along time, interpolated along frequency: pretrained with 12 x 101 patches for 1024 frames, "
            "used with 23 x 50 patches for 512 frames",
        ),
        (
            _DEIT,
            {},
            1024,
            "cut along frequency, interpolated along time: pretrained with 14 x 14 patches for images, "
            "used with 12 x 101 patches for 1024 frames",
        ),
        (_WHISPER, {}, 3000, "as pretrained, for 3000 frames"),
        (_WHISPER, {}, 500, "the first 250 of 1500: pretrained for 3000 frames, used for 500"),
        ({"model_type": "wav2vec2"}, {}, 300, "relative: inputs of any length, here of at most 300 frames of 10 ms"),
    ],
)
def test_what_is_said_about_positions(
    config: dict[str, str], flat: dict[str, Any], frames: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = TrialConfig.from_flat({"backbone": str(tmp_path), "method": "linear", **flat})
    own = BackboneShape.from_config(config)
    assert positions_note(base, own, fitted(own, base, frames), frames) == said


@pytest.fixture(scope="module")
def tiny_wave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.save("wav2vec2", tmp_path_factory.mktemp("tiny-wav2vec2"))


_SPACE = """
schema: petl.space/1
budget: {{trials: 1}}
base: {base}
params:
  method: {{choice: [linear, lora]}}
  {param}
"""
_SURE = (
    "{recipe: sure, backbone: jonatasgrosman/wav2vec2-large-xlsr-53-english, dataset: fleurs, data: /nowhere, "
    "data.subset: de_de}"
)
_ROLL = "aug.roll: {choice: [0, 5]}"


def _space(base: str = "{}", param: str = "optim.lr: {float: [1.0e-4, 1.0e-2]}") -> Space:
    return parse_space(_SPACE.format(base=base, param=param), "there.yaml")


@pytest.mark.parametrize(
    ("base", "param", "line"),
    [
        ("{train.precision: float16}", "optim.lr: {fixed: 0.1}", 4),
        ("{}", "train.precision: {choice: [auto, float16]}", 7),
        ("{}", "train.precision: {choice: [auto, float16], when: {method: lora}}", 7),
        ("{}", "train.precision: float16", 7),
        (_SURE, "optim.weight_decay: {float: [1.0e-4, 1.0e-2]}", 4),
    ],
)
def test_a_precision_that_needs_a_gpu_is_refused_before_anything_starts(
    base: str, param: str, line: int, tmp_path: Path
) -> None:
    space = _space(base, param)
    check_precisions(space, gpu=True)
    said = rf"there.yaml, line {line}: train\.precision is 'float16', .* \(--set train\.precision=auto\)$"
    with pytest.raises(UserError, match=said):
        check_precisions(space, gpu=False)
    if not local_resources().gpus:
        (tmp_path / "there.yaml").write_text(_SPACE.format(base=base, param=param))
        with pytest.raises(UserError, match=r"train\.precision is 'float16'"):
            show_plan(Request(space=tmp_path / "there.yaml"), Console(file=io.StringIO()))


def test_precisions_that_can_be_had_are_left_alone() -> None:
    for base in ("{}", "{train.precision: bfloat16}", _SURE[:-1] + ", train.precision: auto}"):
        check_precisions(_space(base, "optim.weight_decay: {float: [1.0e-4, 1.0e-2]}"), gpu=False)


def test_sampled_options_that_mean_nothing_on_the_data(tones: Path, tiny_wave: Path) -> None:
    base = f"{{backbone: {tiny_wave}, dataset: folder, data: {tones}, epochs: 1}}"
    space = _space(base)
    (data,) = open_for(space.trial_config(space.complete({})))
    for param in (_ROLL, "aug.mixup: {choice: [0.0, 0.5]}", "aug.noise: {choice: [0.0, 0.5]}"):
        check_sampled(_space(base, param), data)
    with pytest.raises(UserError, match=r"there.yaml, line 7: aug\.gain is 6, .* no gain is left of it"):
        check_sampled(_space(base, "aug.gain: {choice: [0.0, 6.0]}"), data)


def test_what_transcripts_do_not_take(tiny_wave: Path, tmp_path: Path) -> None:
    case = Case("librispeech", "text", "clean-100", "standard")
    flat = {**case.flat(write(case.copy, tmp_path)), "backbone": str(tiny_wave), "epochs": 1}
    base = json.dumps(flat)
    (data,) = open_for(TrialConfig.from_flat({**flat, "method": "linear"}))
    check_sampled(_space(base), data)
    with pytest.raises(UserError, match=r"line 7: aug\.roll is 5, but a clip .* does not say its transcript"):
        check_sampled(_space(base, _ROLL), data)


def test_every_repeat_has_its_time_and_folds_say_what_chose_the_winner(tiny_ast: Path, tmp_path: Path) -> None:
    case = Case("esc50", "sound", "esc50", "standard")
    flat = {**case.flat(write(case.copy, tmp_path)), "backbone": str(tiny_ast), "method": "linear"}
    notes = {}
    for fold in ("1", "all"):
        config = TrialConfig.from_flat({**flat, "data.fold": fold, "train.deadline": 7.0})
        repeats = open_for(config)
        assert deadline(config, len(repeats)) == 7.0 * len(repeats)
        notes[fold] = protocol_note(repeats)
    assert "chosen on the mean" not in notes["1"]
    assert notes["all"].startswith(
        "mean over fold1, fold2, fold3, fold4, fold5, the winner chosen on the mean, so that "
    )
    draws = open_for(TrialConfig.from_flat({**flat, "data.shots": 3, "data.draw": "1,2"}))
    assert protocol_note(draws).startswith("mean over draw1, draw2; draw1: ")
