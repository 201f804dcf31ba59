"""Finding and ending exactly the processes that were started under a mark in their environment (Linux).

A process inherits its environment, so a mark given to the first one is on all that come of it, whoever adopts them
and whatever group or session they put themselves into. Nothing else on the machine carries it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "PETL_FAULTS_NODE"
"""The variable. Its value is `<cluster>/<node>`."""

_PATIENCE_S = 10.0


def marked(value: str) -> list[int]:
    """Process ids whose mark is `value`, or begins with it when it ends in `/`. Zombies and this process are not."""
    entry = f"{MARK}={value}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it ended, or belongs to somebody else
            variables = (folder / "environ").read_bytes().split(b"\0")
            if any(v.startswith(entry) if value.endswith("/") else v == entry for v in variables):
                found.append(int(folder.name))
    return found


def mentioning(path: Path) -> list[int]:
    """Process ids with a path in their command line: those that dropped their environment, and drivers."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if os.fsencode(path) in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def command_of(pid: int) -> str:
    """Its command line, "" when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def send(pid: int, number: int) -> None:
    """A signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def freeze(value: str) -> list[int]:
    """Stop all processes with this mark, those that they start meanwhile included; returns their ids."""
    frozen: set[int] = set()
    while new := set(marked(value)) - frozen:
        for pid in new:
            send(pid, signal.SIGSTOP)
        frozen |= new
    return sorted(frozen)


def thaw(value: str) -> None:
    for pid in marked(value):
        send(pid, signal.SIGCONT)


def kill(value: str) -> list[int]:
    """SIGKILL to all processes with this mark, as if at one instant; returns their ids once they are gone.

    They are stopped first: none of them lives to tell anybody that another one died.

    Raises:
        TimeoutError: when some are still there after 10 s.
    """
    killed: set[int] = set()
    limit = time.monotonic() + _PATIENCE_S
    while found := freeze(value):
        killed |= set(found)
        for pid in found:
            send(pid, signal.SIGKILL)
        if time.monotonic() > limit:
            raise TimeoutError(f"still there {_PATIENCE_S:.0f} s after SIGKILL: {[command_of(p)[:80] for p in found]}")
        time.sleep(0.02)
    return sorted(killed)
