"""The hub: one small async actor through which trials talk to worker groups that outlive them.

A *group* is the worker processes of one Ray Train run; it is started once and trains many trials. A *trial
proxy* (the Tune trainable) leases a group, posts commands to it and waits for the answers. Groups pull: every
worker of a group asks for command number 1, 2, 3, ... and executes them in that order.

A group whose workers were started anew comes back under a new *incarnation*. Whatever was asked of the old one is
answered with `{"lost": reason, "kind": ...}`, so that no proxy waits for the dead. The kinds: `worker` (a process of
the group died), `node` (the machine it ran on went away), `hung` (no answer within the deadline), `lease` (the group
was given to another meanwhile), `ending` (nothing more will come: the search ends).
Torch-free and Ray-free: this actor holds no tensors, and `Keeper` adds what concerns Ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from search.group import Answer, Command, Group

NAMESPACE = "petl-search"
_NEVER = 3  # groups that could not be kept up while none ever worked: nor will the next
_IDLE_S = 10.0  # a lease without a command for so long may be given to somebody who waits
_GRACE_S = 20.0  # for the workers' own watchdogs to act first


class Hub:
    """Mailboxes and leases of all groups of one search. Every method is a coroutine of one event loop."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        self._changed = asyncio.Condition()
        self._closing = False
        self._refused = ""  # why no worker can ever do what is asked of it
        self._warm: set[str] = set()  # nodes where data were opened: their feature cache is built
        self._incidents: list[dict[str, Any]] = []
        self._generation = 0  # of leases; those who asked before it changed are gone

    # -- the workers' side -------------------------------------------------------------------------------

    async def enlist(self, group_id: str, rank: int, worker: Any, node: str) -> None:
        """A worker of a (re)started group says who and where it is, so that it can be ended when it is frozen."""
        group = self._groups.setdefault(group_id, Group())
        group.workers[rank], group.nodes[rank] = worker, node

    async def hello(self, group_id: str, facts: dict[str, Any]) -> int:
        """Rank 0 of a (re)started group announces itself; returns the new incarnation."""
        async with self._changed:
            group = self._groups.setdefault(group_id, Group())
            group.lose("its worker group was restarted after a worker failed", "worker")
            group.incarnation += 1
            group.placed, group.ready = True, not group.down
            group.commands, group.heard, group.pulled, group.done, group.facts = [], {}, 0, 0, facts
            group.touched = time.monotonic()
            self._changed.notify_all()
            return group.incarnation

    async def next(self, group_id: str, incarnation: int, number: int, timeout: float) -> Command | None:
        """Command `number` of this incarnation; None when there is none within `timeout` seconds."""
        group = self._groups.get(group_id)
        if group is None:
            return {"op": "exit"}

        def over() -> bool:
            return self._closing or group.retiring or group.incarnation != incarnation

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: over() or len(group.commands) >= number), timeout)
            except TimeoutError:
                return None
            if group.incarnation != incarnation or (over() and len(group.commands) < number):
                return {"op": "exit"}
            group.pulled = max(group.pulled, number)
            return group.commands[number - 1]

    async def answer(self, group_id: str, incarnation: int, number: int, answer: Answer) -> None:
        """Deliver the answer to command `number`; late answers of an earlier incarnation are dropped."""
        group = self._groups.get(group_id)
        if group is None or group.incarnation != incarnation:
            return
        group.answered += 1
        group.done += 1
        group.touched = time.monotonic()
        broken = "error" in answer or "oom" in answer
        if broken and group.facts.get("workers", 1) > 1:
            group.ready = False  # its other workers stand in a collective call: the whole set starts anew
        elif not broken:
            self._warm |= set(group.nodes.values())
        waiting = group.answers.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def hung(self, group_id: str, incarnation: int, number: int, stack: str) -> None:
        """A worker's watchdog: command `number` overran its deadline, and this is where it stood."""
        group = self._groups.get(group_id)
        if group is None or group.incarnation != incarnation:
            return
        group.ready = False  # until it has ended itself and a new set says hello
        waiting = group.answers.pop(number, None)
        if waiting is not None and not waiting.done():
            deadline = group.commands[number - 1]["deadline"]
            waiting.set_result({"lost": _hung_for(deadline), "kind": "hung", "stack": stack})

    async def busy(self, group_id: str, incarnation: int, number: int) -> None:
        """Command `number` gets on, though it takes long: its deadline begins again."""
        group = self._groups.get(group_id)
        if group is not None and group.incarnation == incarnation:
            group.heard[number] = time.monotonic()

    async def refuse(self, group_id: str, reason: str) -> None:
        """A worker cannot serve, for a reason that would be the same however often it was started: nothing goes on."""
        self._refused = reason
        await self.down(group_id, reason)

    # -- the trials' side --------------------------------------------------------------------------------

    async def acquire(self, owner: str, timeout: float) -> Answer | None:
        """Lease a free, ready group to `owner`: {"group", "incarnation"}; None after `timeout` seconds.

        Groups on nodes that hold the data's features already come first. A lease that nobody uses counts as free: its
        owner may have died, or be kept by Tune for a later trial. `{"lost": reason, "kind": "ending"}` when there will
        be no group any more.
        """
        generation, give_up = self._generation, time.monotonic() + timeout

        def over() -> str:
            if self._closing or generation != self._generation:
                return "the search is ending"
            return self._dead()

        async with self._changed:
            while not over() and not self._free():
                left = give_up - time.monotonic()
                if left <= 0:
                    return None
                with contextlib.suppress(TimeoutError):  # looks again now and then: leases fall idle silently
                    await asyncio.wait_for(self._changed.wait_for(lambda: bool(over() or self._free())), min(left, 2.0))
            if over():
                return {"lost": over(), "kind": "ending"}
            name = min(self._free(), key=lambda n: not self._warm.issuperset(self._groups[n].nodes.values()))
            group = self._groups[name]
            group.lease, group.touched = owner, time.monotonic()
            return {"group": name, "incarnation": group.incarnation}

    def _free(self) -> list[str]:
        now = time.monotonic()

        def unused(group: Group) -> bool:
            return len(group.commands) == group.done and now - group.touched > _IDLE_S

        return [
            name
            for name, group in self._groups.items()
            if group.ready and not group.retiring and (group.lease is None or unused(group))
        ]

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
            self._generation += 1
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

    async def call(self, group_id: str, incarnation: int, owner: str, command: Command) -> Answer:
        """Post a command (it holds its own `deadline` in seconds) and wait for its answer.

        `patience`, if it holds one, is for how many seconds more workers may wait for the storage.

        `{"lost": reason, "kind": ...}` when the group dies or restarts meanwhile, or overruns the deadline (its
        workers then end themselves, or are ended, and a new set comes up).
        """
        group = self._groups.get(group_id)
        if self._closing:
            return {"lost": "the search is ending", "kind": "ending"}
        if group is None or not group.ready or group.incarnation != incarnation:
            return {"lost": (group and group.down) or "its worker group was restarted", "kind": "worker"}
        if group.lease != owner:
            return {"lost": "its lease was given to another", "kind": "lease"}
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        async with self._changed:
            number = len(group.commands) + 1
            group.commands.append({**command, "posted": time.time()})
            group.answers[number] = future
            self._changed.notify_all()
        try:
            return await self._answered(group, number, future)
        except TimeoutError:
            begun = group.pulled >= number
            if group.incarnation == incarnation and (begun or group.pulled <= group.done):
                # It hangs in this command, or does nothing and still does not ask for it: frozen, so that not even
                # its watchdog ran. (One that is busy with what a dead proxy wanted of it is left alone.)
                group.ready = False  # until a new set says hello
                self._end_workers(group)
            return {"lost": _hung_for(command["deadline"]), "kind": "hung" if begun else "worker", "stack": ""}

    @staticmethod
    async def _answered(group: Group, number: int, future: asyncio.Future[Answer]) -> Answer:
        command = group.commands[number - 1]
        most = command["deadline"] + command.get("patience", 0.0) + _GRACE_S
        heard = group.heard  # of this incarnation
        due = time.monotonic() + most
        while (left := due - time.monotonic()) > 0:
            done, _ = await asyncio.wait([future], timeout=left)
            if done:
                return future.result()
            due = max(due, heard.get(number, 0.0) + most)
        raise TimeoutError

    async def incident(self, facts: dict[str, Any]) -> None:
        """Something went wrong with a trial and was dealt with: the driver reads it (`standing`) and keeps it."""
        self._incidents.append(facts)

    # -- the driver's side -------------------------------------------------------------------------------

    async def standing(self, incidents_known: int = 0) -> dict[str, Any]:
        """How things are, for the driver's look once a second.

        `slots` (groups that train or are about to), `pending` (groups that wait for a place), `facts` of those that
        are up, `dead` (why there will be none, or ""), `incidents` (those after the first `incidents_known`).
        """
        groups = [g for g in self._groups.values() if not g.down and not g.retiring]
        return {
            "slots": sum(g.placed for g in groups),
            "pending": sum(not g.placed for g in groups),
            "facts": {name: g.facts for name, g in self._groups.items() if g.ready},
            "dead": self._dead(),
            "incidents": self._incidents[incidents_known:],
        }

    async def down(self, group_id: str, reason: str) -> None:
        """The Ray Train run of this group has ended and will not come back by itself."""
        async with self._changed:
            group = self._groups.setdefault(group_id, Group())
            group.ready, group.placed, group.down = False, False, reason
            group.lose(reason, "worker")
            self._changed.notify_all()

    async def lost(self, group_id: str, reason: str, kind: str) -> None:
        """The workers of this group are gone; others may take their place."""
        async with self._changed:
            group = self._groups[group_id]
            group.ready, group.placed = False, False
            group.workers, group.nodes = {}, {}
            group.lose(reason, kind)
            self._changed.notify_all()

    async def close(self) -> None:
        """Tell every worker to leave its loop, and everyone who waits that nothing more will come."""
        async with self._changed:
            self._closing = True
            for group in self._groups.values():
                group.lose("the search is ending", "ending")
            self._changed.notify_all()

    def _dead(self) -> str:
        groups = self._groups.values()
        reasons = [group.down for group in groups if group.down]
        if self._refused:
            return self._refused
        # One that waits for a place is no hope where several that had one never came to work.
        hopeless = len(reasons) >= _NEVER and not any(group.answered or group.ready for group in groups)
        return reasons[-1] if reasons and (hopeless or len(reasons) == len(groups)) else ""

    def _end_workers(self, group: Group) -> None:
        """End the processes of a group that does not answer; what can end them is known to `Keeper`."""


def _hung_for(deadline: float) -> str:
    return f"its worker group gave no answer for {deadline:.0f} s"
