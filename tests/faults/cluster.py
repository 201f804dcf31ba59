"""Ray clusters of several nodes on one machine, made of real processes that can be killed like machines.

    with MiniCluster() as cluster:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes(1)
        subprocess.run([...], env=cluster.environment())   # a driver, on the head: ray.init(cluster.address)
        node.kill()

Every cluster has its own folder, ports and token. It never calls `ray stop`, and ends only what it started.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults import machine, processes
from tests.faults.machine import Machine, Site
from tests.faults.watch import NodeWatch, Sample

QUICK_DEATHS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
"""The head asks every node for a sign of life twice a second; three missing ones are a death."""

_GOODBYE_S = 5.0  # how long a node drains before it ends


class Node:
    """One node, by name (`head`, `n1`, ...)."""

    def __init__(self, site: Site, name: str, pid: int) -> None:
        self.name, self.pid = name, pid
        self._site, self._mark = site, site.mark(name)

    @property
    def folder(self) -> Path:
        """Its disk: Ray's files, `tmp` for temporary ones, `cache` for features."""
        return self._site.folder(self.name)

    def pids(self) -> list[int]:
        """Every process of the node: `ray start`, the raylet, its agents, its workers (on the head drivers, too)."""
        return processes.marked(self._mark)

    def kill(self) -> list[int]:
        """The machine loses its power: SIGKILL to all of its processes at once; returns their ids.

        Other than with a power cut the kernel closes its connections, so that others notice sooner; see `freeze`.
        """
        killed = processes.kill(self._mark)
        self._bury()
        return killed

    def stop(self, seconds: float = 30.0) -> None:
        """SIGTERM to `ray start`: the node drains for at most 5 s and goes; what is left after `seconds` is killed."""
        processes.send(self.pid, signal.SIGTERM)
        limit = time.monotonic() + seconds
        while not machine.ended(self.pid) and time.monotonic() < limit:
            time.sleep(0.05)
        self.kill()

    def freeze(self) -> None:
        """The machine hangs, or its network is gone: connections stay open, nobody answers. `thaw` ends that."""
        processes.freeze(self._mark)

    def thaw(self) -> None:
        processes.thaw(self._mark)

    def _bury(self) -> None:
        limit = time.monotonic() + 5
        while not machine.ended(self.pid) and time.monotonic() < limit:
            time.sleep(0.01)

    def __repr__(self) -> str:
        return f"Node({self.name})"


class MiniCluster:
    """A head and worker nodes. A context: entering waits until head and `nodes` are up, leaving ends them.

    Args:
        nodes: worker nodes from the start; more come with `add_node`.
        head_cpus: CPUs of the head, 0 as in a real cluster where nothing trains there.
        health: settings of Ray on the head for how soon a death is noticed.
        environment: variables for every node and driver, on top of this process's own.
    """

    def __init__(
        self,
        nodes: Sequence[Machine] = (),
        *,
        head_cpus: float = 0,
        health: Mapping[str, str] = QUICK_DEATHS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self.health = dict(health)
        self._first, self._head_cpus = list(nodes), head_cpus
        self._extra = dict(environment or {})
        self._watch: NodeWatch | None = None
        self._number = 0

    def __enter__(self) -> Self:
        root = tempfile.mkdtemp(prefix="ray")
        try:
            self.site = Site(root, f"{machine.own_ip()}:{machine.free_port()}", self._shared(Path(root)))
            self.head = self._start_head()
            self.nodes["head"] = self.head
            for options in self._first:
                self._add(options)
            self._watch = NodeWatch(self.address, self.site.of_node("watch"))  # it outlives the head
            self.wait_for_nodes(len(self._first), seconds=90)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def address(self) -> str:
        """ip:port, for `--address`."""
        return self.site.address

    @property
    def root(self) -> Path:
        return Path(self.site.root)

    @property
    def token_file(self) -> Path:
        """The cluster's token, for its owner only."""
        return self.root / "token"

    @property
    def watch(self) -> NodeWatch:
        """Which nodes there were, when."""
        if self._watch is None:
            raise RuntimeError("the cluster is not up")
        return self._watch

    def environment(self, **more: str) -> dict[str, str]:
        """For a driver on the head, with which it dies: token, temporary folder, cache; no RAY_ADDRESS.

        `more` is added.
        """
        return {**self.site.of_node("head"), **more}

    def add_node(
        self,
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Node:
        """Start a node and return at once; `wait_for_nodes` waits for it. It has one of a resource named like it."""
        return self._add(Machine(num_cpus, num_gpus, resources or {}, labels or {}, environment or {}))

    def wait_for_nodes(self, count: int, seconds: float = 60.0) -> float:
        """Wait until the head knows exactly `count` living worker nodes (itself apart); returns how long it took.

        Raises:
            TimeoutError: with the end of every node's log.
        """
        begin = time.monotonic()

        def there(sample: Sample) -> bool:
            if machine.ended(self.head.pid):
                raise TimeoutError("the head has ended")
            return sample.head and len(sample.workers) == count

        try:
            self.watch.wait(there, seconds, f"{count} worker nodes")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.logs()}") from None
        return time.monotonic() - begin

    def logs(self, characters: int = 1500) -> str:
        """The end of what every `ray start` said."""
        found = []
        for path in sorted(self.root.glob("*/start.log")):
            found.append(f"--- {path.parent.name}\n{path.read_text(errors='replace')[-characters:]}")
        return "\n".join(found)

    def temp_files(self) -> list[Path]:
        """What lies in the folders for temporary files of all nodes and of drivers (Ray's own files are elsewhere)."""
        return sorted(path for folder in self.root.glob("*/tmp") for path in folder.iterdir())

    def left_over(self) -> list[str]:
        """What is still there of the cluster: processes, and its folder. Empty after `close()`."""
        if not hasattr(self, "site"):
            return []
        found = {*processes.marked(self.site.mark("")), *processes.mentioning(self.root)}
        left = [f"{pid} {processes.command_of(pid)[:120]}" for pid in sorted(found)]
        return left + ([str(self.root)] if self.root.exists() else [])

    def close(self) -> None:
        """End every process of the cluster, drivers included, and remove its folder. Again: nothing."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if not hasattr(self, "site"):
            return
        processes.kill(self.site.mark(""))
        for node in self.nodes.values():
            node._bury()
        for _ in range(20):  # a file that appears while the folder is being removed
            shutil.rmtree(self.root, ignore_errors=True)
            if not self.root.exists():
                break
            time.sleep(0.05)

    def _add(self, options: Machine) -> Node:
        self._number += 1
        name = f"n{self._number}"
        self.nodes[name] = Node(self.site, name, machine.start(self.site, name, options))
        return self.nodes[name]

    def _start_head(self) -> Node:
        options = Machine(self._head_cpus, environment=self.health)
        return Node(self.site, "head", machine.start(self.site, "head", options, head=True, options=("--no-monitor",)))

    def _shared(self, root: Path) -> dict[str, str]:
        token = root / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32), encoding="ascii")
        return {
            **machine.inherited(),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_START_HOOK": "tests.faults.machine.without_client",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(_GOODBYE_S),
            "OMP_NUM_THREADS": "1",
            **self._extra,
        }
