"""The function Ray Train runs in every worker of a group: pull a command, execute it, answer, for ever."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.storage import Storage
    from trainables.watchdog import Watchdog

PULL_S = 20.0  # one long poll; short enough that a closed search is noticed
_DELIVERY_S = 5.0
_BUSY_S = 5.0  # between two signs that a long command gets on
_MARKER_S = 10.0  # network file systems may show a new file to others a little later


def serve(config: dict[str, Any]) -> None:
    """Serve commands until told to exit; a `UserError` before the first one is told to the hub and ends the search.

    `config`: hub (actor name), namespace, group (id), threads, storage (root of the checkpoints), marker (name of a
    file there, by which every worker sees that it is the same place as everybody's; may be absent), cache_root (None:
    that of the worker's own node), monitor (metric, mode), precision and width of the model (to say what is computed
    in, and why).

    Raises:
        PeerLost: another worker of the group, or its node, is gone. Nothing is answered: the trial can do nothing for
            it, and who started the group knows what happened.
        RuntimeError: this node does not see the checkpoints, or, of several workers, this one failed (as answered).
    """
    import ray
    import torch
    import torch.distributed as dist

    from petl.errors import UserError
    from trainables import memory
    from trainables.checkpoints import CheckpointStore
    from trainables.data.places import default_cache_root
    from trainables.peers import is_peer_lost, peer_lost
    from trainables.precision import choose
    from trainables.session import Session
    from trainables.storage import Storage
    from trainables.watchdog import Watchdog

    torch.set_num_threads(config["threads"])
    rank = dist.get_rank() if dist.is_initialized() else 0
    world = dist.get_world_size() if dist.is_initialized() else 1
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    hub: Any = ray.get_actor(config["hub"], namespace=config["namespace"])
    group, incarnation = config["group"], 0

    def tell(number: int, stack: str) -> None:
        ray.get(hub.hung.remote(group, incarnation, number, stack), timeout=_DELIVERY_S)

    watchdog = Watchdog(tell)
    try:  # by every worker: one that ended alone would leave the others waiting for it
        cache_root = Path(config["cache_root"]) if config.get("cache_root") else default_cache_root()
        patience = config.get("patience", 300.0)
        storage = Storage(config["storage"], patience=patience, full_patience=patience / 5)
        session = Session(CheckpointStore(storage), device, cache_root, tuple(config["monitor"]), watchdog.paused)
        precision = choose(config["precision"], device, config["width"])[1]
    except UserError as error:
        ray.get(hub.refuse.remote(group, str(error)))
        return
    if config.get("marker"):
        _see(storage, config["marker"], ray.util.get_node_ip_address())
    here = ray.get_runtime_context()
    ray.get(hub.enlist.remote(group, rank, here.current_actor, here.get_node_id()))
    _all_here(world)
    if rank == 0:
        facts = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "precision": precision,
            "threads": torch.get_num_threads(),
            "workers": world,
            "node": ray.util.get_node_ip_address(),
            "node_id": here.get_node_id(),
        }
        incarnation = ray.get(hub.hello.remote(group, facts))
    incarnation = _told_by_rank_0(incarnation, world)
    number = 1
    while True:
        command: dict[str, Any] | None = ray.get(hub.next.remote(group, incarnation, number, PULL_S))
        if command is None:
            continue
        if command["op"] == "exit":
            session.close()
            return
        busy = _Busy(watchdog, partial(hub.busy.remote, group, incarnation, number))
        try:
            with watchdog.over(number, command["deadline"]):
                answer = _execute(session, command, busy)
        except Exception as error:
            if world > 1 and is_peer_lost(error):
                raise peer_lost(error) from error
            answer = {"error": traceback.format_exc(limit=-12)}
        failed = answer.get("error") or answer.get("oom")
        if failed:
            memory.release()
        if rank == 0 or failed:
            ray.get(hub.answer.remote(group, incarnation, number, answer))
        if failed and world > 1:
            # The other workers stand in a collective call and would wait for this one: start the group anew.
            raise RuntimeError(failed)
        number += 1


class _Busy:
    """Called whenever a step of a long command is done: renews its deadline, here and at the hub, now and then."""

    def __init__(self, watchdog: Watchdog, tell: Callable[[], object]) -> None:
        self._watchdog, self._tell = watchdog, tell
        self._told = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._told > _BUSY_S:
            self._told = time.monotonic()
            self._watchdog.renew()
            self._tell()


def _execute(session: Any, command: dict[str, Any], busy: _Busy) -> dict[str, Any]:
    if command["op"] == "prepare":
        return session.prepare(command["flat"], busy)
    trial, flat, parts = command["trial"], command["flat"], command.get("parts", 1)
    if command["op"] == "epoch":
        return session.epoch(trial, flat, fresh=command["fresh"], parts=parts)
    if command["op"] == "evaluate":
        return session.evaluate(trial, flat, command["split"], parts=parts)
    raise ValueError(f"unknown command {command['op']!r}")


def _see(storage: Storage, marker: str, node: str) -> None:
    """Check that the storage is everybody's: a path is of some other disk on a node where nothing is mounted there."""
    give_up = time.monotonic() + _MARKER_S
    while storage.read(marker) is None:
        if time.monotonic() > give_up:
            raise RuntimeError(
                f"the node {node} does not see the checkpoints in {storage.root}: what the driver wrote there is not "
                "found. Mount that place on this node, too, or use an object store (s3://, gs://)"
            )
        time.sleep(1)


def _all_here(world: int) -> None:
    """Wait until every worker is here: rank 0 speaks for all of them."""
    if world > 1:
        import torch.distributed as dist

        dist.barrier()


def _told_by_rank_0(number: int, world: int) -> int:
    if world == 1:
        return number
    import torch.distributed as dist

    told = [number]
    dist.broadcast_object_list(told, src=0)
    return told[0]
