"""The command line: what it accepts, what it refuses and how, and what it may not import."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from rich.console import Console

from petl import METHODS, PRESETS
from petl.config import method_keys
from search.commands.methods import list_methods
from tests.search.running import ROOT, command, petl_search, workplace
from tests.trainables import checkpoints
from tests.trainables.data.layouts import (
    esc50,
    fluent_speech_commands,
    iemocap,
    librispeech,
    openmic,
    speech_commands_v2,
    vctk,
)

MOA = ROOT / "spaces" / "moa.yaml"

OPTIONS = {
    "--space", "--data", "--dataset", "--backbone", "--trials", "--max-epochs", "--time-budget", "--seed", "--set",
    "--skip-bad-files", "--concurrent", "--workers-per-trial", "--gpus-per-worker", "--cpus-per-worker", "--address",
    "--storage", "--mlflow", "--output", "--resume", "--dry-run", "--verbose", "--help",
}  # fmt: skip
COMMANDS = {"search", "sync", "predict", "evaluate", "train", "report", "methods", "datasets", "recipes", "doctor"}


def _run(arguments: list[str], cwd: Path, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    import os

    environment = {**os.environ, "COLUMNS": "200", "PETL_CACHE": str(cache or cwd / "cache")}
    return subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)


def _flat(text: str) -> str:
    return " ".join(text.split())


def test_the_options_people_script_with_stay() -> None:
    from typer.main import get_command

    from search import cli

    door = get_command(cli._door)
    assert {name for parameter in door.params for name in parameter.opts if name.startswith("--")} | {
        "--help"
    } == OPTIONS
    assert set(get_command(cli.app).commands) == COMMANDS  # type: ignore[attr-defined]


@pytest.mark.parametrize("arguments", [["--help"], ["--space", str(MOA), "--dry-run"]])
def test_help_and_dry_run_import_neither_torch_nor_ray(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv[0] = 'launch.py'\n"
        "from search.cli import launch\n"
        "try: launch()\n"
        "except SystemExit as end: code = end.code\n"
        "bad = [m for m in ('torch', 'ray', 'transformers', 'mlflow', 'optuna') if m in sys.modules]\n"
        "print('IMPORTED', bad); sys.exit(code)"
    )
    told = _run([sys.executable, "-c", code, *arguments], tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "IMPORTED []" in told.stdout


def test_the_plan_says_what_would_happen(tmp_path: Path) -> None:
    told = _run(command("--space", MOA, "--dry-run", "--trials", "5"), tmp_path)
    assert told.returncode == 0
    for words in ("soft_moa-e7-r128", "9 classes", "243 training", "5 of up to 27 epochs", "after epoch 3, 9"):
        assert words in _flat(told.stdout), words
    assert not (tmp_path / "runs").exists() and not (tmp_path / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to search: --space FILE"),
        (["--space", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["--space", str(MOA), "--set", "epocs=3"], "did you mean 'epochs'"),
        (["--space", str(MOA), "--set", "epochs"], "write key=value"),
        (["--space", str(MOA), "--set", "optim.lr=0.1"], "optim.lr"),
        (["--space", str(MOA), "--dataset", "esc50"], "needs data"),
        (["--space", str(MOA), "--dataset", "esc51", "--data", "."], "did you mean 'esc50'"),
        (["--space", str(MOA), "--data", "."], "say what it is with dataset"),
        (["--space", str(MOA), "--dataset", "folder", "--data", "no/such/place"], "does not exist"),
        (["--space", str(MOA), "--backbone", "./nothing-here"], "nothing-here"),
        (["--space", str(MOA), "--time-budget", "soon"], "time-budget"),
        (["--space", str(MOA), "--workers-per-trial", "999"], "needs 999 CPUs"),
        (["--space", str(MOA), "--gpus-per-worker", "1.5"], "a share of one GPU"),
        (["--space", str(MOA), "--mlflow", "ftp://somewhere"], "ftp"),
        (["--space", str(MOA), "--address", "127.0.0.1:9"], "--address 127.0.0.1:9: nothing listens at"),
        (["--space", str(MOA), "--storage", ""], "--storage is empty"),
        (["--resume", "nowhere"], "no such directory"),
        (["--resume", "."], "not the directory of a search"),
        (["--space", str(MOA), "--trials", "0"], "--trials"),
        (["--spaec", str(MOA)], "--space"),
    ],
)
def test_a_wrong_request_gets_one_message_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    told = _run(command(*arguments), tmp_path, tmp_path.parent / f"{tmp_path.name}-cache")
    assert told.returncode == 2, told.stdout + told.stderr
    assert said in _flat(told.stderr), told.stderr
    assert "Traceback" not in told.stderr + told.stdout
    assert list(tmp_path.iterdir()) == []


def test_audio_that_cannot_be_used_is_all_listed_before_anything_starts(tmp_path: Path, tones: Path) -> None:
    import shutil

    shutil.copytree(tones, tmp_path / "sounds")
    (tmp_path / "sounds" / "low" / "noise.wav").write_bytes(b"not audio at all")
    soundfile.write(tmp_path / "sounds" / "high" / "blip.wav", [0.0] * 50, 16000)
    (tmp_path / "work").mkdir()
    with workplace(tmp_path) as environment:
        told = subprocess.run(
            command("--space", MOA, "--dataset", "folder", "--data", tmp_path / "sounds"),
            cwd=tmp_path / "work",
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert told.returncode == 2, told.stdout
    for words in ("noise.wav", "unreadable", "blip.wav", "too short", "--skip-bad-files"):
        assert words in told.stderr, words
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "nowhere", "clip.wav"], "clip.wav: there is no such file"),
        (["predict", ".", "."], "no recordings in this folder"),
        (["evaluate", "."], "not an adapter directory"),
        (["train", "nowhere.yaml"], "there is no such file"),
        (["train", str(MOA)], "use `petl-search search --space`"),
        (["report", "."], "journal.jsonl"),
        (["methods", "--backbone", "./nothing-here"], "nothing-here"),
    ],
)
def test_other_commands_refuse_in_the_same_way(tmp_path: Path, arguments: list[str], said: str) -> None:
    told = _run(petl_search(*arguments), tmp_path)
    assert told.returncode == 2, told.stdout + told.stderr
    assert said in _flat(told.stderr), told.stderr
    assert "Traceback" not in told.stderr


def test_methods_and_datasets_are_listed(tmp_path: Path) -> None:
    methods = _run(petl_search("methods"), tmp_path)
    assert methods.returncode == 0, methods.stderr
    for words in ("moa.experts", "soft_moa only", "aat_mlp_spatial", "arXiv 2402.00828", "adapter.legacy_discard_conv"):
        assert words in methods.stdout, words
    assert "needs a convolutional front end" in _flat(methods.stdout), "feature_adapter on an AST is explained"
    assert "1,417" not in methods.stdout
    more = _run(petl_search("methods", "--classes", "9"), tmp_path)
    assert "1,417" in more.stdout, "final LayerNorm 256 + head 129 * 9"
    datasets = _run(petl_search("datasets"), tmp_path)
    assert datasets.returncode == 0
    assert all(name in datasets.stdout for name in ("embedded", "esc50", "folder", "manifest"))


_BACKBONES = {
    "ast": {"model_type": "audio-spectrogram-transformer"},
    "wav2vec2": {"model_type": "wav2vec2"},
    "whisper": {"model_type": "whisper"},
}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("family", _BACKBONES)
def test_methods_of_a_backbone_fit_the_terminal(tmp_path: Path, family: str, width: int) -> None:
    """Every key, every method and every published setting, at any width, for any family."""
    (tmp_path / "config.json").write_text(json.dumps(_BACKBONES[family]))
    console = Console(width=width, record=True, file=io.StringIO())
    list_methods(str(tmp_path), 50, console)
    text = console.export_text()
    assert all(len(line.rstrip()) <= width for line in text.splitlines()[2:]), "the first line holds a path"
    shown = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert shown >= {info.key for info in method_keys() if info.key != "method"} | set(METHODS) | set(PRESETS)
    if family == "ast":
        rows = {line.split()[0]: line.split()[-1] for line in reversed(text.splitlines()) if line.strip()}
        assert rows["linear"] == "39,986" and rows["pfeiffer"] == f"{248_976 + 39_986:,}"
    flat = _flat(text)
    assert ("not on this backbone: cls, cls+dist" in flat) == (family != "ast")
    assert ("not on this backbone: grid" in flat) == (family != "ast")
    assert ("not on this backbone: method 'feature_adapter'" in flat) == (family == "ast")
    assert ("not on this backbone: replace_dist" in flat) == (family != "ast")


def test_methods_need_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['petl-search', 'methods']\n"
        "from search.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "bad = [m for m in ('torch', 'ray', 'transformers', 'mlflow', 'optuna') if m in sys.modules]\n"
        "print('IMPORTED', bad); sys.exit(code)"
    )
    told = _run([sys.executable, "-c", code], tmp_path)
    assert told.returncode == 0, told.stderr
    assert "IMPORTED []" in told.stdout


_COPIES = {
    "environmental_sound": (esc50, None),
    "keyword_spotting": (speech_commands_v2, None),
    "tagging": (openmic, None),
    "emotion": (iemocap, "wavlm"),
    "speaker": (vctk, "wavlm"),
    "intent": (fluent_speech_commands, "wavlm"),
    "speech_recognition": (librispeech, "wav2vec2"),
}
"""The spaces about published data: a miniature copy, and a tiny backbone of the kind (None: the embedded one)."""
_ALL = sorted((ROOT / "spaces").glob("*.yaml"))


@pytest.mark.parametrize("name", _COPIES)
def test_spaces_of_tasks_have_a_plan(tmp_path: Path, name: str) -> None:
    module, kind = _COPIES[name]
    data = module.write(tmp_path / "data", audio=False)
    backbone = "embedded" if kind is None else checkpoints.save(kind, tmp_path / kind, hidden_size=64)
    told = _run(
        command("--space", ROOT / "spaces" / f"{name}.yaml", "--dry-run", "--data", data, "--backbone", backbone),
        tmp_path,
    )
    assert told.returncode == 0, told.stderr
    assert "tried first" in told.stdout and "note:" not in told.stdout


@pytest.mark.parametrize("space", [file for file in _ALL if file.stem not in _COPIES], ids=lambda file: file.stem)
def test_every_space_has_a_plan(tmp_path: Path, space: Path) -> None:
    told = _run(command("--space", space, "--dry-run"), tmp_path)
    assert told.returncode == 0, told.stderr
    assert "9 classes" in told.stdout and "tried first" in told.stdout
    assert "note:" not in told.stdout


def test_the_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    well = _run(petl_search("doctor"), tmp_path)
    assert well.returncode == 0, well.stdout
    assert ("everything is there" in well.stdout and "float32" in well.stdout) or "bfloat16" in well.stdout
    ill = _run(petl_search("doctor", "--mlflow", "http://127.0.0.1:9"), tmp_path)
    assert ill.returncode == 1 and "bad" in ill.stdout and "1 of 11 checks failed" in ill.stdout
