"""A Ray of a test's own, in a process of its own, with a token of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from search.ray_access import MODE, PATH, TOKEN
from tests.search.running import ROOT, end_processes_of, wait_for

_LOCAL = """
import sys
from pathlib import Path
from search import environment, ray_access
environment.quiet_libraries()
with ray_access.local_token() as file:
    import ray
    context = ray.init(num_cpus=0, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    print(context.address_info["gcs_address"], file, flush=True)
    sys.stdin.read()
    ray.shutdown()
print("gone" if not file.parent.exists() else "left", flush=True)
"""


@dataclass(frozen=True)
class OwnRay:
    address: str
    token: Path
    folder: str
    process: subprocess.Popen[str]


def without_tokens(home: Path, **more: str) -> dict[str, str]:
    """This environment without what it says of tokens, at a home that has none."""
    kept = {name: value for name, value in os.environ.items() if name not in (MODE, TOKEN, PATH, "RAY_ADDRESS")}
    return {**kept, "HOME": str(home), **more}


@contextmanager
def local_ray(home: Path) -> Iterator[OwnRay]:
    """As a search starts it: `ray.init` within `ray_access.local_token`, until standard input ends."""
    folder = tempfile.mkdtemp(prefix="ray")
    environment = without_tokens(home, RAY_TMPDIR=folder, PYTHONPATH=str(ROOT))
    with subprocess.Popen(
        [sys.executable, "-c", _LOCAL],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline().split()
            assert len(said) == 2, process.communicate()[1]
            yield OwnRay(said[0], Path(said[1]), folder, process)
        finally:
            if process.poll() is None:
                process.kill()
            end_processes_of(folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def control_service(folder: Path, **settings: str) -> Iterator[str]:
    """The address of Ray's control service alone, without any node: up at once. `settings` as in `started_head`."""
    import ray
    from ray._private.services import get_node_ip_address

    host, port = get_node_ip_address(), free_port()
    program = Path(ray.__file__).parent / "core" / "src" / "ray" / "gcs" / "gcs_server"
    options = {
        "log_dir": folder,
        "config_list": "e30=",  # {} in base64
        "gcs_server_port": port,
        "metrics-agent-port": -1,
        "node-ip-address": host,
        "session-name": "session",
        "ray-commit": "none",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [str(program), *(f"--{name}={value}" for name, value in options.items())],
            env=without_tokens(folder, **settings),
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(lambda: _listens(host, port), 30)
            yield f"{host}:{port}"
        finally:
            process.kill()
            process.wait()


@contextmanager
def started_head(home: Path, **settings: str) -> Iterator[str]:
    """The address of a cluster begun with `ray start --head`; `settings` are environment variables."""
    folder = tempfile.mkdtemp(prefix="ray")
    ports = [str(free_port()) for _ in range(3)]
    names = ("port", "ray-client-server-port", "dashboard-agent-listen-port")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=0"),
            *("--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"),
            *(f"--{name}={port}" for name, port in zip(names, ports, strict=True)),
        ],
        env=without_tokens(home, RAY_TMPDIR=folder, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(lambda: (Path(folder) / "ray_current_cluster").is_file(), 60, process)
        yield (Path(folder) / "ray_current_cluster").read_text().strip()
    finally:
        process.terminate()
        end_processes_of(folder)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _listens(host: str, port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex((host, port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
