"""A search under random faults, then an audit: does everything that it left tell the same story?

    python benchmarks/soak.py --minutes 60 --seed 0

Runs one search on a cluster of real Ray nodes on this machine, with an MLflow server and shared storage, and every 20
to 60 seconds does one thing to it, drawn with the seed: kills or freezes a worker process, kills or freezes a node,
adds one, takes all nodes, kills the driver (which is resumed, from the shared storage half of the time), ends it with
Ctrl-C twice (and resumes it), kills the tracking server or starts it again. When time is up the search may come to its
end in peace. The audit compares the journal with itself, the tables, the report, the exported winner, the checkpoints
and MLflow, trial by trial.

Exit status 1 if anything contradicts anything, or a trial was lost, duplicated or failed without a fault of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from search.journal import read_journal  # noqa: E402
from search.mlflow_spool import SPOOL  # noqa: E402
from search.records import SearchRecord, Status  # noqa: E402
from tests.faults.audit import audit  # noqa: E402
from tests.faults.cluster import Machine, MiniCluster, Node  # noqa: E402
from tests.faults.held import held  # noqa: E402
from tests.faults.searches import Driver, train_workers, write_space  # noqa: E402
from tests.search.mlflow_servers import Server, free_port  # noqa: E402
from tests.search.running import petl_search  # noqa: E402


class Soak:
    """One search, and what happens to it."""

    def __init__(self, folder: Path, cluster: MiniCluster, server: Server, draw: random.Random, more: list[object]):
        self.folder, self.cluster, self.server, self.draw, self.more = folder, cluster, server, draw, more
        self.out = folder / "out"
        self.happened: list[tuple[float, str]] = []
        self.began = time.monotonic()
        self.server_is_up = True
        self.frozen: list[tuple[float, Node]] = []
        self.driver = self._drive([*more, "--output", self.out], folder)

    def _drive(self, arguments: list[object], cwd: Path) -> Driver:
        shared = [*("--address", self.cluster.address), *("--mlflow", self.server.address)]
        driver = Driver([*arguments, *shared], cwd, self.cluster.environment(), self.out)
        self.said: list[str] = []
        self.listener = threading.Thread(target=_listen, args=(driver.process.stdout, self.said), daemon=True)
        self.listener.start()
        return driver

    def note(self, what: str) -> None:
        self.happened.append((round(time.monotonic() - self.began, 1), what))
        print(f"{self.happened[-1][0]:7.1f} {what}", flush=True)

    # -- faults ------------------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        return [node for name, node in self.cluster.nodes.items() if name != "head" and node.pids()]

    def kill_worker(self) -> None:
        self._to_a_worker(signal.SIGKILL, "killed")

    def freeze_worker(self) -> None:
        self._to_a_worker(signal.SIGSTOP, "froze")

    def _to_a_worker(self, number: signal.Signals, word: str) -> None:
        workers = [worker for node in self.nodes() for worker in train_workers(node.pids())]
        if workers:
            chosen = self.draw.choice(workers)
            chosen.send_signal(number)
            self.note(f"{word} worker {chosen.pid} of {len(workers)}")

    def kill_node(self) -> None:
        if self.nodes():
            node = self.draw.choice(self.nodes())
            node.kill()
            self.note(f"killed node {node.name}")

    def freeze_node(self) -> None:
        if self.nodes():
            node = self.draw.choice(self.nodes())
            node.freeze()
            self.frozen.append((time.monotonic(), node))
            self.note(f"froze node {node.name}")

    def take_all_nodes(self) -> None:
        for node in self.nodes():
            node.kill()
        self.note("killed every node")

    def kill_driver(self) -> None:
        self.driver.process.send_signal(signal.SIGKILL)
        self.driver.process.wait(30)
        self._no_driver()
        if self.draw.random() < 0.5:
            self.note("killed the driver; resumed in its directory")
            self.driver = self._drive(["--resume", self.out], self.folder)
        else:
            self.note("killed the driver; its machine is gone, resumed from the shared storage")
            shutil.rmtree(self.out)
            self.driver = self._drive(["--resume", self.folder / "shared" / "out", "--output", self.out], self.folder)

    def interrupt_driver(self) -> None:
        self.driver.process.send_signal(signal.SIGINT)
        time.sleep(self.draw.uniform(0.1, 3))
        self.driver.process.send_signal(signal.SIGINT)
        self.driver.process.wait(120)
        self._no_driver()
        self.note("ended the driver with Ctrl-C twice; resumed in its directory")
        self.driver = self._drive(["--resume", self.out], self.folder)

    def _no_driver(self) -> None:
        if not (self.out / "journal.jsonl").is_file():
            raise SystemExit("the driver was ended before it had begun: choose another seed")
        self.listener.join(30)

    def server_away(self) -> None:
        if self.server_is_up:
            self.server.end()
            self.note("killed the tracking server")
        else:
            self.server.start()
            self.note("started the tracking server again")
        self.server_is_up = not self.server_is_up

    # -- the course of it --------------------------------------------------------------------------------

    def mend(self) -> None:
        """Never fewer than one node for long; what is frozen is buried after a while."""
        for since, node in list(self.frozen):
            if time.monotonic() - since > 30:
                node.kill()
                self.frozen.remove((since, node))
        alive = [node for node in self.nodes() if node not in [frozen for _, frozen in self.frozen]]
        while len(alive) < 2:
            added = self.cluster.add_node(num_cpus=1)
            alive.append(added)
            self.note(f"added node {added.name}")

    def go(self, seconds: float) -> None:
        faults = {
            self.kill_worker: 5,
            self.freeze_worker: 2,
            self.kill_node: 4,
            self.freeze_node: 1,
            self.take_all_nodes: 1,
            self.kill_driver: 2,
            self.interrupt_driver: 1,
            self.server_away: 3,
        }
        while time.monotonic() - self.began < seconds and self.driver.process.poll() is None:
            pause = self.draw.uniform(20, 60)
            limit = time.monotonic() + pause
            while time.monotonic() < limit and self.driver.process.poll() is None:
                time.sleep(1)
            if self.driver.process.poll() is None:
                self.draw.choices(list(faults), list(faults.values()))[0]()
                self.mend()
        if not self.server_is_up:
            self.server_away()
            self.server.wait()
        self.mend()
        self.note("no more faults")


def _listen(stream: Any, said: list[str]) -> None:
    """A driver whose pipe nobody empties stands still after a while."""
    with stream:
        said.extend(stream)


def kind(what: str) -> str:
    """What happened, without which one of several it happened to."""
    return re.sub(r" n?\d+( of \d+)?$", "", what)


def found_wrong(record: SearchRecord, out: Path, server: Server, trials: int) -> list[str]:
    wrong = audit(out, server.address)
    if len(record.trials) != trials:
        wrong.append(f"{len(record.trials)} trials instead of {trials}")
    wrong += [f"{t.id} is {t.status}: {t.reason}" for t in record.trials if t.status is not Status.COMPLETE]
    return wrong


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--minutes", type=float, default=60)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--trials", type=int, default=165)
    arguments.add_argument("--epochs", type=int, default=300)
    arguments.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "soak.json")
    asked = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended: no audit"))  # with all that was started
    from tests.conftest import make_tiny_ast, make_tones

    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    server = Server(folder, free_port())
    began = time.monotonic()
    try:
        make_tiny_ast(folder / "backbone")
        make_tones(folder / "tones")
        space = write_space(folder, folder / "backbone", folder / "tones", epochs=asked.epochs, trials=asked.trials)
        server.start()
        server.wait()
        with MiniCluster([Machine(1), Machine(1)]) as cluster:
            hasty = ("--set", "train.deadline=60", "--set", "train.storage_patience=10")
            more: list[object] = ["--space", space, "--storage", folder / "shared", *hasty]
            soak = Soak(folder, cluster, server, random.Random(asked.seed), more)
            soak.go(60 * asked.minutes)
            status = soak.driver.process.wait(3600)
            soak.listener.join(30)
            record = read_journal(soak.out)
            if (soak.out / SPOOL).exists():  # the tracking server was away when the search ended: what a user does
                soak.note("delivered the rest by sync")
                told = subprocess.run(
                    petl_search("sync", soak.out), cwd=ROOT, capture_output=True, text=True, check=False
                )
                print(told.stdout, told.stderr)
            left = [str(path) for path in cluster.temp_files()]
            kept = held(cluster)
        print("".join(soak.said)[-3000:])
        wrong = found_wrong(record, soak.out, server, asked.trials)
        if status:
            wrong.append(f"the driver ended with {status}")
        wrong += [f"left behind: {what}" for what in [*kept, *cluster.left_over()]]
        result = {
            "minutes": round((time.monotonic() - began) / 60, 1),
            "seed": asked.seed,
            "trials": dict(Counter(str(t.status) for t in record.trials)),
            "epochs": sum(len(t.epochs) for t in record.trials),
            "incidents": dict(Counter(i.kind for t in record.trials for i in t.incidents)),
            "faults": dict(Counter(kind(what) for _, what in soak.happened)),
            "happened": soak.happened,
            "temporary files": left,
            "contradictions": wrong,
            "environment": {"python": platform.python_version(), "cpus": os.cpu_count(), "system": platform.platform()},
        }
        asked.output.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps({key: result[key] for key in ("minutes", "trials", "incidents", "faults", "contradictions")}))
        return int(bool(wrong))
    finally:
        server.end()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
