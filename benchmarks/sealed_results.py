"""What Ray Tune costs the driver when it can look into configurations and results, and when they are sealed.

    python benchmarks/sealed_results.py [--trials 600] [--rounds 3]

Both ways run the same made-up trials (five epochs, eight metrics, the whole configuration of a trial) through Ray Tune
with reused actors, with nothing else in the driver, each run in a process of its own, in turn. Open is what one would
write first: configuration and metrics as they are, resources by `tune.with_resources`. Sealed is `search.sealed`, with
resources named by the class. Compared are processor time for a result and memory for a trial. Equality: both callbacks
have heard the same numbers.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.search import Searcher

sys.path.insert(0, str(Path(__file__).parents[1]))

from search import environment
from search.control import Stays, no_snapshots
from search.scheduler import Asha, AshaScheduler
from search.sealed import order, report_of, reported, told

environment.quiet_libraries()

EPOCHS, SLOTS = 5, 4
WAYS = ("open", "sealed")
METRICS = ("accuracy", "loss", "f1_macro", "precision_macro", "recall_macro", "top3", "top5", "ece")
Heard = list[tuple[str, int, dict[str, float]]]


def _report(number: int, epoch: int) -> dict[str, Any]:
    metrics = {f"val/{name}": 1 / (1 + number + place + epoch) for place, name in enumerate(METRICS)}
    return {"epoch": epoch, "seconds": 1.0, **metrics, "done": epoch == EPOCHS}


class Open(tune.Trainable):
    """Reports what it would have trained."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config, self._epoch = new_config, 0
        return True

    def step(self) -> dict[str, Any]:
        self._epoch += 1
        return self._told(_report(self._number(), self._epoch))

    def _number(self) -> int:
        return int(self.config["flat"]["seed"])

    def _told(self, report: dict[str, Any]) -> dict[str, Any]:
        return report

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None


class Closed(Open):
    """The same, sealed."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        return _HEAD

    def _number(self) -> int:
        return int(told(self.config)["flat"]["seed"])

    def _told(self, report: dict[str, Any]) -> dict[str, Any]:
        return reported(report)


_HEAD = PlacementGroupFactory([{"node:__internal_head__": 0.0001}])


class Given(Searcher):
    """Hands out one configuration after the other."""

    def __init__(self, configurations: list[dict[str, Any]]) -> None:
        super().__init__()
        self._left = configurations[::-1]

    def suggest(self, trial_id: str) -> Any:
        return self._left.pop() if self._left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learned."""


class Ears(Stays, tune.Callback):
    """Takes down what is reported, and memory after a fifth of the trials and at the end."""

    def __init__(self, fifth: int) -> None:
        self.heard: Heard = []
        self._fifth, self._ended, self.early_mb = fifth, 0, 0.0

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        report = report_of(result) or result
        metrics = {name: report[name] for name in report if name.startswith("val/")}
        self.heard.append((trial.config["trial"], report["epoch"], metrics))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._ended += 1
        if self._ended == self._fifth:
            self.early_mb = _resident_mb()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(_run(options.way, options.trials)))
        return
    rounds = []
    for _ in range(options.rounds):
        pair = {way: _elsewhere(way, options.trials) for way in WAYS}
        assert pair["open"].pop("heard") == pair["sealed"].pop("heard"), "both must hear the same"
        rounds.append({**pair, "ratio": round(pair["open"]["ms_per_result"] / pair["sealed"]["ms_per_result"], 2)})
        print(json.dumps(rounds[-1]))
    result = {
        "trials": options.trials,
        "rounds": rounds,
        "equal": True,
        "ratio_of_processor_time": statistics.median(r["ratio"] for r in rounds),
        "ratio_of_memory": round(
            statistics.median(r["open"]["kb_per_trial"] / r["sealed"]["kb_per_trial"] for r in rounds), 2
        ),
        **{k: environment.versions()[k] for k in ("processor", "versions", "git_commit")},
    }
    print(json.dumps(result, indent=2))
    (Path(__file__).parent / "results" / "sealed_results.json").write_text(json.dumps(result, indent=2) + "\n")


def _elsewhere(way: str, trials: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--way", way, "--trials", str(trials)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def _run(way: str, trials: int) -> dict[str, Any]:
    import ray

    from benchmarks import sealed_results as here  # its classes are sent by name, as a search's proxy is
    from search.space import load_space

    space = load_space(Path(__file__).parent.parent / "spaces" / "moa.yaml")
    flat = space.trial_config(space.complete({})).to_flat()
    numbered = [(f"t{number:05d}", {**flat, "seed": number}) for number in range(trials)]
    sealed = way == "sealed"
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        os.environ |= {"RAY_TMPDIR": folder, "PYTHONPATH": str(Path(__file__).parents[1])}
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        ears = Ears(trials // 5)
        tuner = tune.Tuner(
            here.Closed if sealed else tune.with_resources(here.Open, _HEAD),
            tune_config=tune.TuneConfig(
                search_alg=Given(
                    [order(name, flat=f) if sealed else {"trial": name, "flat": f} for name, f in numbered]
                ),
                scheduler=AshaScheduler(Asha("max", (), 3), "val/accuracy"),  # Tune's own starts processes for ever
                num_samples=-1,
                max_concurrent_trials=SLOTS,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name="run", storage_path=f"{folder}/tune", callbacks=[ears], verbose=0),
        )
        began = time.process_time()
        with no_snapshots():
            tuner.fit()
        spent, late_mb = time.process_time() - began, _resident_mb()
        ray.shutdown()
    assert len(ears.heard) == trials * EPOCHS
    return {
        "ms_per_result": round(1000 * spent / len(ears.heard), 2),
        "kb_per_trial": round(1024 * (late_mb - ears.early_mb) / (trials - trials // 5), 1),
        "heard": sorted(ears.heard),
    }


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
