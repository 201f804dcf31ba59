"""What nodes and jobs run: `deploy/fetch_data.py` and `deploy/start_or_resume.py`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _module(name: str) -> ModuleType:
    """A script as a module: they are files beside the packages, not in them."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fetch_data = _module("fetch_data")
start_or_resume = _module("start_or_resume")


def test_recordings_are_copied_once_with_their_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "bucket with a space", tmp_path / "node" / "data"
    (source / "ESC-50" / "audio").mkdir(parents=True)
    (source / "ESC-50" / "audio" / "1.wav").write_bytes(b"\0" * 1000)
    (source / "ESC-50" / "esc50.csv").write_text("filename\n1.wav\n")
    assert fetch_data.main([str(source), str(target)]) == 0
    assert "2 files" in capsys.readouterr().out
    assert (target / "ESC-50/audio/1.wav").read_bytes() == b"\0" * 1000
    (source / "later.txt").write_text("not fetched any more")
    assert fetch_data.main([str(source), str(target)]) == 0
    assert "already" in capsys.readouterr().out and not (target / "later.txt").exists()


def test_a_copy_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.wav").write_bytes(b"whole")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a.wav").write_bytes(b"who")  # and no mark
    assert fetch_data.main([str(tmp_path / "source"), str(tmp_path / "target")]) == 0
    assert (tmp_path / "target" / "a.wav").read_bytes() == b"whole"


def test_what_cannot_be_copied_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".fetched").write_text("s3://another/place\n")
    (tmp_path / "empty").mkdir()
    for words, said in (
        ((tmp_path / "empty", tmp_path / "full"), "s3://another/place"),
        ((tmp_path / "empty", tmp_path / "new"), "holds no file"),
        ((tmp_path / "nothing", tmp_path / "new"), "nothing"),
        (("ftp://host/x", tmp_path / "new"), "ftp"),
    ):
        assert fetch_data.main([str(word) for word in words]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()
    assert fetch_data.main([str(tmp_path)]) == 2


def test_a_named_search_begins_and_the_plan_is_that_of_launch(tmp_path: Path) -> None:
    """The whole way once, as a process in another folder than the project's."""
    options = ["--space", str(ROOT / "spaces/moa.yaml"), "--dry-run"]
    command = [sys.executable, str(ROOT / "deploy/start_or_resume.py"), "moa-1", str(tmp_path / "store"), *options]
    settings = {**os.environ, "COLUMNS": "200"}
    ran = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    first, *plan = ran.stdout.splitlines()
    assert first.split() == ["launch.py", "--output", "runs/moa-1", "--storage", str(tmp_path / "store"), *options]
    assert any("epochs in all" in line for line in plan)


def test_it_is_continued_from_wherever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage, options = str(tmp_path / "store"), ["--trials", "100"]
    rest, runs, root = ["--storage", storage, *options], tmp_path / "runs" / "moa-1", tmp_path / "store" / "moa-1"

    def command() -> list[str]:
        found: list[str] = start_or_resume.command("moa-1", storage, options)
        assert found[2:] == rest
        return found[:2]

    begin, here, there = ["--output", "runs/moa-1"], ["--resume", "runs/moa-1"], ["--resume", str(root)]
    assert command() == begin
    # A driver that died before its first line, on this machine or another, is no search to continue.
    session = _write_state(root)
    assert command() == begin
    runs.mkdir(parents=True)
    for name, content in (("space.yaml", "x\n"), (".lock", ""), ("journal.jsonl", "")):
        (runs / name).write_text(content)
        assert command() == begin, name
    (runs / "journal.jsonl").write_text("{}\n")
    assert command() == here
    (root / "run" / f"journal-000000000000-{'f' * 32}.jsonl").write_text("{}\n")  # of one that never had the run
    assert command() == here
    (root / "run" / f"journal-000000000000-{session}.jsonl").write_text("{}\n")
    assert command() == there  # which may know more
    (runs / "journal.jsonl").unlink()
    assert command() == there
    assert start_or_resume.command("moa-2", storage, options)[0] == "--output"


def _write_state(run: Path) -> str:
    """What a search leaves on the storage when it is begun; its session."""
    from search.mirror_owner import Owner
    from trainables.storage import Storage

    owner = Owner(Storage(str(run)), run, "x", 10.0)
    owner.take(0.1, print)
    owner.end()
    return owner.state.session


@pytest.mark.parametrize("name", ["../moa", "a b", "a/b", ".hidden", "", "x\n"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(start_or_resume.UserError, match="no name for a run"):
        start_or_resume.command(name, str(tmp_path), [])


def test_a_damaged_state_does_not_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store" / "moa-1" / "run").mkdir(parents=True)
    (tmp_path / "store" / "moa-1" / "run" / "search.json").write_text("{")
    with pytest.raises(start_or_resume.UserError, match="damaged"):
        start_or_resume.command("moa-1", str(tmp_path / "store"), [])
    with pytest.raises(SystemExit) as exit_:
        start_or_resume.main(["moa-1", str(tmp_path / "store")])
    assert exit_.value.code == 2
    with pytest.raises(SystemExit) as exit_:
        start_or_resume.main(["--space", "x"])
    assert exit_.value.code == 2
