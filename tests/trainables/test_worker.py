"""What a worker does before its first command, with a hub in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from search.hub import Hub
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
    said = asyncio.run(hub.dead())
    assert said.startswith("train.precision is 'float16', which needs a CUDA device")
    assert said.endswith("(--set train.precision=auto)")
