"""The clusters that other tests kill: they come up, die piece by piece, and leave nothing behind."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults import processes
from tests.faults.autoscaling import AutoscalingCluster
from tests.faults.cluster import MiniCluster
from tests.faults.held import held
from tests.faults.machine import Machine

_HELLO = """
import os, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=0)
def here():
    return os.environ["PETL_FAULTS_NODE"].rpartition("/")[2], os.environ["PETL_CACHE"], os.environ.get("MINE", "")
names = sys.argv[2:]
print(">", ray.get([here.options(resources={name: 0.1}).remote() for name in names], timeout=60), flush=True)
print(">", ray.get_runtime_context().get_node_id(), flush=True)
sys.stdin.readline()
"""

_DEMAND = """
import sys, ray
from ray.util.placement_group import placement_group, remove_placement_group
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
groups = [placement_group([{"CPU": 1}]) for _ in range(int(sys.argv[2]))]
print("> waiting", flush=True)
ray.get([group.ready() for group in groups], timeout=120)
print("> ready", flush=True)
sys.stdin.readline()
for group in groups:
    remove_placement_group(group)
print("> removed", flush=True)
sys.stdin.readline()
"""


@contextmanager
def driver(cluster: MiniCluster, script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, cluster.address, *map(str, arguments)],
        env=cluster.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that the script itself printed; Ray puts its own messages between them."""
    assert process.stdout is not None
    for found in process.stdout:
        if found.startswith("> "):
            return found.removeprefix("> ").strip()
    return ""


def enter(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_two_nodes_work_one_dies_and_nothing_is_left() -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        cluster = MiniCluster([Machine(), Machine(environment={"MINE": "yes"})])
        with cluster:
            root, first, second = cluster.root, cluster.nodes["n1"], cluster.nodes["n2"]
            assert stat.S_IMODE(cluster.token_file.stat().st_mode) == 0o600
            with driver(cluster, _HELLO, "n1", "n2") as hello:
                wanted = [("n1", str(root / "n1" / "cache"), ""), ("n2", str(root / "n2" / "cache"), "yes")]
                assert line(hello) == str(wanted)
                sample = cluster.watch.latest()
                assert sample is not None and line(hello) not in sample.ids.values()  # the driver is on the head
                killed = second.pids()
                assert len(killed) >= 3 and any("raylet" in processes.command_of(pid) for pid in killed)
                assert set(second.kill()) >= set(killed) and not second.pids()
                took = cluster.wait_for_nodes(1)
                assert took < 20, f"the death of a node was noticed after {took:.1f} s"
                assert first.pids() and hello.poll() is None
            assert [count for _, count in cluster.watch.counts()][-2:] == [2, 1]
            assert cluster.left_over()
        assert cluster.left_over() == [] and not root.exists()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.slow
def test_frozen_stopped_and_new_nodes_and_a_dead_head() -> None:
    with MiniCluster([Machine(), Machine()]) as cluster:
        cluster.nodes["n1"].freeze()
        assert cluster.wait_for_nodes(1, 30) > 0.5  # nobody closed a connection: only missing signs of life tell
        began = time.monotonic()
        cluster.nodes["n2"].stop()
        assert time.monotonic() - began < 10
        cluster.wait_for_nodes(0, 10)
        cluster.nodes["n1"].thaw()  # it comes back and is told that it is dead
        assert cluster.add_node(num_cpus=2, num_gpus=1, labels={"kind": "spot"}).name == "n3"
        cluster.wait_for_nodes(1, 150)
        with driver(cluster, _HELLO, "n3") as hello:
            assert "n3" in line(hello)
            cluster.head.kill()
            assert hello.wait(10) == -9  # a driver dies with the machine it runs on
        cluster.watch.wait(lambda s: bool(s.error), 60, "a head that does not answer")
        with pytest.raises(TimeoutError, match="the head has ended"):
            cluster.wait_for_nodes(1)
    assert cluster.left_over() == []


@pytest.mark.slow
def test_a_driver_with_a_wrong_token_stays_outside(tmp_path: Path) -> None:
    with MiniCluster() as cluster:
        wrong = tmp_path / "token"
        wrong.write_text("0" * 64)
        command = [sys.executable, "-c", _HELLO, cluster.address]
        environment = cluster.environment(RAY_AUTH_TOKEN_PATH=str(wrong))
        answer = subprocess.run(
            command, env=environment, input="\n", capture_output=True, text=True, timeout=100, check=False
        )
        assert answer.returncode != 0 and "auth" in (answer.stdout + answer.stderr).lower()
    assert cluster.left_over() == []


@pytest.mark.slow
def test_autoscaler_brings_two_nodes_replaces_a_lost_one_and_takes_them_back() -> None:
    with AutoscalingCluster({"worker": {"resources": {"CPU": 1}, "max_workers": 2}}) as cluster:
        with driver(cluster, _DEMAND, 2) as demand:
            assert line(demand) == "waiting"
            cluster.wait_for_nodes(2, 150)
            assert line(demand) == "ready"
            cluster.capacity(worker=1)
            cluster.machines()["w1"].kill()
            cluster.wait_for_nodes(1, 60)
            with pytest.raises(TimeoutError):
                cluster.wait_for_nodes(2, 15)  # nothing to be had
            cluster.capacity(worker=2)
            cluster.wait_for_nodes(2, 150)
            assert set(cluster.machines()) == {"w2", "w3"}
            assert [text.split()[0] for text in held(cluster, 0)] == ["placement", "placement", "CPU:"]
            enter(demand)
            assert line(demand) == "removed"
            assert held(cluster) == []
            cluster.wait_for_nodes(0, 120)
        print(cluster.watch.counts())
    assert cluster.left_over() == []
