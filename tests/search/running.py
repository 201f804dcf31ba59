"""Running real searches from tests: the command line in a process of its own, its own Ray, its own everything."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


@contextmanager
def workplace(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of a search of its own. Ray's folder has a short name: socket paths are limited to 107 bytes."""
    ray = tempfile.mkdtemp(prefix="ray")
    environment = {**os.environ, "RAY_TMPDIR": ray, "PETL_CACHE": str(tmp_path / "cache"), "COLUMNS": "120"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    try:
        yield environment
    finally:
        end_processes_of(ray)
        shutil.rmtree(ray, ignore_errors=True)


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)]


def petl_search(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from search.cli import main; main()", *map(str, arguments)]


def run(
    arguments: list[str], cwd: Path, environment: dict[str, str], timeout: float = 240
) -> subprocess.CompletedProcess:
    return subprocess.run(
        arguments, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def start(
    arguments: list[str], cwd: Path, environment: dict[str, str], *, group: bool = False
) -> subprocess.Popen[str]:
    """Start a program; with `group` at the head of a process group, as a shell or a job system does."""
    return subprocess.Popen(
        arguments,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=group,
    )


def wait_for(what: Callable[[], bool], seconds: float, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until `what()`; fail with the process's output when it ends first or time runs out."""
    limit = time.monotonic() + seconds
    while not what():
        if process is not None and process.poll() is not None:
            raise AssertionError(f"ended with {process.returncode}:\n{process.communicate()[0][-4000:]}")
        if time.monotonic() > limit:
            raise AssertionError(f"did not happen within {seconds} s")
        time.sleep(0.1)


def processes_of(ray: str) -> list[psutil.Process]:
    """Every process that works in this Ray folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if ray in " ".join(process.cmdline()) or process.environ().get("RAY_TMPDIR") == ray:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return [p for p in found if p.pid != os.getpid()]


def workers_of(ray: str) -> list[psutil.Process]:
    """The Ray Train workers of the search in this folder."""
    workers = []
    for process in processes_of(ray):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                workers.append(process)
        except psutil.NoSuchProcess:
            continue
    return workers


def end_processes_of(ray: str) -> None:
    for process in processes_of(ray):
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
