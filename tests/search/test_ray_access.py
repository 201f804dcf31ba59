"""Tokens of Ray: where they lie, what they keep out, and that the user's own are left alone."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from search import ray_access
from search.ray_access import MODE, PATH, TOKEN, cluster_token, exposed_token, local_token, sends_token, token_fault
from tests.search.own_ray import local_ray, started_head, without_tokens
from tests.search.running import ROOT, processes_of


@pytest.fixture(autouse=True)
def _no_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (MODE, TOKEN, PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".ray").mkdir(parents=True)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_token_of_its_own(tmp_path: Path) -> None:
    before = os.umask(0)  # the worst that a user may have
    try:
        with local_token(tmp_path) as first:
            assert first is not None and os.environ[PATH] == str(first) and os.environ[MODE] == "token"
            assert (_mode(first), _mode(first.parent)) == (0o600, 0o700)
            token = first.read_text()
            assert len(token) == 64 and exposed_token() == "" and token_fault() == ""
            assert not any(token in value for value in os.environ.values())
    finally:
        os.umask(before)
    assert not first.parent.exists() and not {MODE, PATH, TOKEN} & set(os.environ)
    with local_token(tmp_path) as second:
        assert second is not None and second.read_text() != token
    assert not any((tmp_path / "home" / ".ray").iterdir())


@pytest.mark.parametrize("settings", [{MODE: "disabled"}, {TOKEN: "ab"}, {PATH: "/x"}, {MODE: "Token", PATH: "/x"}])
def test_the_users_own_settings_stay(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with local_token() as file:
        assert file is None
        assert {name: os.environ.get(name) for name in (TOKEN, PATH)} == {
            name: settings.get(name) for name in (TOKEN, PATH)
        }
        assert os.environ[MODE] == settings.get(MODE, "token").lower()
    assert os.environ.get(MODE) == settings.get(MODE)


def test_an_error_within_takes_the_token_away(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), local_token(tmp_path) as file:
        raise ValueError("x")
    assert file is not None and not file.parent.exists() and PATH not in os.environ


def test_what_is_shown_to_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not sends_token(found=True) and "No such file" in token_fault()
    default = tmp_path / "home" / ".ray" / "auth_token"
    default.write_text("abc")
    default.chmod(0o644)
    assert sends_token(found=True) and not sends_token(found=False) and token_fault() == ""
    assert "mode 644" in exposed_token() and "abc" not in exposed_token()
    default.chmod(0o600)
    assert exposed_token() == ""
    default.write_text("\n")
    assert "is empty" in token_fault()
    monkeypatch.setenv(TOKEN, "abc")
    assert sends_token(found=False) and token_fault() == "" and "abc" not in ray_access.token_source()
    with cluster_token(False):
        assert MODE not in os.environ
    with cluster_token(True):
        assert os.environ[MODE] == "token"
    assert MODE not in os.environ
    monkeypatch.setenv(MODE, "disabled")
    assert not sends_token(found=True)


_KNOCK = """
import json, sys
import grpc
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc, node_manager_pb2, node_manager_pb2_grpc
from ray._private.grpc_utils import init_grpc_channel
answers = {}
for port in json.loads(sys.argv[1]):
    channel = init_grpc_channel(f"127.0.0.1:{port}")
    for stub, call, message in (
        (gcs_service_pb2_grpc.JobInfoGcsServiceStub, "GetAllJobInfo", gcs_service_pb2.GetAllJobInfoRequest()),
        (node_manager_pb2_grpc.NodeManagerServiceStub, "GetNodeStats", node_manager_pb2.GetNodeStatsRequest()),
    ):
        try:
            getattr(stub(channel), call)(message, timeout=3)
            answers[f"{port} {call}"] = "OK"
        except grpc.RpcError as error:
            answers[f"{port} {call}"] = error.code().name
print(json.dumps(answers))
"""


def _knock(ports: list[int], environment: dict[str, str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _KNOCK, json.dumps(ports)], env=environment, capture_output=True, text=True, check=True
    )
    return {f"{key.split()[1]} {code}" for key, code in json.loads(done.stdout).items()}


@pytest.mark.slow
def test_a_local_ray_lets_nobody_in_without_its_token(tmp_path: Path) -> None:
    """Every port that its processes listen on is knocked at, as Ray's own programs would."""
    home = tmp_path / "home"
    with local_ray(home) as own:
        token = own.token.read_text()
        listening = {
            c.laddr.port
            for p in processes_of(own.folder)
            if p.name() in ("gcs_server", "raylet")
            for c in p.net_connections(kind="tcp")
            if c.status == psutil.CONN_LISTEN
        }
        assert len(listening) >= 3
        ports = sorted(listening)
        outside = _knock(ports, without_tokens(home, PYTHONPATH=str(ROOT)))
        assert not any(answer.endswith(" OK") for answer in outside)
        assert {"GetAllJobInfo UNAUTHENTICATED", "GetNodeStats UNAUTHENTICATED"} <= outside
        inside = _knock(ports, without_tokens(home, **{MODE: "token", PATH: str(own.token)}))
        assert {"GetAllJobInfo OK", "GetNodeStats OK"} <= inside
        # Neither in what they write nor in what everybody may see of a process.
        written = [p for p in Path(own.folder).rglob("*") if p.is_file() and token.encode() in p.read_bytes()]
        assert written == []
        assert not any(token in " ".join(p.cmdline()) for p in processes_of(own.folder))
        assert not any(token in value for p in processes_of(own.folder) for value in p.environ().values())
        out, _ = own.process.communicate("")
        assert out.strip() == "gone"
    assert not any((home / ".ray").iterdir())


_TWICE = """
import os, sys
import ray
from search import ray_access
for _ in range(2):
    with ray_access.local_token():
        ray.init(num_cpus=0, include_dashboard=False, log_to_driver=False)
        assert ray.get(ray.remote(num_cpus=0)(lambda: os.environ["RAY_AUTH_MODE"]).remote(), timeout=60) == "token"
        ray.shutdown()
with ray_access.cluster_token(True):
    ray.init(address=sys.argv[1], log_to_driver=False)
    print(ray.get(ray.remote(num_cpus=0)(lambda: 7).remote(), timeout=60), os.environ.get("RAY_AUTH_MODE"))
    ray.shutdown()
"""


@pytest.mark.slow
def test_one_process_local_twice_and_then_a_cluster(tmp_path: Path) -> None:
    """Ray remembers mode and token of its first use; each Ray is reached with its own."""
    file = tmp_path / "token"
    file.write_text("5" * 64)
    file.chmod(0o600)
    with started_head(tmp_path / "home", **{MODE: "token", PATH: str(file)}) as address:
        (tmp_path / "home" / ".ray" / "auth_token").symlink_to(file)
        done = subprocess.run(
            [sys.executable, "-c", _TWICE, address],
            env=without_tokens(tmp_path / "home", PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.stdout.split() == ["7", "token"], done.stderr[-3000:]
