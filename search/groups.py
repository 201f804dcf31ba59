"""The driver's side of the worker groups (`search.keeper`)."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import ray

from search.hub import NAMESPACE
from search.keeper import Keeper
from search.resources import GroupPlan


class Groups:
    """The driver's handle on hub and groups. `close()` ends every process of them, however the search ended.

    Args:
        name: names the hub actor; unique per search.
        plan: how many groups of what size.
        worker: the configuration every worker gets (see `trainables.worker.serve`), less hub, group and threads.
        scratch: a folder for Ray Train's own files.
    """

    def __init__(self, name: str, plan: GroupPlan, worker: dict[str, Any], scratch: str) -> None:
        self.hub_name = f"hub-{name}"
        self.closed = False
        actor: Any = ray.remote(Keeper)
        self._hub = actor.options(
            name=self.hub_name,
            namespace=NAMESPACE,
            num_cpus=0,
            max_concurrency=plan.groups * (plan.workers + 4) + 100,  # each of them may wait in a call
            scheduling_strategy=_here(),
        ).remote()
        worker = {**worker, "hub": self.hub_name, "namespace": NAMESPACE, "threads": plan.cpus}
        self._hub.start.remote(name, plan, worker, scratch)

    def want(self, count: int) -> None:
        """Have this many groups from now on; returns at once."""
        self._hub.want.remote(count)

    def standing(self, incidents_known: int = 0) -> dict[str, Any]:
        """How things are (`Hub.standing`)."""
        return ray.get(self._hub.standing.remote(incidents_known), timeout=30)

    def logs(self) -> str:
        """Where Ray writes what its processes say, on this machine."""
        node: Any = ray._private.worker._global_node
        return f"{node.get_session_dir_path()}/logs"

    def abandon(self, trial: str) -> None:
        """Free the group of a trial whose proxy died."""
        self._hub.abandon.remote(trial)

    def free_all(self) -> None:
        """Take back the leases of proxies that are gone; called when Tune has ended."""
        ray.get(self._hub.free_all.remote(), timeout=30)

    def alive(self) -> bool:
        """Whether the process that keeps the groups is there."""
        try:
            ray.get(self._hub.standing.remote(), timeout=30)
        except ray.exceptions.RayActorError:
            return False
        except ray.exceptions.GetTimeoutError:
            return True
        return True

    def ask(self, trial: str, command: dict[str, Any]) -> dict[str, Any]:
        """Have any free group execute one command for a trial, whatever happens to groups meanwhile.

        Raises:
            Failed, Halted, Ending: see `search.calling`.
        """
        from search.calling import Caller

        caller = Caller(self._hub)
        caller.begin(trial)
        try:
            return caller.send(command)
        finally:
            caller.release()

    def stop_answering(self) -> None:
        """Let everyone who waits for a group go at once; used when the search is interrupted."""
        ray.get(self._hub.close.remote(), timeout=10)

    def close(self, patience: float) -> None:
        """Ask the workers to leave, wait up to `patience` seconds, and end what is left."""
        if self.closed:
            return
        self.closed = True
        with contextlib.suppress(Exception):  # the hub may be gone with the cluster; the workers went with it
            ray.get(self._hub.close.remote(), timeout=5)
            give_up = time.monotonic() + patience
            while time.monotonic() < give_up and ray.get(self._hub.running.remote(), timeout=5):
                time.sleep(0.2)
        self.kill()

    def kill(self) -> None:
        """End the hub, and with it every process and placement group of every group."""
        with contextlib.suppress(Exception):  # gone already
            ray.kill(self._hub)


def _here() -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
