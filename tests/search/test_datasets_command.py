"""`petl-search datasets`, `datasets check` and `recipes`: what they say, and what status they end with."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from petl.errors import ConfigError, UserError
from search.commands.data_check import check_copy
from search.commands.datasets import list_datasets, show_dataset
from search.commands.recipes import list_recipes
from search.plan import summarise
from tests.trainables.data.layouts import voxpopuli
from tests.trainables.data.sounds import class_folders
from trainables.config import DATASETS, DataOptions
from trainables.data.datasets import dataset, datasets
from trainables.recipes import RECIPES, recipes

OPTIONS: dict[str, str | None] = dict.fromkeys(("target", "subset", "protocol", "lexicon"))


def _console(width: int = 100) -> Console:
    return Console(width=width, file=io.StringIO(), highlight=False, color_system=None)


def _said(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def _flat(text: str) -> str:
    return " ".join(text.split())


def test_every_data_set_in_a_hundred_columns() -> None:
    out = _console()
    list_datasets(out)
    lines = _said(out).splitlines()
    assert max(map(len, lines)) <= 100
    named = {line.split()[0] for line in lines if line[:1].strip()}
    assert set(DATASETS) <= named
    esc50 = next(line for line in lines if line.startswith("esc50"))
    assert "2,000" in esc50 and "petl_ast" in esc50
    assert sum("*" in line for line in lines) >= sum(
        any(rule.reads_test for rule in known.protocols.values()) for known in datasets()
    )


@pytest.mark.parametrize("name", DATASETS)
def test_one_data_set_whole(name: str) -> None:
    out, known = _console(), dataset(name)
    show_dataset(name, out)
    text = _flat(_said(out))
    for word in (*known.targets, *known.subsets, *known.protocols, _flat(known.licence)):
        assert word in text, word
    assert text.count("[reads the test") == sum(rule.reads_test for rule in known.protocols.values())
    assert all(f"{expected.clips:,} clips" in text for expected in known.expected if expected.clips)
    assert max(map(len, _said(out).splitlines())) <= 100


def test_a_data_set_that_is_not_known() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gtzan'"):
        show_dataset("gtzam", _console())
    with pytest.raises(ConfigError, match="did you mean 'gtzan'"):
        check_copy("gtzam", Path(), OPTIONS, 5, True, False, _console())


def test_status_and_report_of_a_check(tmp_path: Path) -> None:
    root = class_folders(tmp_path, classes=2, clips=6, seconds=0.1)
    out = _console()
    assert check_copy("folder", root, OPTIONS, 5, True, False, out) == 0
    assert "clips 12, 2 classes" in _flat(_said(out)) and "nothing is wrong" in _said(out)
    for n in range(4):
        (root / "class0" / f"clip{n}.wav").write_bytes(b"no audio")
    out = _console()
    assert check_copy("folder", root, OPTIONS, 2, True, False, out) == 1
    text = _flat(_said(out))
    assert "error unreadable (4): nothing decodes them" in text
    assert "class0/clip1.wav: Format not recognised … and 2 more" in text
    assert text.endswith("this cannot be trained on as it is")


def test_a_check_as_json(tmp_path: Path) -> None:
    root = class_folders(tmp_path, classes=2, clips=6, seconds=0.1)
    (root / "class0" / "clip0.wav").write_bytes(b"")
    out = _console(width=20)
    assert check_copy("folder", root, OPTIONS, 5, True, True, out) == 1
    report = json.loads(_said(out))
    assert report["usable"] is False and report["facts"]["clips"] == 12
    assert [(f["severity"], f["kind"], f["count"], f["examples"]) for f in report["findings"]] == [
        ("error", "empty", 1, ["class0/clip0.wav: the file has 0 bytes"])
    ]


def test_a_check_of_what_a_data_set_does_not_have(tmp_path: Path) -> None:
    for key, value, said in (
        ("target", "labels", "data.target is 'labels'"),
        ("protocol", "standart", "standart"),
        ("subset", "x", "data.subset is 'x'"),
    ):
        with pytest.raises(UserError, match=said):
            check_copy("folder", tmp_path, {**OPTIONS, key: value}, 5, True, False, _console())


def test_commands_from_a_shell(tmp_path: Path) -> None:
    """One process for all of them: what is parsed how, the status, and that nothing heavy is imported."""
    root = class_folders(tmp_path / "data", classes=2, clips=6, seconds=0.1)
    bad = class_folders(tmp_path / "bad", classes=2, clips=6, seconds=0.1)
    (bad / "class0" / "clip0.wav").write_bytes(b"")
    commands = [
        ["datasets"],
        ["datasets", "gtzan"],
        ["datasets", "check", "folder", str(root)],
        ["datasets", "check", "folder", str(bad), "--json"],
        ["datasets", "check", "folder", str(bad), "--quick"],
        ["datasets", "gtzam"],
        ["datasets", "check", "folder", "nowhere"],
        ["recipes", "sure", "--dataset", "timit", "--method", "lora"],
        ["recipes", "sur"],
    ]
    code = (
        "import sys\nfrom search.cli import main\n"
        "def run(words):\n"
        "    sys.argv = ['petl-search', *words]\n"
        "    try: main()\n"
        "    except SystemExit as end: return end.code or 0\n"
        f"codes = [run(words) for words in {commands!r}]\n"
        "print('CODES', codes, [m for m in ('torch', 'ray', 'transformers') if m in sys.modules])\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "CODES [0, 0, 0, 1, 0, 2, 2, 0, 2] []" in told.stdout, told.stdout + told.stderr
    assert "no clip was decoded" in told.stdout
    assert "did you mean 'gtzan'" in told.stderr and "did you mean 'sure'" in told.stderr


def test_recipes_and_what_they_cover() -> None:
    out = _console()
    list_recipes(None, None, None, out)
    text = _said(out)
    assert all(name in text and recipe.source in text for name, recipe in RECIPES.items())
    for row in recipes():
        assert any(row.dataset in line and row.target in line for line in text.splitlines()), row
    assert "adapter (5)" in text, "five placements and blocks of adapters are published by PETL_AST"
    list_recipes("aat", None, None, only := _console())
    assert "petl_ast" not in _said(only) and "gtzan" in _said(only)


@pytest.mark.parametrize(("name", "on", "method"), [("petl_ast", "esc50", "lora"), ("sure", "timit", None)])
def test_settings_of_recipes_with_their_sources(name: str, on: str, method: str | None) -> None:
    out = _console(200)
    list_recipes(name, on, method, out)
    lines = [line.split() for line in _said(out).splitlines()]
    for row in recipes(name):
        if row.dataset == on and method in (None, row.method):
            for key, value in row.settings.items():
                assert any(words[:1] == [key] for words in lines), key
                if key == "optim.lr":
                    assert any(words[:2] == [key, f"{value:g}"] for words in lines)
    assert name == "sure" or ["optim.lr", "0.005", "code,", "hparams/train.yaml"] in lines


def test_recipes_of_several_backbones_are_listed_once() -> None:
    list_recipes("aat", "openmic", "linear", out := _console(160))
    assert _said(out).count("head.kind") == 1 and "with an AST or an AST of image weights (DeiT)" in _said(out)


def test_recipes_that_are_not_there() -> None:
    for arguments, said in (
        (("sur", None, None), "did you mean 'sure'"),
        ((None, "esc5", None), "did you mean 'esc50'"),
        (("aat", "timit", None), "no recipe has dataset 'timit'"),
        ((None, "timit", "loar"), "did you mean 'lora'"),
    ):
        with pytest.raises(ConfigError, match=said):
            list_recipes(*arguments, _console())


def test_a_plan_says_what_the_reader_left_out(tmp_path: Path) -> None:
    root = voxpopuli.write(tmp_path, audio=False)
    summary = summarise(DataOptions(dataset="voxpopuli", path=str(root)))
    assert summary.left_out == ("voxpopuli en: 1 of 8 utterances have no text and are left out",)
