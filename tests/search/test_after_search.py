"""What is done with trials and adapters afterwards: train again, predict, evaluate; in this process, on tiny things."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
from rich.console import Console

from petl import AudioModel, UserError
from search.commands.evaluate import _check_changes, _config, evaluate_adapter
from search.commands.predict import predict_files
from search.commands.train import train_again
from search.export import write_trial
from tests.trainables.data.sounds import esc50, tone
from trainables.config import TrialConfig


def _console() -> Console:
    return Console(file=io.StringIO(), width=400)


def _said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def _trial(place: Path, tiny_ast: Path, root: Path, **more: Any) -> Path:
    flat = {
        "dataset": "folder",
        "data": str(root),
        "backbone": str(tiny_ast),
        "method": "linear",
        "epochs": 1,
        "optim.lr": 1e-2,
        "train.precision": "float32",
        **more,
    }
    write_trial(place / "t.yaml", "t", TrialConfig.from_flat(flat), ("val/accuracy", "max"))
    return place / "t.yaml"


@pytest.fixture(scope="module")
def adapter(tiny_ast: Path, tones: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("trained")
    err = _console()
    assert train_again(_trial(place, tiny_ast, tones), None, [], _console(), err) == 0, _said(err)
    return place / "t-again"


def _evaluated(
    adapter: Path, capsys: pytest.CaptureFixture[str], *, split: str = "test", **asked: Any
) -> tuple[dict[str, Any], str]:
    err = _console()
    evaluate_adapter(adapter, asked.get("data"), asked.get("dataset"), split, True, [], None, _console(), err)
    return json.loads(capsys.readouterr().out), _said(err)


def test_data_that_have_changed_are_told_of(
    adapter: Path, tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _evaluated(adapter, capsys)[1] == ""
    shutil.copytree(tones, tmp_path / "moved")
    assert _evaluated(adapter, capsys, data=str(tmp_path / "moved"))[1] == ""
    for number in range(5):
        tone(tmp_path / "moved" / "low" / f"new{number}.wav", 0.6, pitch=200, seed=number)
    told = _evaluated(adapter, capsys, data=str(tmp_path / "moved"))[1]
    assert "some of these clips may have been trained on" in told and "--split all" in told
    assert _evaluated(adapter, capsys, data=str(tmp_path / "moved"), split="all")[1] == ""  # not drawn, elsewhere
    for split in ("train", "val", "test"):
        for label in ("low", "middle"):
            for number in range(2):
                tone(tmp_path / "given" / split / label / f"{split}{number}.wav", 0.6, seed=number)
    assert _evaluated(adapter, capsys, data=str(tmp_path / "given"))[1] == ""


def test_the_data_of_the_training_that_have_changed_are_always_told_of(
    tiny_ast: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val", "test"):
        for label in ("low", "high"):
            for number in range(2):
                tone(tmp_path / "data" / split / label / f"{split}{number}.wav", 0.6, seed=number)
    trial = _trial(tmp_path, tiny_ast, tmp_path / "data")
    assert train_again(trial, None, [], _console(), _console()) == 0
    assert _evaluated(tmp_path / "t-again", capsys)[1] == ""
    tone(tmp_path / "data" / "test" / "low" / "new.wav", 0.6, seed=9)
    assert "may have been trained on" in _evaluated(tmp_path / "t-again", capsys)[1]
    assert _evaluated(tmp_path / "t-again", capsys, split="all")[1].endswith("may have been trained on")


def test_json_has_null_for_what_is_no_number(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With clips of one class alone, what the classifier says of the others has no value."""
    for number in range(3):
        tone(tmp_path / "data" / "low" / f"{number}.wav", 0.6, pitch=200, seed=number)
    found = _evaluated(adapter, capsys, data=str(tmp_path / "data"), split="all")[0]
    assert found["clips"] == 3

    def no_constant(name: str) -> Any:
        raise AssertionError(name)

    from search.commands.evaluate import _finite

    values = {"a": math.nan, "b": [1.0, math.inf, {"c": -math.inf}], "d": (2, None, "x")}
    text = json.dumps(_finite(values), allow_nan=False)
    read = json.loads(text, parse_constant=no_constant)
    assert read == {
        "a": None,
        "b": [1.0, None, {"c": None}],
        "d": [2, None, "x"],
    }


def test_another_data_set_leaves_the_options_of_the_old_one() -> None:
    trained = {
        "dataset": "librispeech",
        "data": "somewhere",
        "data.target": "phonemes",
        "data.subset": "clean",
        "data.lexicon": "lexicon.txt",
        "data.shots": 5,
        "data.draw": 2,
        "recipe": "sure",
        "epochs": 7,
    }
    config = _config(trained, "here", "folder", {})
    assert config.data == TrialConfig.from_flat({"dataset": "folder", "data": "here"}).data
    assert (config.epochs, config.recipe) == (7, None)
    assert _config(trained, "here", None, {"dataset": "folder"}) == _config(trained, None, "folder", {"data": "here"})
    assert _config(trained, "here", "folder", {"data.draw": 3, "data.shots": 2}).data.draw == 3
    assert trained["data"] == "somewhere"


def test_one_file_does_not_stop_the_others(
    adapter: Path,
    tones: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = sorted((tones / "low").glob("*.wav"))[:4]
    predict = AudioModel.predict

    def failing(model: AudioModel, clip: Any) -> Any:
        if clip == heard[1]:
            raise MemoryError
        if clip == heard[2]:
            raise RuntimeError("no room\nand so on")
        return predict(model, clip)

    monkeypatch.setattr(AudioModel, "predict", failing)
    err = _console()
    assert predict_files(adapter, heard, True, None, _console(), err, device="cpu") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in line for line in lines] == [False, True, True, False]
    assert lines[1]["error"].endswith("00.wav: MemoryError: no reason is given".replace("00", heard[1].stem))
    assert lines[2]["error"].endswith("RuntimeError: no room")
    assert "2 of 4 recordings could not be used" in _said(err)


def test_folders_are_searched_as_those_of_data_sets(
    adapter: Path, tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wave, rate = soundfile.read(tones / "low" / "00.wav")
    (tmp_path / "a" / ".trash").mkdir(parents=True)
    (tmp_path / "a" / "deeper").mkdir()
    soundfile.write(tmp_path / "a" / "deeper" / "one.oga", wave, rate, format="OGG")
    for hidden in ("a/.trash/two.wav", "a/.three.wav"):
        soundfile.write(tmp_path / hidden, wave, rate)
    assert predict_files(adapter, [tmp_path / "a"], True, None, _console(), _console()) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["path"].endswith("one.oga")


@pytest.mark.parametrize("name", ["gpu", "cuda:999", "meta"])
def test_devices_that_are_not_there(adapter: Path, tones: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"--device {name}: it cannot be used here"):
        predict_files(adapter, [tones], True, None, _console(), _console(), device=name)
    with pytest.raises(UserError, match=f"--device {name}: it cannot be used here"):
        evaluate_adapter(adapter, None, None, "test", True, [], None, _console(), _console(), device=name)


def test_a_training_that_diverges_is_a_failure_and_no_wrong_request(
    tiny_ast: Path, tones: Path, tmp_path: Path
) -> None:
    err = _console()
    trial = _trial(tmp_path, tiny_ast, tones, **{"method": "adapter", "adapter.reduction": 4})
    status = train_again(trial, None, ["optim.lr=1e30", "epochs=3"], _console(), err)
    assert status == 1 and "diverged" in _said(err)
    assert not (tmp_path / "t-again").exists()


def test_every_place_is_checked_before_the_training(tiny_ast: Path, tmp_path: Path) -> None:
    trial = _trial(tmp_path, tiny_ast, esc50(tmp_path / "esc50"), **{"dataset": "esc50", "data.fold": "1,2"})
    (tmp_path / "out-fold2").mkdir()
    (tmp_path / "out-fold2" / "mine.txt").write_text("precious")
    out = _console()
    with pytest.raises(UserError, match="out-fold2 exists and is not empty"):
        train_again(trial, tmp_path / "out", [], out, _console())
    assert _said(out) == "" and not (tmp_path / "out").exists()
    shutil.rmtree(tmp_path / "out-fold2")
    assert train_again(trial, tmp_path / "out", [], out, _console()) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"t.yaml", "esc50", "out", "out-fold2"}


def test_settings_that_change_nothing_and_other_splits_of_the_same_data_are_refused(tmp_path: Path) -> None:
    trained = {"dataset": "esc50", "data": str(tmp_path), "data.fold": 1, "method": "linear"}
    config = TrialConfig.from_flat(trained)
    for key, value in (("optim.lr", 1.0), ("data.frames", 64), ("epochs", 3)):
        with pytest.raises(UserError, match=rf"--set {key}=… changes nothing about a trained adapter"):
            _check_changes({key: value}, trained, config, "test")
    with pytest.raises(UserError, match=r"--set data.fold=2: the adapter was trained with 1 there"):
        _check_changes({"data.fold": 2}, trained, config, "test")
    _check_changes({"data.fold": 1, "train.eval_batch_size": 8}, trained, config, "test")
    _check_changes({"data.fold": 2}, trained, config, "all")
    elsewhere = TrialConfig.from_flat({**trained, "data": str(tmp_path / "other")})
    _check_changes({"data.fold": 2}, trained, elsewhere, "test")
