"""Having a worker group carry out commands, whatever happens to the group meanwhile (torch-free).

Both who trains a trial (`search.proxy`) and who evaluates the winner (`search.groups`) call through here. What is
not the trial's fault is answered by asking another group: a node that was lost, however often; a worker that died, a
few times without progress; a group that hung, once. What is its fault, or cannot pass, is raised.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any

import ray

from search.hub import NAMESPACE

_LOOK_S = 30.0  # between two looks for a free group
_PREPARE_S = 1800.0  # without a sign that a node gets on with building its feature cache, or loading the backbone
_REFUSALS = 4  # of the storage in a row; of one that is away each comes after minutes of trying
_PAUSE_S = 5.0
_LIMITS = {"worker": 3, "error": 3, "hung": 2}
"""Failures of a kind that end a trial; those of `worker` and `error` are counted since its last new epoch."""
Answer = dict[str, Any]


class Failed(RuntimeError):
    """The command cannot be carried out, and trying again would not help."""


class Halted(RuntimeError):
    """Nothing can be carried out until a person has mended something; what is done so far is kept."""


class Ending(RuntimeError):
    """There are no groups any more: the search ends."""


class Caller:
    """One who sends commands, one after the other, for one trial at a time.

    Args:
        hub: name of the hub actor, or its handle.
    """

    def __init__(self, hub: Any) -> None:
        self._hub: Any = ray.get_actor(hub, namespace=NAMESPACE) if isinstance(hub, str) else hub
        self._owner = uuid.uuid4().hex
        self._lease: tuple[str, int] | None = None
        self.begin("")

    def begin(self, trial: str) -> None:
        """What follows is for this trial; a group that is leased stays so."""
        self._trial = trial
        self._prepared: set[tuple[str, int]] = set()  # leases; another trial may read other data
        self._failures: Counter[str] = Counter()
        self._parts = 1
        self._epoch = 0
        self._fresh = True

    def send(self, command: dict[str, Any]) -> Answer:
        """The answer to `command` (with `deadline` in seconds), from whichever group could give it.

        The first one for a trial, and the first after a failure, is `fresh`: of an epoch that the workers had trained
        before its report was lost, the report is given again.

        Raises:
            Failed: it is the trial's own fault, or has failed too often.
            Halted: the workers cannot keep what they compute.
            Ending: there is no group any more.
        """
        refusals = 0
        while True:
            lease = self._leased(command)
            answer = ray.get(
                self._hub.call.remote(
                    *lease, self._owner, {**command, "trial": self._trial, "fresh": self._fresh, "parts": self._parts}
                )
            )
            if "storage" in answer:  # what was computed waits in the worker's memory, to be written when asked again
                refusals += 1
                if refusals >= _REFUSALS:
                    raise Halted(answer["storage"])
                if refusals > 1:  # another node may see it; the epoch would have to be trained again there
                    self._forget()
                time.sleep(_PAUSE_S)
                continue
            if not self._again(answer, command):
                self._fresh = False
                self._progress(answer)
                return answer

    def release(self) -> None:
        """Give the group back."""
        self._lease = None
        ray.get(self._hub.release.remote(self._owner), timeout=10)

    def _leased(self, command: dict[str, Any]) -> tuple[str, int]:
        """A group that has the command's data open: building a node's cache is not part of any epoch's time."""
        while True:
            if self._lease is None:
                found = ray.get(self._hub.acquire.remote(self._owner, _LOOK_S))
                if found is None:
                    continue
                if "lost" in found:
                    raise Ending(found["lost"])
                self._lease = (found["group"], found["incarnation"])
            if self._lease in self._prepared:
                return self._lease
            lease = self._lease
            prepare = {"op": "prepare", "trial": self._trial, "flat": command["flat"], "deadline": _PREPARE_S}
            answer = ray.get(self._hub.call.remote(*lease, self._owner, prepare))
            if not self._again(answer, prepare):
                self._prepared.add(lease)
                return lease

    def _again(self, answer: Answer, command: dict[str, Any]) -> bool:
        """Whether the command has to be sent again; notes why. Raises when that would be pointless."""
        if "oom" in answer:
            self._parts = 2 * answer["parts"]
            self._note("memory", f"{answer['oom']}; goes on with batches in {self._parts} times as many parts", command)
            self._forget()
            return True
        kind = answer.get("kind", "worker") if "lost" in answer else "error" if "error" in answer else ""
        if not kind:
            return False
        reason = answer["lost"] if "lost" in answer else _last_line(answer["error"])
        if kind == "ending":
            raise Ending(reason)
        self._forget()
        if kind == "lease":
            return True
        self._failures[kind] += 1
        stack = answer.get("stack") or answer.get("error") or ""
        if self._failures[kind] >= _LIMITS.get(kind, 1 << 30):
            self._note("gave up", reason, command, stack)
            raise Failed(_final(kind, reason, self._failures[kind], stack))
        self._note(kind, reason, command, stack)
        return True

    def _forget(self) -> None:
        """The lease may be for workers that are gone; whoever is asked next has to look for a checkpoint."""
        self.release()
        self._fresh = True

    def _progress(self, answer: Answer) -> None:
        epoch = int(answer.get("epoch", 0))
        if epoch > self._epoch:
            self._epoch = epoch
            del self._failures["worker"], self._failures["error"]

    def _note(self, kind: str, reason: str, command: dict[str, Any], stack: str = "") -> None:
        facts = {"trial": self._trial, "kind": kind, "reason": reason, "during": command["op"], "stack": stack}
        self._hub.incident.remote(facts)


def _final(kind: str, reason: str, times: int, stack: str) -> str:
    if kind == "hung":
        stood = _last_line(stack) if stack else "no worker could say where"
        return f"{reason}, {times} times; it stood in: {stood}"
    return reason if kind == "error" else f"{reason}; {times} times without a new epoch"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "the worker gave no reason"
