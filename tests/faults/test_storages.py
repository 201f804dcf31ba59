"""The place for checkpoints is full, or away, under a running search."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.records import Status
from tests.faults.cluster import Machine, MiniCluster
from tests.faults.searches import LONG, Driver, begin, sound, training
from tests.object_store import CREDENTIALS, Forwarder, ObjectStore, object_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with object_store() as found:
        yield found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB: the report alone takes five."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True, check=False, text=True
    )
    if mounted.returncode:
        pytest.skip(f"file systems cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_stops_the_search_and_loses_nothing(
    small_disk: Path, tmp_path: Path, tiny_ast: Path, tones: Path
) -> None:
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with MiniCluster([Machine(1)]) as cluster:
        hasty = ("--set", "train.storage_patience=15")
        driver = begin(cluster, tmp_path, tiny_ast, tones, *hasty, epochs=LONG, trials=2, storage=small_disk)
        driver.wait_until(lambda r: len(training(r)) == 1)
        ballast = small_disk / "ballast"
        with ballast.open("wb") as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(65536))
        status, said = driver.ended()
        assert status == 1, said
        assert "no space is left" in said and str(small_disk) in said and "--resume out" in said, said
        record = driver.record()
        assert record is not None and record.trials[-1].status is Status.RUNNING, "it is not the trial's fault"
        ballast.unlink()
        resumed = Driver(["--resume", "out"], tmp_path, cluster.environment(), tmp_path / "out")
        sound(resumed, tracking, trials=2)


def test_an_object_store_that_refuses_for_a_while_is_waited_for(
    store: ObjectStore, tmp_path: Path, tiny_ast: Path, tones: Path
) -> None:
    network = Forwarder(store.port)
    try:
        with MiniCluster([Machine(1)], environment=CREDENTIALS) as cluster:
            where = store.uri("faults", port=network.port)
            driver = begin(cluster, tmp_path, tiny_ast, tones, epochs=LONG, trials=2, storage=where)
            driver.wait_until(lambda r: len(training(r)) == 1)
            network.down()
            time.sleep(10)
            network.up()
            sound(driver, f"sqlite:///{tmp_path / 'mlflow.db'}", trials=2)
    finally:
        network.close()
