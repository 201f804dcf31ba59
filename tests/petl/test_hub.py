"""Backbones by hub id: from the local cache, and what is said when the hub cannot be reached."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from petl import UserError
from petl.hub import check_weights
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
    """What `call` prints."""
    return _ran(call, tmp_path, **environment).stdout


def _ran(call: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `call` in a process of its own: the hub's client reads its settings when it is imported."""
    return subprocess.run(
        [sys.executable, "-c", REPORT.format(call=call)],
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The hub's cache with one model in it."""
    repository = tmp_path / "hf" / "hub" / "models--someone--tiny-ast"
    shutil.copytree(tiny_checkpoint(tmp_path / "ast"), repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return tmp_path


@pytest.mark.parametrize(
    "revision",
    [None, pytest.param("main", marks=pytest.mark.slow), pytest.param(COMMIT, marks=pytest.mark.slow)],
    ids=["default", "main", "commit"],
)
def test_a_cached_model_needs_no_network(cache: Path, revision: str | None) -> None:
    call = f"petl.load_backbone('someone/tiny-ast', revision={revision!r}).config._commit_hash"
    assert _run(call, cache, HF_HUB_OFFLINE="1").strip() == COMMIT
    assert "audio-spectrogram" in _run("petl.read_config('someone/tiny-ast')", cache, HF_HUB_OFFLINE="1")


class _Hub(ThreadingHTTPServer):
    """As much of the hub as its client asks for one small repository; `asked` lists the paths."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = files
        self.asked: list[str] = []


class _Answer(BaseHTTPRequestHandler):
    server: _Hub

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        place = self.path.partition("/resolve/")[2].partition("/")
        if self.path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in self.server.files]
            listing = {"id": "someone/tiny-ast", "modelId": "someone/tiny-ast", "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"})
        elif place[2] in self.server.files:
            self._send(200, self.server.files[place[2]], {})
        else:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        own = {"X-Repo-Commit": COMMIT, "ETag": f'"{len(content)}"', "Content-Length": str(len(content))}
        for key, value in {**own, **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _hub(files: dict[str, bytes]) -> Iterator[_Hub]:
    server = _Hub(files)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


FRONT_END = "petl.read_front_end('someone/tiny-ast')['mean']"


def test_a_front_end_that_is_not_cached_is_asked_for(cache: Path) -> None:
    """A cache filled by another program may hold config.json and weights alone."""
    with _hub({"config.json": b"{}", "preprocessor_config.json": b'{"mean": -1.5}'}) as hub:
        endpoint = f"http://127.0.0.1:{hub.server_port}"
        assert _run(FRONT_END, cache, HF_ENDPOINT=endpoint).strip() == "-1.5"
        assert hub.asked
        hub.asked.clear()
        assert _run(FRONT_END, cache, HF_ENDPOINT=endpoint).strip() == "-1.5"
        assert not hub.asked
    assert _run(FRONT_END, cache, HF_HUB_OFFLINE="1").strip() == "-1.5"


def test_that_a_repository_has_no_front_end_is_remembered(cache: Path) -> None:
    with _hub({"config.json": b"{}"}) as hub:
        done = _ran(FRONT_END, cache, HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}")
        assert done.stdout.startswith("-4.26") and "preprocessor_config.json" not in done.stderr
        hub.asked.clear()
        _run(FRONT_END, cache, HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}")
        assert not hub.asked
    done = _ran(FRONT_END, cache, HF_HUB_OFFLINE="1")
    assert done.stdout.startswith("-4.26") and "preprocessor_config.json" not in done.stderr


def test_offline_without_a_front_end_goes_on_and_says_so(cache: Path) -> None:
    done = _ran(FRONT_END, cache, HF_HUB_OFFLINE="1")
    assert done.stdout.startswith("-4.26")
    assert "has no preprocessor_config.json" in done.stderr and "features may differ" in done.stderr


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no model.safetensors"),
        (b"", "cut off in its header"),
        (b"\xff" * 40, "cut off in its header"),
        ((2).to_bytes(8, "little") + b"[]", "header is damaged"),
        ((2).to_bytes(8, "little") + b"{}", "holds no tensors"),
        ((33).to_bytes(8, "little") + b'{"a": {"data_offsets": [0, "1"]}}', "bytes are missing"),
        ((33).to_bytes(8, "little") + b'{"a": {"data_offsets": [0, "x"]}}', "header is damaged"),
        ((35).to_bytes(8, "little") + b'{"a": {"data_offsets": [0, 1e999]}}', "header is damaged"),
        ("half", "bytes are missing"),
    ],
    ids=["none", "empty", "noise", "list", "nothing", "text", "word", "infinite", "half"],
)
def test_weights_are_looked_at_before_anything_starts(content: bytes | str | None, said: str, tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "ast")
    check_weights(str(directory), None, "ASTModel")
    weights = directory / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    if content is not None:
        weights.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(UserError, match=said):
        check_weights(str(directory), None, "ASTModel")


def test_pickled_weights_are_named_with_a_way_out(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "ast")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"found pytorch_model\.bin.*WavLMModel\.from_pretrained"):
        check_weights(str(directory), None, "WavLMModel")
