"""What a slot of Ray Tune costs to start is paid once: a process on the head, seconds of processor time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.search.own_ray import without_tokens
from tests.search.running import ROOT

_RUN = """
import json, os, sys, time
from pathlib import Path
import ray
from ray import tune
from search import environment
environment.quiet_libraries()
from ray.tune.execution.tune_controller import TuneController
from search.control import no_snapshots
from search.scheduler import Asha, AshaScheduler
from search.sealed import reported

FOLDER = Path(sys.argv[1])

class Trial(tune.Trainable):
    def setup(self, config):
        started = FOLDER / "started"
        with started.open("a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(1.5 * len(started.read_text().splitlines()))  # the others have trials that end meanwhile
        self.reset_config(config)
    def reset_config(self, config):
        self.config, self.epoch = config, 0
        return True
    def step(self):
        self.epoch += 1
        time.sleep(0.1)
        if self.config["trial"] == "t0020" and not (FOLDER / "died").exists():
            (FOLDER / "died").touch()
            os._exit(1)
        return reported({"epoch": self.epoch, "val/accuracy": 0.5, "done": self.epoch == 3})
    def save_checkpoint(self, folder):
        return {}
    def load_checkpoint(self, checkpoint):
        pass

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
tuner = tune.Tuner(
    tune.with_resources(Trial, tune.PlacementGroupFactory([{"CPU": 0.01}])),
    param_space={"trial": tune.grid_search([f"t{number:04d}" for number in range(40)])},
    tune_config=tune.TuneConfig(
        scheduler=AshaScheduler(Asha("max", (), 3), "val/accuracy"),
        max_concurrent_trials=4, reuse_actors=True,
    ),
    run_config=tune.RunConfig(storage_path=str(FOLDER / "tune"), verbose=0,
                                 failure_config=tune.FailureConfig(max_failures=2)),
)
mark = TuneController._mark_trial_to_checkpoint
with no_snapshots():
    results = tuner.fit()
assert TuneController._mark_trial_to_checkpoint is mark
(snapshot,) = (FOLDER / "tune").rglob("experiment_state*.json")
assert json.loads(snapshot.read_text())["trial_data"] == []
assert not results.errors
print(">", len(results), len((FOLDER / "started").read_text().splitlines()))
ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_process_is_started_for_each_slot_and_for_each_that_died(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="ray") as short:
        run = subprocess.run(
            [sys.executable, "-c", _RUN, str(tmp_path)],
            cwd=ROOT,
            env={**without_tokens(tmp_path), "RAY_TMPDIR": short, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
    assert run.returncode == 0, run.stderr[-2000:]
    said = [line for line in run.stdout.splitlines() if line.startswith("> ")]
    assert said == ["> 40 5"], "40 trials on 4 processes and one in place of the one that died"
