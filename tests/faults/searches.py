"""Searches for fault tests: small models on real audio, trials that last long enough to be hit."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from search.journal import read_journal
from search.records import SearchRecord, Status
from tests.faults.audit import audit
from tests.faults.cluster import MiniCluster
from tests.search.running import command, start, wait_for

# Epochs of a trial that is to be hit while another one trains. Processes start one after the other: on a fast machine a
# shorter trial is over before the second one has begun.
LONG = 360

SPACE = """
schema: petl.space/1
name: small
base:
  backbone: {backbone}
  dataset: folder
  data: {data}
  epochs: {epochs}
  train.batch_size: 2
objectives:
  - {{metric: val/accuracy, mode: max}}
params:
  method: {{choice: [adapter, lora, linear]}}
  optim.lr: {{float: [1e-3, 2e-2], log: true, default: 1e-2}}
  adapter.reduction: {{choice: [2, 4, 8], ordered: true, when: {{method: adapter}}}}
  lora.rank: {{int: [1, 8], when: {{method: lora}}}}
enqueue:
  - {{method: linear}}
scheduler: {{name: none}}
budget: {{trials: {trials}}}
"""


def write_space(directory: Path, backbone: Path, data: Path, *, epochs: int, trials: int) -> Path:
    path = directory / "small.yaml"
    path.write_text(SPACE.format(backbone=backbone, data=data, epochs=epochs, trials=trials))
    return path


class Driver:
    """A search as its own process, and what its journal says meanwhile."""

    def __init__(self, arguments: list[object], cwd: Path, environment: dict[str, str], out: Path) -> None:
        self.process: subprocess.Popen[str] = start(command(*arguments), cwd, environment)
        self.out = out

    def record(self) -> SearchRecord | None:
        journal = self.out / "journal.jsonl"
        return read_journal(self.out) if journal.is_file() and journal.stat().st_size else None

    def wait_until(self, what: Callable[[SearchRecord], bool], seconds: float = 240) -> None:
        """Wait until the journal says so; fail with the driver's output when it ends first."""

        def now() -> bool:
            record = self.record()
            return record is not None and what(record)

        wait_for(now, seconds, self.process)

    def ended(self, seconds: float = 420) -> tuple[int, str]:
        """Exit status, and all that was said."""
        said = self.process.communicate(timeout=seconds)[0]
        return self.process.returncode, said


def begin(
    cluster: MiniCluster,
    tmp_path: Path,
    backbone: Path,
    data: Path,
    *more: object,
    epochs: int,
    trials: int,
    storage: object = None,
    environment: dict[str, str] | None = None,
) -> Driver:
    """A search on the cluster, in `tmp_path`/out, with its storage in `tmp_path`/shared."""
    space = write_space(tmp_path, backbone, data, epochs=epochs, trials=trials)
    storage = tmp_path / "shared" if storage is None else storage
    arguments = ["--space", space, "--output", "out", "--address", cluster.address, "--storage", storage, *more]
    return Driver(arguments, tmp_path, environment or cluster.environment(), tmp_path / "out")


def sound(driver: Driver, tracking: str, trials: int) -> SearchRecord:
    """The search ended as if nothing had happened to it, and all that it left tells the same story."""
    status, said = driver.ended()
    assert status == 0, said
    record = driver.record()
    assert record is not None
    assert [t.status for t in record.trials] == [Status.COMPLETE] * trials, [t.reason for t in record.trials]
    assert audit(driver.out, tracking) == []
    assert record.winner and record.test
    return record


def training(record: SearchRecord, epochs: int = 2) -> list[str]:
    """Trials that are being trained and have this many epochs."""
    return [t.id for t in record.trials if t.status is Status.RUNNING and len(t.epochs) >= epochs]


def kinds(record: SearchRecord) -> list[str]:
    """What went wrong, by kind."""
    return [incident.kind for trial in record.trials for incident in trial.incidents]


def train_workers(pids: list[int]) -> list[psutil.Process]:
    """The Ray Train workers among these processes."""
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found
