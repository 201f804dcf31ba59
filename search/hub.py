"""The hub: one small async actor through which trials talk to worker groups that outlive them.

A *group* is the worker processes of one Ray Train run; it is started once and trains many trials. A *trial
proxy* (the Tune trainable) leases a group, posts commands to it and waits for the answers. Groups pull: every
worker of a group asks for command number 1, 2, 3, ... and executes them in that order.

A group that restarts (a worker died and Ray Train brought up a new set) comes back under a new *incarnation*.
Whatever was asked of the old one is answered with `{"lost": reason}`, so that no proxy waits for the dead.
Torch-free: this actor holds no tensors.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

NAMESPACE = "petl-search"
_GRACE_S = 15.0  # for the workers' own watchdog to act first
Command = dict[str, Any]
Answer = dict[str, Any]


@dataclass
class _Group:
    incarnation: int = 0
    ready: bool = False
    down: str = ""  # why this group will not come back; empty while it may
    lease: str | None = None
    commands: list[Command] = field(default_factory=list)  # of this incarnation; number n is commands[n - 1]
    pulled: int = 0  # the highest command number a worker has fetched
    answered: int = 0  # commands answered in all incarnations: a group that works
    answers: dict[int, asyncio.Future[Answer]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Hub:
    """Mailboxes and leases of all groups of one search. Every method is a coroutine of one event loop."""

    def __init__(self) -> None:
        self._groups: dict[str, _Group] = {}
        self._changed = asyncio.Condition()
        self._closing = False
        self._refused = ""  # why no worker can ever do what is asked of it

    # -- the workers' side -------------------------------------------------------------------------------

    async def hello(self, group_id: str, facts: dict[str, Any]) -> int:
        """Rank 0 of a (re)started group announces itself; returns the new incarnation."""
        async with self._changed:
            group = self._groups.setdefault(group_id, _Group())
            self._lose(group, "its worker group was restarted after a worker failed")
            group.incarnation += 1
            group.ready, group.commands, group.pulled, group.facts = True, [], 0, facts
            self._changed.notify_all()
            return group.incarnation

    async def next(self, group_id: str, incarnation: int, number: int, timeout: float) -> Command | None:
        """Command `number` of this incarnation; None when there is none within `timeout` seconds."""
        group = self._groups[group_id]

        def due() -> bool:
            return self._closing or group.incarnation != incarnation or len(group.commands) >= number

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(due), timeout)
            except TimeoutError:
                return None
            if group.incarnation != incarnation or (self._closing and len(group.commands) < number):
                return {"op": "exit"}
            group.pulled = max(group.pulled, number)
            return group.commands[number - 1]

    async def answer(self, group_id: str, incarnation: int, number: int, answer: Answer) -> None:
        """Deliver the answer to command `number`; late answers of an earlier incarnation are dropped."""
        group = self._groups[group_id]
        if group.incarnation == incarnation:
            group.answered += 1
            if "error" in answer and group.facts.get("workers", 1) > 1:
                group.ready = False  # its other workers stand in a collective call: the whole set starts anew
            waiting = group.answers.pop(number, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def refuse(self, group_id: str, reason: str) -> None:
        """A worker cannot serve, for a reason that would be the same however often it was started: nothing goes on."""
        self._refused = reason
        await self.down(group_id, reason)

    # -- the trials' side --------------------------------------------------------------------------------

    async def acquire(self, owner: str, timeout: float) -> Answer | None:
        """Lease a free, ready group to `owner`: {"group", "incarnation"}; None after `timeout` seconds.

        `{"lost": reason}` when there will be no group any more.
        """

        def free() -> list[str]:
            return [name for name, g in self._groups.items() if g.ready and g.lease is None]

        async with self._changed:
            try:
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: self._closing or self._dead() or bool(free())), timeout
                )
            except TimeoutError:
                return None
            if self._closing or self._dead():
                return {"lost": self._dead() or "the search is ending"}
            name = free()[0]
            self._groups[name].lease = owner
            return {"group": name, "incarnation": self._groups[name].incarnation}

    async def release(self, owner: str) -> None:
        """Give back whatever `owner` leases."""
        async with self._changed:
            for group in self._groups.values():
                if group.lease == owner:
                    group.lease = None
            self._changed.notify_all()

    async def free_all(self) -> None:
        """Take every lease back: no proxy is left. Commands posted now wait for what a worker still does."""
        async with self._changed:
            for group in self._groups.values():
                group.lease = None
            self._changed.notify_all()

    async def abandon(self, trial: str) -> None:
        """Free the group that last worked for `trial`: its proxy died without giving it back."""
        async with self._changed:
            for group in self._groups.values():
                if group.commands and group.commands[-1].get("trial") == trial:
                    group.lease = None
            self._changed.notify_all()

    async def call(self, group_id: str, incarnation: int, command: Command) -> Answer:
        """Post a command (it holds its own `deadline` in seconds) and wait for its answer.

        `{"lost": reason}` when the group dies or restarts meanwhile, or overruns the deadline (its workers then
        end themselves, and Ray Train brings up new ones).
        """
        group = self._groups[group_id]
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        async with self._changed:
            if not group.ready or group.incarnation != incarnation:
                return {"lost": group.down or "its worker group was restarted"}
            number = len(group.commands) + 1
            group.commands.append({**command, "posted": time.time()})
            group.answers[number] = future
            self._changed.notify_all()
        try:
            return await asyncio.wait_for(future, command["deadline"] + _GRACE_S)
        except TimeoutError:
            if group.pulled >= number:
                group.ready = False  # until its watchdog has ended it and a new set says hello
            return {"lost": f"its worker group gave no answer for {command['deadline']:.0f} s"}

    # -- the driver's side -------------------------------------------------------------------------------

    async def down(self, group_id: str, reason: str) -> None:
        """The Ray Train run of this group has ended and will not come back by itself."""
        async with self._changed:
            group = self._groups.setdefault(group_id, _Group())
            group.ready, group.down = False, reason
            self._lose(group, reason)
            self._changed.notify_all()

    async def close(self) -> None:
        """Tell every worker to leave its loop, and everyone who waits that nothing more will come."""
        async with self._changed:
            self._closing = True
            for group in self._groups.values():
                self._lose(group, "the search is ending")
            self._changed.notify_all()

    async def facts(self) -> dict[str, dict[str, Any]]:
        """What each ready group said of itself: devices, precision, threads, why."""
        return {name: g.facts for name, g in self._groups.items() if g.ready}

    async def dead(self) -> str:
        """Why no group is left, or "" while one is up or may come back."""
        return self._dead()

    def _dead(self) -> str:
        reasons = [group.down for group in self._groups.values()]
        if self._refused:
            return self._refused
        return reasons[-1] if reasons and all(reasons) else ""

    @staticmethod
    def _lose(group: _Group, reason: str) -> None:
        for waiting in group.answers.values():
            if not waiting.done():
                waiting.set_result({"lost": reason})
        group.answers = {}
        group.lease = None
