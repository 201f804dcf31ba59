"""Backbones by hub id: from the local cache, and what is said when the hub cannot be reached."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.petl.models import tiny_checkpoint

COMMIT = "a" * 40
REPORT = """
import petl
try:
    print({call})
except petl.UserError as error:
    print(error)
"""


def _run(call: str, tmp_path: Path, **environment: str) -> str:
    """Run `call` in a process of its own: the hub's client reads its settings when it is imported."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(call=call)],
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The hub's cache with one model in it."""
    repository = tmp_path / "hf" / "hub" / "models--someone--tiny-ast"
    shutil.copytree(tiny_checkpoint(tmp_path / "ast"), repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return tmp_path


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_cached_model_needs_no_network(cache: Path, revision: str | None) -> None:
    call = f"petl.load_backbone('someone/tiny-ast', revision={revision!r}).config._commit_hash"
    assert _run(call, cache, HF_HUB_OFFLINE="1").strip() == COMMIT
    assert "audio-spectrogram" in _run("petl.read_config('someone/tiny-ast')", cache, HF_HUB_OFFLINE="1")


def test_offline_says_what_to_do(tmp_path: Path) -> None:
    said = _run("petl.load_backbone('someone/tiny-ast')", tmp_path, HF_HUB_OFFLINE="1")
    assert "cannot be reached" in said and "hf download someone/tiny-ast" in said and "pass the directory" in said


def test_a_refused_connection(tmp_path: Path) -> None:
    said = _run("petl.read_config('someone/tiny-ast')", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert "cannot be reached" in said and "hf download" in said


def test_a_hub_that_does_not_answer_is_given_up_in_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        started = time.monotonic()
        port = silent.getsockname()[1]
        said = _run("petl.read_config('a/b')", tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{port}")
    assert "cannot be reached" in said and "timed out" in said
    assert time.monotonic() - started < 45


def test_pickles_in_the_cache_are_not_read(cache: Path) -> None:
    snapshot = cache / "hf" / "hub" / "models--someone--tiny-ast" / "snapshots" / COMMIT
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    assert "hf download" in _run("petl.load_backbone('someone/tiny-ast')", cache, HF_HUB_OFFLINE="1")
