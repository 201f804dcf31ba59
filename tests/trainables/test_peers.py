"""A worker that dies takes nobody's trial with it: those that are left raise, and answer nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from tests.search.running import ROOT
from trainables.peers import PeerLost, is_peer_lost, peer_lost

# A worker with a hub of its own in its process: `serve` and everything below it are the real thing, gloo too.
_WORKER = """
import asyncio, json, os, signal, sys
import ray, torch.distributed as dist
from search.hub import Hub
from trainables import worker
from trainables.session import Session

rank, port, place, how, flat = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], json.loads(sys.argv[5])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)

class Told(Hub):
    def __init__(self):
        super().__init__()
        self.posted, self.answers = [], []
    async def next(self, group, incarnation, number, timeout):
        command = {"op": "epoch", "trial": "t", "flat": flat, "fresh": number == 1, "parts": 1, "deadline": 300.0}
        return command if number < 4 else {"op": "exit"}
    async def answer(self, group, incarnation, number, answer):
        self.answers.append([number, sorted(answer)])
        print("ANSWER", json.dumps([number, "error" in answer]), flush=True)

class Remote:
    def __init__(self, hub):
        self._hub = hub
    def __getattr__(self, name):
        method = getattr(self._hub, name)
        return type("Method", (), {"remote": staticmethod(lambda *given: asyncio.run(method(*given)))})

class Here:
    current_actor = None
    def get_node_id(self):
        return "here"

hub = Told()
ray.get_actor = lambda name, namespace: Remote(hub)
ray.get = lambda answer, timeout=None: answer
ray.get_runtime_context = Here
ray.util.get_node_ip_address = lambda: "127.0.0.1"

if rank == 1:  # in the middle of the second epoch
    from trainables import loop
    gather, counted = dist.all_gather_object, [0]
    def counting(*given, **named):
        counted[0] += epochs[0] == 2
        if counted[0] == 2:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("a mistake of its own")
        return gather(*given, **named)
    epochs, epoch = [0], Session.epoch
    def counted_epoch(*given, **named):
        epochs[0] += 1
        return epoch(*given, **named)
    dist.all_gather_object, Session.epoch = counting, counted_epoch

worker.serve({
    "hub": "hub", "namespace": "n", "group": "g0", "threads": 1, "storage": place, "cache_root": place + "/cache",
    "monitor": ("val/accuracy", "max"), "precision": "float32", "width": 32,
})
"""


def _port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _two(tiny_ast: Path, tones: Path, place: Path, how: str) -> list[tuple[int, list[Any], str]]:
    """Exit status, answers and errors of two workers."""
    flat = {
        "backbone": str(tiny_ast),
        "dataset": "folder",
        "data": str(tones),
        "method": "lora",
        "lora.rank": 2,
        "epochs": 3,
        "train.precision": "float32",
    }
    port = str(_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(rank), port, str(place), how, json.dumps(flat)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    found = []
    try:
        for process in started:
            out, errors = process.communicate(timeout=100)
            answers = [json.loads(line[7:]) for line in out.splitlines() if line.startswith("ANSWER ")]
            found.append((process.returncode, answers, errors))
    finally:
        for process in started:
            process.kill()
    return found


@pytest.mark.slow
def test_a_killed_worker_is_not_the_trials_fault(tiny_ast: Path, tones: Path, tmp_path: Path) -> None:
    (status, answers, errors), (killed, none, _) = _two(tiny_ast, tones, tmp_path, "kill")
    assert killed == -signal.SIGKILL and none == [], errors
    assert status == 1 and answers == [[1, False]], errors  # the first epoch's, and nothing of the second
    last = errors.strip().splitlines()[-1]
    assert "trainables.peers.PeerLost: a worker of this group, or the node it ran on, was lost (" in last, errors


@pytest.mark.slow
def test_a_mistake_of_one_worker_is_answered_once(tiny_ast: Path, tones: Path, tmp_path: Path) -> None:
    (status, answers, errors), (other, theirs, said) = _two(tiny_ast, tones, tmp_path, "raise")
    assert (status, other) == (1, 1)
    assert answers == [[1, False]] and theirs == [[2, True]], errors
    assert "a mistake of its own" in said and "PeerLost" in errors


_GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] "


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError(_GLOO + "Read error [127.0.0.1]:412: Connection reset by peer"), True),
        (RuntimeError(_GLOO + "Connection closed by peer [127.0.0.1]:19860"), True),
        (RuntimeError(_GLOO.replace("pair", "unbound_buffer") + "Timed out waiting 1800000ms for recv"), True),
        (RuntimeError(_GLOO + "writev [127.0.0.1]:30: Broken pipe"), True),
        (dist.DistBackendError("NCCL error: remote process exited or there was a network error"), True),
        (dist.DistNetworkError("The client socket has failed to connect"), True),
        (peer_lost(RuntimeError("x")), True),
        (RuntimeError("[enforce fail at " + _GLOO + "] op.preamble.length <= op.nbytes. 50 vs 8, closed"), False),
        (RuntimeError("Connection closed by peer"), False),
        (ConnectionResetError("Connection reset by peer"), False),
        (ValueError(_GLOO + "Connection closed by peer"), False),
    ],
)
def test_what_says_that_a_worker_is_lost(error: BaseException, lost: bool) -> None:
    assert is_peer_lost(error) is lost
    outer = ValueError("while it was told")
    outer.__cause__ = error
    assert is_peer_lost(outer) is lost
    assert isinstance(peer_lost(error), PeerLost) and len(str(peer_lost(error)).splitlines()) == 1
