"""Nodes that die under a search, and come back: several real Ray nodes on one machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.cluster import Machine, MiniCluster
from tests.faults.searches import LONG, begin, kinds, sound, train_workers, training

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def cluster() -> Iterator[MiniCluster]:
    with MiniCluster([Machine(2)]) as found:
        yield found
    assert found.left_over() == []


@pytest.fixture
def tracking(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_a_lost_node_takes_no_trial_with_it(
    cluster: MiniCluster, tmp_path: Path, tiny_ast: Path, tones: Path, tracking: str
) -> None:
    """It ran two trials; another one is there when it dies."""
    driver = begin(cluster, tmp_path, tiny_ast, tones, epochs=LONG, trials=3)
    driver.wait_until(lambda r: len(training(r)) == 2)
    cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes(2)
    cluster.nodes["n1"].kill()
    record = sound(driver, tracking, trials=3)
    assert kinds(record).count("node") == 2, kinds(record)
    assert all(i.epoch > 0 for t in record.trials for i in t.incidents), "they went on where they were"
    assert "was lost" in (tmp_path / "out" / "report.html").read_text()


def test_every_node_lost_and_others_later(
    cluster: MiniCluster, tmp_path: Path, tiny_ast: Path, tones: Path, tracking: str
) -> None:
    driver = begin(cluster, tmp_path, tiny_ast, tones, epochs=LONG, trials=3)
    driver.wait_until(lambda r: len(training(r)) == 2)
    cluster.nodes["n1"].kill()
    cluster.wait_for_nodes(0)
    driver.wait_until(lambda r: kinds(r).count("node") == 2, 60)
    before = driver.record()
    assert before is not None and len(before.trials) == 2, "nothing new is begun where nothing can train"
    cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    sound(driver, tracking, trials=3)


def test_a_frozen_node_is_given_up(
    cluster: MiniCluster, tmp_path: Path, tiny_ast: Path, tones: Path, tracking: str
) -> None:
    """Nothing is closed and nobody answers: its network is gone, say."""
    driver = begin(cluster, tmp_path, tiny_ast, tones, epochs=LONG, trials=2)
    driver.wait_until(lambda r: len(training(r)) == 2)
    cluster.add_node(num_cpus=1)
    cluster.nodes["n1"].freeze()
    record = sound(driver, tracking, trials=2)
    assert kinds(record).count("node") == 2, kinds(record)


def test_killed_and_frozen_workers(
    cluster: MiniCluster, tmp_path: Path, tiny_ast: Path, tones: Path, tracking: str
) -> None:
    """One process is killed; one does not answer any more, which nobody but the deadline notices."""
    more = ("--set", "train.deadline=15", "--set", "train.storage_patience=5")
    driver = begin(cluster, tmp_path, tiny_ast, tones, *more, epochs=LONG, trials=2)
    driver.wait_until(lambda r: len(training(r)) == 2)
    first, second = train_workers(cluster.nodes["n1"].pids())
    first.send_signal(signal.SIGKILL)
    second.send_signal(signal.SIGSTOP)
    record = sound(driver, tracking, trials=2)
    # One that is frozen between two commands never took the one that it does not answer: not this command's fault.
    assert sorted(kinds(record)) in (["hung", "worker"], ["worker", "worker"])
    silent = [i for t in record.trials for i in t.incidents if "gave no answer for 15 s" in i.reason]
    assert len(silent) == 1, [i.reason for t in record.trials for i in t.incidents]
    assert not second.is_running(), "a frozen worker is ended, not left"
