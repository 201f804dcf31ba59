"""What keeps the worker groups up: Ray Train runs that start once and serve trials until the search ends.

Each group is a Ray Train run in a thread of the hub's process, begun when its placement group is granted, and begun
anew, in a new placement group, when its workers are lost. How many there are follows what the driver says it can use
(`want`): pending placement groups are what an autoscaler sees, and groups that nobody needs leave, so that their nodes
become idle. Because everything is owned by that one actor, ending the actor ends every process and every placement
group, and a driver thread never waits inside Ray while it shuts down (which would take the driver with it).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import ray

from search import environment
from search.group import Group, surplus
from search.hub import Hub
from search.resources import GroupPlan

_log = logging.getLogger(__name__)

_RUNS = 3  # of a group in a row that end before it has answered anything
_LONGEST_PAUSE_S = 30.0
_NODE_NOTICED_S = 12.0  # until Ray has declared a node dead whose workers are gone


class Keeper(Hub):
    """The hub, and the threads that keep the groups up."""

    async def start(self, name: str, plan: GroupPlan, worker: dict[str, Any], scratch: str) -> None:
        """Remember what groups are; they come up when they are wanted."""
        environment.quiet_libraries()  # on a cluster, this process has not inherited the driver's settings
        self._loop = asyncio.get_running_loop()
        self._name, self._plan, self._worker, self._scratch = name, plan, worker, scratch
        self._threads: dict[str, threading.Thread] = {}
        self._made = 0

    async def want(self, count: int) -> None:
        """Have this many groups: more are asked for, or those that nobody needs are let go."""
        alive = [g for g in self._groups.values() if not g.retiring and not g.down]
        for _ in range(count - len(alive)):
            if self._closing or self._refused or len(self._groups) - len(alive) >= 3 * self._plan.groups:
                return  # too many that could not be kept up
            self._begin()
        async with self._changed:
            for name in surplus(self._groups, count):
                self._groups[name].retiring = True
            self._changed.notify_all()

    def _begin(self) -> None:
        name = f"g{self._made}"
        self._made += 1
        self._groups[name] = Group()  # known before it speaks: it may still come up
        self._threads[name] = threading.Thread(target=self._keep, args=(name,), daemon=True)
        self._threads[name].start()

    async def running(self) -> int:
        """How many groups still have a thread."""
        return sum(thread.is_alive() for thread in self._threads.values())

    # -- in a group's thread -----------------------------------------------------------------------------

    def _keep(self, name: str) -> None:
        group = self._groups[name]
        failures = attempt = 0
        while not self._over(group):
            run = f"{self._name}-{name}-{attempt}"
            before = group.answered
            try:
                with self._placed(run, group) as placed:
                    if not placed:
                        break
                    _run(run, self._plan, {**self._worker, "group": name}, self._scratch)
                if self._over(group):
                    break
                reason, kind = "its workers ended", "worker"
            except Exception as error:
                _log.debug("a worker group ended", exc_info=True)
                if self._over(group):
                    break
                reason, kind = self._why(group, error)
            gc.collect()  # the error's frames hold the run's controller, and with it handles of actors
            attempt += 1
            # A group that has done work since its last start is worth starting again, however often.
            failures = 0 if kind == "node" or group.answered > before else failures + 1
            if failures == 1:
                self._tell(self.incident({"trial": "", "kind": "start", "reason": reason, "stack": ""}))
            if failures >= _RUNS:
                self._tell(self.down(name, f"worker group {name} could not be kept up: {reason}"))
                return
            self._tell(self.lost(name, reason, kind))
            time.sleep(min(_LONGEST_PAUSE_S, 2.0**failures - 1))
        self._tell(self._gone(name))

    def _over(self, group: Group) -> bool:
        return self._closing or bool(self._refused) or group.retiring

    @contextlib.contextmanager
    def _placed(self, run: str, group: Group) -> Iterator[bool]:
        """The group's resources, under the name of its run, waited for as long as anybody wants them; then given back.

        (Ray Train gives them back too, but not those of a run that failed before its workers were begun.)
        """
        from ray.util.placement_group import placement_group, remove_placement_group

        asked = placement_group([bundle(self._plan)] * self._plan.workers, strategy="PACK", name=run)
        try:
            while not (granted := bool(asked.wait(1))) and not self._over(group):
                pass
            group.placed = granted
            yield granted
        finally:
            with contextlib.suppress(Exception):  # the cluster may be gone
                remove_placement_group(asked)

    def _why(self, group: Group, error: Exception) -> tuple[str, str]:
        """What ended a group: its node, or one of its processes."""
        text = _last_line(error)
        for _ in range(int(_NODE_NOTICED_S / 0.5)):
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            gone = [node for node in group.nodes.values() if node not in alive]
            if gone:
                return f"the node it trained on was lost ({_address(gone[0])})", "node"
            if "node" not in text.lower() or self._over(group):
                break
            time.sleep(0.5)
        return text, "worker"

    def _tell(self, said: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closing with its process
            asyncio.run_coroutine_threadsafe(said, self._loop).result()

    async def _gone(self, name: str) -> None:
        async with self._changed:
            self._groups[name].lose("its worker group was let go", "worker")
            del self._groups[name]
            self._threads.pop(name, None)
            self._changed.notify_all()

    def _end_workers(self, group: Group) -> None:
        for worker in group.workers.values():
            with contextlib.suppress(Exception):
                ray.kill(worker)


def bundle(plan: GroupPlan) -> dict[str, float]:
    """What one worker asks of a node."""
    return {"CPU": plan.cpus, **({"GPU": plan.gpus} if plan.gpus else {})}


def _run(name: str, plan: GroupPlan, worker: dict[str, Any], scratch: str) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig
    from ray.train.v2.api.config import FailureConfig

    from search.placed import PlacedTrainer
    from trainables.worker import serve

    PlacedTrainer(
        serve,
        train_loop_config=worker,
        # NCCL refuses two ranks on one GPU.
        torch_config=TorchConfig(backend="nccl" if plan.gpus >= 1 else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=plan.workers,
            use_gpu=plan.gpus > 0,
            resources_per_worker=bundle(plan),
            placement_strategy="PACK",
        ),
        run_config=RunConfig(
            name=name,
            storage_path=scratch,
            # Not tried again in the same place: that may be gone, and the next one is asked for by the group's thread.
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0),
        ),
    ).fit()


def _address(node_id: str) -> str:
    return next((n["NodeManagerAddress"] for n in ray.nodes() if n["NodeID"] == node_id), node_id[:8])


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
