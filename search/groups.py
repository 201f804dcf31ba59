"""Worker groups: Ray Train runs that start once and serve trials until the search ends.

Each group is one `TorchTrainer.fit()` in a thread of the hub's process. Ray Train restarts the workers of a
group when one dies (the hub then tells the trial, and Tune retries it); a run that gives up altogether is begun
again a few times before the group counts as gone. Because everything of Ray Train is owned by that one actor,
ending the actor ends every process of every group, and a driver thread never waits inside Ray while it shuts
down (which would take the driver with it).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from typing import Any

import ray

from search.hub import NAMESPACE, Hub, _Group
from search.resources import GroupPlan

_log = logging.getLogger(__name__)

_WORKER_RESTARTS = 8  # by Ray Train, within one run
_RUNS = 3


class Keeper(Hub):
    """The hub, and the threads that keep the groups up."""

    async def start(self, plan: GroupPlan, worker: dict[str, Any], scratch: str) -> None:
        """Bring up all groups; returns at once."""
        self._loop = asyncio.get_running_loop()
        for i in range(plan.groups):
            self._groups.setdefault(f"g{i}", _Group())  # known before they speak: they may still come up
        self._threads = [
            threading.Thread(target=self._keep, args=(f"g{i}", plan, worker, scratch), daemon=True)
            for i in range(plan.groups)
        ]
        for thread in self._threads:
            thread.start()

    async def running(self) -> int:
        """How many groups still have a Ray Train run."""
        return sum(thread.is_alive() for thread in self._threads)

    def _keep(self, group_id: str, plan: GroupPlan, worker: dict[str, Any], scratch: str) -> None:
        reason = "its Ray Train run ended"
        failures = runs = 0
        while failures < _RUNS:
            before = self._groups[group_id].answered
            try:
                _run(group_id, runs, plan, worker, scratch)
            except Exception as error:
                reason = _last_line(error)
            if self._closing or self._refused:
                return
            runs += 1
            # A group that has done work since its last start is worth starting again, however often.
            failures = 0 if self._groups[group_id].answered > before else failures + 1
        told = self.down(group_id, f"worker group {group_id} could not be kept up: {reason}")
        asyncio.run_coroutine_threadsafe(told, self._loop).result()


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
            max_concurrency=1000,
            scheduling_strategy=_here(),
        ).remote()
        worker = {**worker, "hub": self.hub_name, "namespace": NAMESPACE, "threads": plan.cpus}
        self._hub.start.remote(plan, worker, scratch)

    def facts(self) -> dict[str, dict[str, Any]]:
        """What the groups that are up said of their devices."""
        return ray.get(self._hub.facts.remote(), timeout=30)

    def logs(self) -> str:
        """Where Ray writes what its processes say, on this machine."""
        node: Any = ray._private.worker._global_node
        return f"{node.get_session_dir_path()}/logs"

    def dead(self) -> str:
        """Why no group is left, or ""."""
        return ray.get(self._hub.dead.remote(), timeout=30)

    def abandon(self, trial: str) -> None:
        """Free the group of a trial whose proxy died."""
        self._hub.abandon.remote(trial)

    def free_all(self) -> None:
        """Take back the leases of proxies that are gone; called when Tune has ended."""
        ray.get(self._hub.free_all.remote(), timeout=30)

    def alive(self) -> bool:
        """Whether the process that keeps the groups is there."""
        try:
            ray.get(self._hub.dead.remote(), timeout=30)
        except ray.exceptions.RayActorError:
            return False
        except ray.exceptions.GetTimeoutError:
            return True
        return True

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Have any free group execute one command; raises RuntimeError with its story when it fails.

        A group that dies over it is replaced by another, twice.
        """
        answer: dict[str, Any] = {}
        for _ in range(3):
            answer = self._ask_once(command)
            if "lost" not in answer:
                break
        if "lost" in answer or "error" in answer:
            raise RuntimeError(answer.get("error") or answer["lost"])
        return answer

    def _ask_once(self, command: dict[str, Any]) -> dict[str, Any]:
        try:
            lease = ray.get(self._hub.acquire.remote("driver", command["deadline"]))
            if lease is None:
                return {"lost": f"no worker group was free for {command['deadline']:.0f} s"}
            if "lost" in lease:
                return lease
            return ray.get(self._hub.call.remote(lease["group"], lease["incarnation"], command))
        finally:
            ray.get(self._hub.release.remote("driver"))

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
        with contextlib.suppress(Exception):  # gone already
            ray.kill(self._hub)


def _run(group_id: str, attempt: int, plan: GroupPlan, worker: dict[str, Any], scratch: str) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from trainables.worker import serve

    resources: dict[str, float] = {"CPU": plan.cpus}
    if plan.gpus:
        resources["GPU"] = plan.gpus
    TorchTrainer(
        serve,
        train_loop_config={**worker, "group": group_id},
        # NCCL refuses two ranks on one GPU.
        torch_config=TorchConfig(backend="nccl" if plan.gpus >= 1 else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=plan.workers,
            use_gpu=plan.gpus > 0,
            resources_per_worker=resources,
            placement_strategy="PACK",
        ),
        run_config=RunConfig(
            name=f"{group_id}-{attempt}",
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=_WORKER_RESTARTS),
        ),
    ).fit()


def _here() -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
