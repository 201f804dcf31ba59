"""One node of a Ray cluster as a `ray start --block` process of its own (imports neither Ray nor pytest).

Several of them share this machine, so each has its own folder for Ray's files, temporary files and the feature
cache; Ray itself chooses free ports for everything but the head's address.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.processes import MARK

ROOT = Path(__file__).parents[2]
PID_FILE = "pid"  # in a node's folder: of its `ray start`
OBJECT_STORE_BYTES = 80_000_000  # Ray refuses less than 75 MB


@dataclass(frozen=True)
class Machine:
    """What a node has. GPUs are numbers that Ray counts; no device is behind them."""

    num_cpus: float = 1
    num_gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)  # of the node's processes, on top of the cluster's


@dataclass(frozen=True)
class Site:
    """Where a cluster lives: what all of its nodes share. Written to a file for the autoscaler's node provider."""

    root: str  # its folder, with a short name: socket paths are limited to 107 bytes
    address: str  # ip:port of the head
    environment: Mapping[str, str]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        path.chmod(0o600)

    @classmethod
    def load(cls, path: Path) -> Site:
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def folder(self, name: str) -> Path:
        return Path(self.root) / name

    def mark(self, name: str) -> str:
        return f"{Path(self.root).name}/{name}"

    def of_node(self, name: str) -> dict[str, str]:
        """The environment of everything that runs on a node."""
        folder = self.folder(name)
        return {
            **self.environment,
            MARK: self.mark(name),
            "RAY_TMPDIR": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "PETL_CACHE": str(folder / "cache"),
        }


def start(site: Site, name: str, machine: Machine, head: bool = False, options: tuple[str, ...] = ()) -> int:
    """Start a node; returns the id of its `ray start` process, which leads a session of its own.

    Args:
        site: the cluster.
        name: of the node, unique in the cluster; Ray shows it as NodeName.
        machine: what it has.
        head: whether it is the head.
        options: further options of `ray start`.
    """
    folder = site.folder(name)
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
        *("--temp-dir", str(folder), "--node-name", name),
        *("--num-cpus", f"{machine.num_cpus:g}", "--num-gpus", f"{machine.num_gpus:g}"),
        *("--object-store-memory", str(OBJECT_STORE_BYTES)),
        *("--resources", json.dumps({**machine.resources, name: 1})),
        *options,
    ]
    if machine.labels:
        command += ["--labels", ",".join(f"{key}={value}" for key, value in machine.labels.items())]
    if head:
        command += ["--head", "--port", site.address.rpartition(":")[2], "--include-dashboard=false"]
    else:
        command += ["--address", site.address, "--include-log-monitor=false"]  # one for a machine is enough
    with (folder / "start.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**site.of_node(name), **machine.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _CHILDREN[process.pid] = process
    (folder / PID_FILE).write_text(str(process.pid), encoding="ascii")
    return process.pid


def ended(pid: int) -> bool:
    """Whether a process that `start` began is over; one of this process's own is also buried by asking."""
    process = _CHILDREN.get(pid)
    return not Path(f"/proc/{pid}").exists() if process is None else process.poll() is not None


def inherited() -> dict[str, str]:
    """This process's environment without anything that would point a Ray elsewhere."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k not in ("MLFLOW_TRACKING_URI", MARK)}
    # Under `uv run` a driver's workers would be started through uv, each in an environment that is made for it.
    plain = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    return {**kept, **plain, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH", ""))))}


def without_client(parameters: object, head: bool) -> None:
    """For RAY_START_HOOK: no Ray Client server, which would take a fixed port and a process."""
    parameters.ray_client_server_port = None  # type: ignore[attr-defined]


def own_ip() -> str:
    """The address Ray itself takes for this machine: that of the interface with a route out, else loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 80))  # a datagram socket sends nothing by that
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def free_port() -> int:
    """A port nobody listens on now; another process may take it first."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
