"""The driver itself: killed and continued elsewhere, or ended by force."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from search.journal import read_journal
from search.records import EpochRecord, Status
from tests.faults.cluster import Machine, MiniCluster
from tests.faults.held import held
from tests.faults.searches import LONG, Driver, begin, sound, train_workers, training
from tests.search.running import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def cluster() -> Iterator[MiniCluster]:
    with MiniCluster([Machine(2)]) as found:
        yield found
    assert found.left_over() == []


def test_killed_and_continued_on_another_machine(
    cluster: MiniCluster, tmp_path: Path, tiny_ast: Path, tones: Path
) -> None:
    """All that is left of the first machine is what it had put on the shared storage."""
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    driver = begin(cluster, tmp_path, tiny_ast, tones, "--mlflow", tracking, epochs=LONG, trials=4)
    driver.wait_until(lambda r: sum(t.status is Status.COMPLETE for t in r.trials) == 1 and len(training(r)) == 2)
    driver.process.send_signal(signal.SIGKILL)
    driver.process.wait(10)
    before = read_journal(driver.out)
    shutil.rmtree(driver.out)
    wait_for(lambda: not train_workers(cluster.nodes["n1"].pids()), 60)
    assert held(cluster, 30) == [], "nothing of it stays on the cluster"

    other = tmp_path / "other"
    other.mkdir()
    again = ["--resume", tmp_path / "shared" / "out", "--address", cluster.address, "--mlflow", tracking]
    resumed = Driver(again, other, cluster.environment(), other / "runs" / "out")
    record = sound(resumed, tracking, trials=4)
    done = next(t for t in before.trials if t.status is Status.COMPLETE)
    same = [new for old, new in zip(before.trials, record.trials, strict=False) if new.params == old.params]
    # The last one may have begun in the second that the storage had not seen yet: then it is another one now.
    assert len(same) >= len(before.trials) - 1 and record.trials[done.number - 1] in same
    for new in same:
        old = before.trials[new.number - 1]
        assert [e.epoch for e in new.epochs] == list(range(1, LONG + 1))
        assert [_numbers(e) for e in new.epochs[: len(old.epochs)]] == [_numbers(e) for e in old.epochs]
    took = {e.epoch: e.seconds for e in done.epochs}
    assert {e.epoch: e.seconds for e in record.trials[done.number - 1].epochs} == took, "it was not trained again"


def _numbers(epoch: EpochRecord) -> dict[str, float]:
    """What does not depend on the clock."""
    return {name: value for name, value in epoch.metrics.items() if name != "train/data_wait"}


def test_ctrl_c_twice_leaves_nothing_behind(cluster: MiniCluster, tmp_path: Path, tiny_ast: Path, tones: Path) -> None:
    driver = begin(cluster, tmp_path, tiny_ast, tones, epochs=LONG, trials=4)
    driver.wait_until(lambda r: len(training(r)) == 2)
    began = time.monotonic()
    driver.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    driver.process.send_signal(signal.SIGINT)
    status, said = driver.ended(30)
    assert status == 130, said
    assert time.monotonic() - began < 15
    wait_for(lambda: not train_workers(cluster.nodes["n1"].pids()), 30)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len(runs) == 3 and {run.info.status for run in runs} == {"KILLED"}
    assert not [path for path in cluster.temp_files() if path.name.startswith("petl-")]
    assert held(cluster, 30) == []
