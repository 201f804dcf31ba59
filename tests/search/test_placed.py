"""Ray Train runs in a process that outlives them: what one leaves behind would stay until the search ends."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.search.own_ray import without_tokens
from tests.search.running import ROOT

_RUN = """
import sys, time
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from ray.train.v2.api.config import FailureConfig
from ray.util.placement_group import placement_group

class Unreachable(_TorchBackend):
    def on_start(self, *arguments):
        raise RuntimeError("the workers do not find each other")

class Config(TorchConfig):
    @property
    def backend_cls(self):
        return Unreachable

@ray.remote(num_cpus=0)
class Hub:
    def run(self, config, runs):
        from search.placed import PlacedTrainer
        ray.get(placement_group([{"CPU": 1}], name="one").ready())
        self.error = None  # kept, and with it all frames: nothing may hang on their being collected
        try:
            PlacedTrainer(
                lambda: time.sleep(600),
                torch_config=config,
                scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
                run_config=RunConfig(name="one", storage_path=runs,
                                     failure_config=FailureConfig(max_failures=0, controller_failure_limit=0)),
            ).fit()
        except Exception as error:
            self.error = error
        return repr(self.error)

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
from ray._private.state import actors
hub = Hub.remote()
said = ray.get(hub.run.remote(Config(backend="gloo"), sys.argv[1]))
limit = time.monotonic() + 20
def left():
    return sorted(a["ActorClassName"] for a in actors().values() if a["State"] != "DEAD")
while left() != ["Hub"] and time.monotonic() < limit:
    time.sleep(0.2)
print("> " + said)
print("> " + " ".join(left()))
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_run_whose_start_fails_late_leaves_no_actor(tmp_path: Path) -> None:
    # A path of pytest's is too long for Ray's sockets.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        told = subprocess.run(
            [sys.executable, "-c", _RUN, str(tmp_path / "runs")],
            cwd=ROOT,
            env={**without_tokens(tmp_path), "RAY_TMPDIR": folder, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    said = [line.removeprefix("> ") for line in told.stdout.splitlines() if line.startswith("> ")]
    assert len(said) == 2, told.stdout + told.stderr
    assert "do not find each other" in said[0], said
    assert said[1] == "Hub", "neither workers nor what they meet at"
