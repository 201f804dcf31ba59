"""What a person is told of a cluster, by its real answers: no cluster, another server, tokens, versions, the nodes."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray

from petl.errors import UserError
from search import probe as probing
from search import probe_call
from search.probe import ClusterFacts, NodeFacts, NodeType, probe, version_fault
from search.ray_access import MODE, PATH, TOKEN
from tests.search.own_ray import control_service, free_port, local_ray, started_head

SECRET = "0123456789abcdef"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a control service that asks for a token."""
    with control_service(tmp_path_factory.mktemp("guarded"), **{MODE: "token", TOKEN: SECRET}) as address:
        yield address


@pytest.fixture(scope="module")
def unguarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with control_service(tmp_path_factory.mktemp("unguarded"), **{MODE: "disabled"}) as address:
        yield address


@pytest.fixture(autouse=True)
def _no_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (MODE, TOKEN, PATH, "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


def _slow(*values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def _said(address: str, timeout: float = 20.0) -> str:
    begun = time.monotonic()
    with pytest.raises(UserError) as refusal:
        probe(address, timeout)
    assert time.monotonic() - begun < timeout + 1
    return str(refusal.value)


@pytest.mark.slow
def test_the_facts_of_a_ray_with_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with local_ray(tmp_path) as own:
        monkeypatch.setenv(MODE, "token")
        monkeypatch.setenv(PATH, str(own.token))
        facts = probe(own.address)
        assert facts.address == own.address and facts.token and facts.cautions == ()
        assert len(facts.nodes) == 1 and facts.nodes[0].here and facts.nodes[0].head
        assert facts.total("CPU") == 0 and facts.total("memory") > 0 and facts.types == ()
        assert version_fault(facts) == ""


def test_the_right_token_but_no_node(guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET + "\n")
    monkeypatch.setenv(PATH, str(file))
    assert "this machine is not a node of the cluster" in _said(guarded)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "asks for a token, and none is shown because RAY_AUTH_MODE is not set here"),
        _slow({MODE: "disabled"}, "none is shown because RAY_AUTH_MODE is 'disabled' here"),
        _slow({MODE: "token"}, ".ray/auth_token cannot be read (No such file or directory)"),
        ({MODE: "token", TOKEN: "fedcba9876543210"}, "refuses the token of RAY_AUTH_TOKEN: it belongs to another"),
    ],
    ids=["unset", "disabled", "missing", "wrong"],
)
def test_without_the_token(settings: dict[str, str], said: str, guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    message = _said(guarded)
    assert said in message and settings.get(TOKEN, SECRET) not in message


def test_nothing_listens() -> None:
    assert "nothing listens at" in _said(f"127.0.0.1:{free_port()}")


def test_packets_are_swallowed() -> None:
    with socket.socket() as silent:
        silent.bind(("", 0))
        silent.listen(1)
        said = _said(f"127.0.0.1:{silent.getsockname()[1]}", timeout=3.5)
    assert "does not answer: a firewall may swallow" in said


def test_another_server_listens() -> None:
    with HTTPServer(("", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = _said(f"127.0.0.1:{server.server_port}")
        server.shutdown()
    assert "is not Ray's control service (GCS); its port is 6379" in said


@pytest.mark.parametrize("address", ["", "local", "10.0.0.1", "host:port", "http://head:8265", "a b:1", "--x:1"])
def test_what_is_no_address(address: str) -> None:
    assert "an address is HOST:PORT" in _said(address)


def test_a_host_that_nobody_knows() -> None:
    assert "the host of no-such-host.invalid:6379 is not known here" in _said("no-such-host.invalid:6379")


def test_auto_is_the_cluster_of_the_environment(guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may be anywhere: the token that lies at home is not shown to it."""
    monkeypatch.setenv("RAY_ADDRESS", guarded)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(SECRET)
    assert f"--address auto: the cluster at {guarded} asks for a token, and none is shown" in _said("auto")


@pytest.mark.parametrize(
    ("running", "latest", "found"),
    [
        ([], None, "no Ray runs on this machine"),
        ([], "10.0.0.1:1", "no Ray runs on this machine"),  # what `ray start` left of one that is gone
        (["10.0.0.1:2"], "10.0.0.1:1", "10.0.0.1:2"),
        (["10.0.0.1:2", "10.0.0.1:1"], "10.0.0.1:1", "10.0.0.1:1"),
        (["10.0.0.1:2", "10.0.0.1:1"], None, "several Rays run on this machine (10.0.0.1:1, 10.0.0.1:2)"),
    ],
)
def test_auto(running: list[str], latest: str | None, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one it is; what runs on this machine while the tests do is not known."""
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", lambda: frozenset(running))
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: latest)
    try:
        assert probe_call._on_this_machine() == found
    except probe_call.Fault as fault:
        assert found in str(fault)


def test_ray_client() -> None:
    assert "Ray Client cannot carry a search" in _said("ray://head:10001")


@pytest.mark.slow
def test_a_process_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever hangs there, the limit holds."""
    with socket.socket() as silent:
        silent.bind(("", 0))
        silent.listen(1)
        monkeypatch.setattr(probing, "_STARTUP", -60.0)  # the asking process believes that it has a minute
        assert "no answer within 2 s" in _said(f"127.0.0.1:{silent.getsockname()[1]}", timeout=2.0)


def _facts(**changed: Any) -> ClusterFacts:
    node = NodeFacts("ab", "10.0.0.1", True, True, {"CPU": 4.0})
    values: dict[str, Any] = {"ray": "2.60.0", "python": "3.11.7", "token": True, "nodes": (node,)}
    return ClusterFacts("10.0.0.1:6379", **{**values, **changed})


def test_versions_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    assert version_fault(_facts(), "2.60.0", "3.11.7") == ""
    said = version_fault(_facts(), "2.59.1", "3.11.7")
    assert "runs Ray 2.60.0, this is Ray 2.59.1" in said
    assert "runs Python 3.11.7, this is Python 3.12.1" in version_fault(_facts(), "2.60.0", "3.12.1")
    assert "Python 3.11.9; they have to be the same" in version_fault(_facts(), "2.60.0", "3.11.9")
    monkeypatch.setenv("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "minor")
    assert version_fault(_facts(), "2.60.0", "3.11.9") == ""
    assert "first two numbers" in version_fault(_facts(), "2.60.0", "3.13.0")


def test_the_largest_node_may_still_have_to_come() -> None:
    kinds = (NodeType("gpu", {"GPU": 8.0}, 0, 4), NodeType("never", {"GPU": 64.0}, 0, 0))
    facts = _facts(types=kinds)
    assert facts.largest("GPU") == 8 and facts.largest("CPU") == 4 and facts.total("GPU") == 0
    assert facts.largest("TPU") == 0


def _store(address: str, namespace: bytes, key: bytes, value: bytes) -> None:
    """Write into the table of a cluster without a token."""
    import grpc
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    messages: Any = gcs_service_pb2
    with grpc.insecure_channel(address) as channel:
        gcs_service_pb2_grpc.InternalKVGcsServiceStub(channel).InternalKVPut(
            messages.InternalKVPutRequest(namespace=namespace, key=key, value=value, overwrite=True), timeout=10
        )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ray_version": "2.9.3"}, "runs Ray 2.9.3, this is Ray"),
        _slow({"python_version": "3.9.1"}, "runs Python 3.9.1, this is Python"),
    ],
)
def test_a_cluster_of_other_versions(changed: dict[str, str], said: str, unguarded: str) -> None:
    """What a cluster was started with lies in its table."""
    own = {"ray_version": ray.__version__, "python_version": ".".join(map(str, sys.version_info[:3]))}
    _store(unguarded, b"cluster", b"CLUSTER_METADATA", json.dumps({**own, **changed}).encode())
    assert said in _said(unguarded)


def test_a_driver_with_a_token_at_a_cluster_without(unguarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could connect, but its actors would die: the nodes show it no token."""
    monkeypatch.setenv(MODE, "token")
    monkeypatch.setenv(TOKEN, SECRET)
    assert "answers without one" in _said(unguarded)


@pytest.mark.slow
def test_a_cluster_without_tokens(tmp_path: Path) -> None:
    with started_head(tmp_path, **{MODE: "disabled"}) as address:
        facts = probe(address)
    assert not facts.token and "asks for no token" in facts.cautions[0]
    assert facts.types == () and not facts.autoscaling
