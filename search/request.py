"""What a person asked for, and how it ended: the two ends of a search (torch-free, Ray-free)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.records import SearchRecord


@dataclass(frozen=True)
class Request:
    """What a person asked for on the command line."""

    space: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    output: Path | None = None
    resume: str | None = None  # a run directory, or where one was mirrored on shared storage
    address: str | None = None
    concurrent: int | None = None
    workers_per_trial: int | None = None  # None: 1, or as the resumed search had it
    gpus_per_worker: float | None = None
    cpus_per_worker: int | None = None
    storage: str | None = None
    mlflow: str | None = None


@dataclass
class Outcome:
    """How it ended, for the command line."""

    record: SearchRecord
    directory: Path
    interrupted: bool = False
    problem: str = ""
    best: Path | None = None
    mlflow_uri: str = ""


def next_commands(outcome: Outcome) -> list[str]:
    """What a person would type next."""
    from search.tracking import ui_command

    look = ui_command(outcome.mlflow_uri)
    commands = [f"uv run {look}" if look.startswith("mlflow ") else look]
    if outcome.best is not None:
        commands += [
            f"uv run petl-search predict {shlex.quote(str(outcome.best))} CLIP.wav",
            f"uv run petl-search train {shlex.quote(str(outcome.directory / 'best.yaml'))}",
        ]
    return commands


def resume_command(record: SearchRecord) -> str:
    """How the search is continued, on the cluster if it ran on one."""
    address = record.info.get("asked", {}).get("address")
    where = ["--address", address] if address else []
    return f"uv run launch.py {shlex.join(['--resume', record.directory, *where])}"


class Interrupted(Exception):
    """A person asked to stop before anything had begun."""
