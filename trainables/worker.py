"""The function Ray Train runs in every worker of a group: pull a command, execute it, answer, for ever."""

from __future__ import annotations

import os
import threading
import time
import traceback
from pathlib import Path
from typing import Any

PULL_S = 20.0  # one long poll; short enough that a closed search is noticed


def serve(config: dict[str, Any]) -> None:
    """Serve commands until told to exit; a `UserError` before the first one is told to the hub and ends the search.

    `config`: hub (actor name), namespace, group (id), threads, storage (root of the checkpoints), cache_root,
    monitor (metric, mode), precision and width of the model (to say what is computed in, and why).
    """
    import ray
    import torch
    import torch.distributed as dist

    from petl.errors import UserError
    from trainables.checkpoints import CheckpointStore
    from trainables.precision import choose
    from trainables.session import Session

    torch.set_num_threads(config["threads"])
    rank = dist.get_rank() if dist.is_initialized() else 0
    world = dist.get_world_size() if dist.is_initialized() else 1
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    hub: Any = ray.get_actor(config["hub"], namespace=config["namespace"])
    cache_root = Path(config["cache_root"]) if config["cache_root"] else None
    try:  # by every worker: one that ended alone would leave the others waiting for it
        session = Session(CheckpointStore(config["storage"]), device, cache_root, tuple(config["monitor"]))
        precision = choose(config["precision"], device, config["width"])[1]
    except UserError as error:
        ray.get(hub.refuse.remote(config["group"], str(error)))
        return
    incarnation = 0
    if rank == 0:
        facts = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "precision": precision,
            "threads": torch.get_num_threads(),
            "workers": world,
            "node": ray.util.get_node_ip_address(),
        }
        incarnation = ray.get(hub.hello.remote(config["group"], facts))
    incarnation = _told_by_rank_0(incarnation, world)
    watchdog = _Watchdog()
    number = 1
    while True:
        command: dict[str, Any] | None = ray.get(hub.next.remote(config["group"], incarnation, number, PULL_S))
        if command is None:
            continue
        if command["op"] == "exit":
            session.close()
            return
        try:
            with watchdog.until(command["deadline"]):
                answer = _execute(session, command)
        except Exception:
            answer = {"error": traceback.format_exc(limit=-12)}
        if rank == 0 or "error" in answer:
            ray.get(hub.answer.remote(config["group"], incarnation, number, answer))
        if "error" in answer and world > 1:
            # The other workers stand in a collective call and would wait for this one: start the group anew.
            raise RuntimeError(answer["error"])
        number += 1


def _execute(session: Any, command: dict[str, Any]) -> dict[str, Any]:
    if command["op"] == "epoch":
        return session.epoch(command["trial"], command["flat"], fresh=command["fresh"])
    if command["op"] == "evaluate":
        return session.evaluate(command["trial"], command["flat"], command["split"])
    raise ValueError(f"unknown command {command['op']!r}")


def _told_by_rank_0(number: int, world: int) -> int:
    if world == 1:
        return number
    import torch.distributed as dist

    told = [number]
    dist.broadcast_object_list(told, src=0)
    return told[0]


class _Watchdog:
    """Ends the process when a command takes longer than its deadline; Ray Train then starts the group anew."""

    def __init__(self) -> None:
        self._limit: float | None = None
        threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

    def until(self, seconds: float) -> _Watchdog:
        self._seconds = seconds
        return self

    def __enter__(self) -> None:
        self._limit = time.monotonic() + self._seconds

    def __exit__(self, *_: object) -> None:
        self._limit = None

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            limit = self._limit
            if limit is not None and time.monotonic() > limit:
                os._exit(70)
