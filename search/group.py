"""What is known of a worker group, and which of several can go (torch-free, Ray-free)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Command = dict[str, Any]
Answer = dict[str, Any]


@dataclass
class Group:
    """What the hub knows of a worker group."""

    placed: bool = False  # its resources are granted: it runs, or is starting
    ready: bool = False  # its workers have said hello and pull commands
    retiring: bool = False  # it is told to leave as soon as it asks for its next command
    down: str = ""  # why this group will not come back; empty while it may
    incarnation: int = 0
    lease: str | None = None
    touched: float = 0.0  # when its lease was granted, or its latest command answered; monotonic
    commands: list[Command] = field(default_factory=list)  # of this incarnation; number n is commands[n - 1]
    pulled: int = 0  # the highest command number a worker has fetched
    done: int = 0  # commands answered in this incarnation
    answered: int = 0  # commands answered in all incarnations: a group that works
    answers: dict[int, asyncio.Future[Answer]] = field(default_factory=dict)
    heard: dict[int, float] = field(default_factory=dict)  # when a long command was last known to get on; monotonic
    facts: dict[str, Any] = field(default_factory=dict)
    workers: dict[int, Any] = field(default_factory=dict)  # rank -> handle of the worker's actor
    nodes: dict[int, str] = field(default_factory=dict)  # rank -> the node it is on

    def lose(self, reason: str, kind: str) -> None:
        """Answer everyone who waits that nothing will come, and free the group."""
        for waiting in self.answers.values():
            if not waiting.done():
                waiting.set_result({"lost": reason, "kind": kind})
        self.answers = {}
        self.lease = None


def surplus(groups: Mapping[str, Group], wanted: int) -> list[str]:
    """Groups to let go so that `wanted` are left: those without a place first, then idle ones.

    Of the idle ones those first whose node has the fewest trials, so that whole nodes become free.
    """
    alive = {n: g for n, g in groups.items() if not g.retiring and not g.down}
    busy: dict[str, int] = {}
    for group in alive.values():
        for node in set(group.nodes.values()):
            busy[node] = busy.get(node, 0) + (group.lease is not None)

    def cost(name: str) -> tuple[int, int]:
        group = alive[name]
        standing = 0 if not group.placed else 1 if not group.ready else 2
        return standing, sum(busy[node] for node in set(group.nodes.values()))

    idle = sorted((name for name, g in alive.items() if g.lease is None), key=cost)
    return idle[: max(0, len(alive) - wanted)]
