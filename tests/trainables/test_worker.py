"""What a worker does before its first command, with a hub in this process, and under Ray Train."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from search.hub import Hub
from tests.search.own_ray import without_tokens
from tests.search.running import ROOT, end_processes_of
from trainables import worker
from trainables.storage import Storage
from trainables.worker import serve


class _Remote:
    """A hub's methods as those of an actor: `hub.method.remote(...)`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._hub, name)
        return type("Method", (), {"remote": staticmethod(lambda *given: asyncio.run(method(*given)))})


@pytest.mark.skipif(torch.cuda.is_available(), reason="float16 works here")
def test_what_a_worker_can_never_do_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: _Remote(hub))
    monkeypatch.setattr(ray, "get", lambda answer: answer)
    config = {
        "hub": "hub",
        "namespace": "n",
        "group": "g0",
        "threads": torch.get_num_threads(),
        "storage": str(tmp_path),
        "cache_root": "",
        "monitor": ("val/accuracy", "max"),
        "precision": "float16",
        "width": 32,
    }
    serve(config)  # returns: a worker that raised would be started again, for ever
    said = asyncio.run(hub.standing())["dead"]
    assert said.startswith("train.precision is 'float16', which needs a CUDA device")
    assert said.endswith("(--set train.precision=auto)")


def test_a_worker_that_does_not_see_the_checkpoints_does_not_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: _Remote(hub))
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    monkeypatch.setattr(worker, "_MARKER_S", 0.0)

    class Served(Exception):
        """What comes after the check was reached."""

    def served() -> None:
        raise Served

    monkeypatch.setattr(ray, "get_runtime_context", served)
    config = {
        "hub": "hub",
        "namespace": "n",
        "group": "g0",
        "threads": torch.get_num_threads(),
        "storage": str(tmp_path / "mounted elsewhere"),
        "marker": ".search-1f0c",
        "cache_root": str(tmp_path / "cache"),
        "monitor": ("val/accuracy", "max"),
        "precision": "float32",
        "width": 32,
    }
    with pytest.raises(RuntimeError, match=r"the node 10\.0\.0\.7 does not see .* in /.*/mounted elsewhere"):
        serve(config)
    assert asyncio.run(hub.standing())["dead"] == ""  # other nodes may see them
    Storage(str(tmp_path / "mounted elsewhere")).write(".search-1f0c", b"")
    with pytest.raises(Served):
        serve(config)


_ON_RAY = """
import json, sys, threading, time
from search import environment, ray_access
environment.quiet_libraries()
import ray
from search.hub import NAMESPACE, Hub
from search.calling import Caller
from trainables.worker import serve

flat, place = json.loads(sys.argv[1]), sys.argv[2]

class Ender(Hub):
    async def end(self, rank):
        import ray
        ray.kill(self._groups["g0"].workers[rank])
    async def who(self):
        group = self._groups["g0"]
        return [sorted(group.workers), sorted(group.nodes.values()), group.facts]

    async def asked(self):
        return [(c["op"], c["trial"]) for c in self._groups["g0"].commands]

def train():
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    config = {
        "hub": "hub", "namespace": NAMESPACE, "group": "g0", "threads": 1, "storage": place + "/kept",
        "cache_root": None, "monitor": ("val/accuracy", "max"), "precision": "float32", "width": 32,
    }
    TorchTrainer(
        serve,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(name="g0", storage_path=place + "/train", failure_config=FailureConfig(max_failures=4)),
    ).fit()

def ask(deadline=150.0, **command):
    lease = None
    while lease is None:
        lease = ray.get(hub.acquire.remote("test", 30.0))
    answer = ray.get(hub.call.remote(lease["group"], lease["incarnation"], "test", {**command, "deadline": deadline}))
    ray.get(hub.release.remote("test"))
    return {**answer, "incarnation": lease["incarnation"]}

epoch = {"op": "epoch", "trial": "t", "flat": flat, "parts": 1}
with ray_access.local_token():
    context = ray.init(num_cpus=3, namespace=NAMESPACE, include_dashboard=False, log_to_driver=False)
    hub = ray.remote(Ender).options(name="hub", num_cpus=0, max_concurrency=100).remote()
    group = threading.Thread(target=train, daemon=True)
    group.start()
    found = {"prepared": ask(op="prepare", flat=flat), "first": ask(**epoch, fresh=True)}
    found["who"] = ray.get(hub.who.remote())
    found["here"] = context.address_info["node_id"]
    found["hung"] = ask(0.001, **epoch, fresh=False)
    found["second"] = ask(**epoch, fresh=False)
    ray.get(hub.end.remote(1))
    found["ended"] = ask(op="prepare", flat=flat)
    while found["ended"]["incarnation"] == found["second"]["incarnation"] and "lost" not in found["ended"]:
        found["ended"] = ask(op="prepare", flat=flat)
    found["third"] = ask(**epoch, fresh=False)
    caller = Caller(hub)
    for trial in "uv":
        caller.begin(trial)
        caller.send({"op": "epoch", "flat": flat, "deadline": 150.0})
    caller.release()
    found["asked"] = ray.get(hub.asked.remote())[-4:]
    ray.get(hub.close.remote())
    group.join(30)
    found["left"] = group.is_alive()
    print("RESULT", json.dumps(found), flush=True)
    ray.shutdown()
"""


@pytest.mark.slow
def test_workers_of_ray_train_say_who_they_are_and_where_they_hung(tiny_ast: Path, tones: Path, tmp_path: Path) -> None:
    flat = {
        "backbone": str(tiny_ast),
        "dataset": "folder",
        "data": str(tones),
        "method": "lora",
        "lora.rank": 2,
        "epochs": 3,
        "train.precision": "float32",
    }
    folder = tempfile.mkdtemp(prefix="ray")
    settings = without_tokens(tmp_path, RAY_TMPDIR=folder, PYTHONPATH=str(ROOT), PETL_CACHE=str(tmp_path / "cache"))
    try:
        finished = subprocess.run(
            [sys.executable, "-c", _ON_RAY, json.dumps(flat), str(tmp_path)],
            env=settings,
            capture_output=True,
            text=True,
            timeout=280,
        )
    finally:
        end_processes_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    found = json.loads(next(line for line in finished.stdout.splitlines() if line.startswith("RESULT"))[7:])
    assert found["prepared"]["prepared"] and found["first"]["epoch"] == 1
    assert any((tmp_path / "cache" / "features").iterdir())  # of the worker's own node
    ranks, nodes, facts = found["who"]
    assert (ranks, nodes, facts["node_id"]) == ([0, 1], [found["here"]] * 2, found["here"])
    assert found["hung"]["kind"] == "hung" and "trainables/session.py" in found["hung"]["stack"]
    assert found["second"]["epoch"] == 2 and found["second"]["incarnation"] == found["first"]["incarnation"] + 1
    # The group may have been found dead before it was asked, or while it answered.
    assert found["ended"].get("kind") == "worker" or "prepared" in found["ended"]
    assert found["third"]["epoch"] == 3 and not found["left"]
    # Another trial may read other data: what takes hours then is no part of its first epoch's time.
    assert found["asked"] == [["prepare", "u"], ["epoch", "u"], ["prepare", "v"], ["epoch", "v"]]
