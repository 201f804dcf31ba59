"""A search on a cluster that has no node yet, grows for it, and shrinks when its last trials run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from search.records import Status
from tests.faults.autoscaling import AutoscalingCluster
from tests.faults.searches import LONG, begin, sound, train_workers, training
from tests.search.running import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_nodes_come_for_trials_and_go_with_them(tmp_path: Path, tiny_ast: Path, tones: Path) -> None:
    """Three trials and up to four nodes of one CPU, of which two can be had."""
    with AutoscalingCluster({"worker": {"resources": {"CPU": 1}, "max_workers": 2}}) as cluster:
        assert cluster.watch.counts()[-1][1] == 0
        driver = begin(cluster, tmp_path, tiny_ast, tones, epochs=LONG, trials=3)
        cluster.wait_for_nodes(2, seconds=120)
        driver.wait_until(lambda r: len(training(r)) == 2)
        # One stands still, so that the others are over long before it on any machine: the tail, one node is enough.
        first, _ = cluster.machines().values()
        (slow,) = train_workers(first.pids())
        slow.suspend()
        driver.wait_until(lambda r: sum(t.status is Status.COMPLETE for t in r.trials) == 2)
        cluster.wait_for_nodes(1, seconds=60)
        assert slow.is_running(), "the idle one was let go"
        slow.resume()
        assert driver.process.poll() is None, "the search still runs"
        sound(driver, f"sqlite:///{tmp_path / 'mlflow.db'}", trials=3)
        cluster.wait_for_nodes(0, seconds=60)
        counts = [count for _, count in cluster.watch.counts()]
        assert max(counts) == 2 and counts[-1] == 0
    assert cluster.left_over() == []


VERDICT = """
import sys, time
import ray
from ray.util.placement_group import placement_group
from search.autoscaler import Verdicts

ray.init(sys.argv[1], log_to_driver=False)
hopeless, possible = {"CPU": 1, "GPU": 2.0}, {"CPU": 1, "GPU": 0}
asked = [placement_group([hopeless]), placement_group([{"CPU": 1}])]
said, limit = Verdicts(sys.argv[1]), time.monotonic() + 30
while not said.hopeless(hopeless) and time.monotonic() < limit:
    time.sleep(0.5)
print(said.hopeless(hopeless), said.hopeless(possible))
"""
"""Where the autoscaler's configuration cannot be seen (Kubernetes), its word on what waits."""


def test_what_no_node_type_can_hold_is_said_at_once(tmp_path: Path, tiny_ast: Path, tones: Path) -> None:
    with AutoscalingCluster({"worker": {"resources": {"CPU": 1}, "max_workers": 4}}) as cluster:
        more = ("--gpus-per-worker", 2)
        driver = begin(cluster, tmp_path, tiny_ast, tones, *more, epochs=40, trials=1)
        status, said = driver.ended(60)
        assert status == 2 and "'worker' has 1 CPUs and 0 GPUs" in said, said
        assert not (tmp_path / "out").exists()
        asked = [sys.executable, "-c", VERDICT, cluster.address]
        told = subprocess.run(asked, env=cluster.environment(), cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert told.stdout.split() == ["True", "False"], told.stdout + told.stderr
    assert cluster.left_over() == []


def test_no_more_nodes_are_asked_for_than_trials(tmp_path: Path, tiny_ast: Path, tones: Path) -> None:
    with AutoscalingCluster({"worker": {"resources": {"CPU": 1}, "max_workers": 4}}) as cluster:
        driver = begin(cluster, tmp_path, tiny_ast, tones, epochs=40, trials=1)
        sound(driver, f"sqlite:///{tmp_path / 'mlflow.db'}", trials=1)
        assert max(count for _, count in cluster.watch.counts()) == 1
    assert cluster.left_over() == []
