"""The process around a search: quiet libraries, what versions are in use, default places (torch-free)."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_SETTINGS = {
    # No telemetry, no files written for it.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    # What the search does not use costs start-up time and log lines.
    "RAY_TRAIN_V2_ENABLED": "1",
    # Started by `uv run`, Ray would pack the project and give every worker an environment of its own, installed anew.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Placed anywhere, it keeps a node from idling, and it tells workers what they do not ask for: every epoch is kept.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Several controllers in a process (search.placed) would each set up its logging anew, and wait for one another.
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of trials that Ctrl-C ended: nobody asks for their results any more
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the journal is the state; Tune's own snapshots are not read
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def quiet_libraries() -> None:
    """Set what must be set before Ray and MLflow are imported; what the user has set stays."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def versions() -> dict[str, Any]:
    """What somebody would need to know to get the same numbers."""
    packages = ("torch", "transformers", "ray", "optuna", "mlflow", "peft")
    return {
        "versions": {
            "petl-search": _version("petl-search"),
            "python": platform.python_version(),
            **{name: _version(name) for name in packages},
        },
        "processor": processor(),
        "git_commit": git_commit(),
    }


def processor() -> str:
    """The processor's name and the CPUs this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {count} CPUs"


def git_commit() -> str:
    """The commit the working directory is at, "-dirty" appended when it differs; "" outside a repository."""
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip() if head.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
