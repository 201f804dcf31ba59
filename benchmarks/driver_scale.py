"""What thousands of trials cost the driver: everything of a search but the training.

    python benchmarks/driver_scale.py [--trials 5000] [--slots 200] [--mlflow server]

Real: Ray Tune with reused actors, the sampler, ASHA, the journal (with its fsync), MLflow (a tracking server on SQLite,
or the file itself), the line view (into a file). Made up: the trainable, one process a slot as in a search, which
reports an accuracy that follows from its parameters for 2 to 9 epochs, at once or after `--step-seconds`.

The processor time of the driver process (all its threads, MLflow's delivery included) is read every fiftieth of the
trials, so that other programs do not count. Bars: under 10 ms for a result, and no more than 1.5 times as much in the
last fifth of the results as in the second one (the first one holds the start). Equality: at the end MLflow has every
epoch of the journal once, and no run that is still RUNNING.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

sys.path.insert(0, str(Path(__file__).parents[1]))

from search import environment
from search.control import Stays
from search.proxy import TrialProxy
from search.sealed import order, reported, told
from tests.search.mlflow_servers import free_port, server

environment.quiet_libraries()

POINTS = 50
Row = dict[str, float]


class NoOp(TrialProxy):
    """Reports what a trial would, without training."""

    def setup(self, config: dict[str, Any]) -> None:
        """Wait for the others, so that all figures but the first are of a search that is in full swing."""
        meeting = Path(told(config)["meeting"])
        (meeting / str(os.getpid())).touch()
        while len(list(meeting.iterdir())) < told(config)["slots"]:
            time.sleep(0.5)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        self._epoch = 0
        self._length = 2 + zlib.crc32(new_config["trial"].encode()) % 8
        return True

    def step(self) -> dict[str, Any]:
        self._epoch += 1
        time.sleep(told(self.config)["sleep"])
        flat, noise = told(self.config)["flat"], zlib.crc32(f"{self.config['trial']}-{self._epoch}".encode()) / 2**32
        reached = math.exp(-((math.log10(flat["optim.lr"]) + 2.6) ** 2) / 2) * (1 - math.exp(-self._epoch / 3))
        accuracy = 0.9 * reached + 0.02 * noise
        return reported(
            {
                "epoch": self._epoch,
                "seconds": 1.0,
                "done": self._epoch == self._length,
                **{f"train/{n}": 1 - accuracy for n in ("loss", "grad_norm", "lr")},
                **{f"val/{n}": accuracy for n in ("accuracy", "loss", "f1_macro", "precision_macro", "recall_macro")},
            }
        )

    def cleanup(self) -> None:
        """Nothing: there is no worker group to give back."""


class Meter(Stays, tune.Callback):
    """Reads clocks and memory of this process while results come in."""

    def __init__(self, every: int, delivered: Callable[[], int]) -> None:
        self.rows: list[Row] = []
        self.results = self.trials = 0
        self._every, self._delivered, self._began = every, delivered, time.monotonic()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        self.results += 1

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self.trials += 1
        if self.trials % self._every == 0:
            self.read()

    def read(self) -> None:
        self.rows.append(
            {
                "trials": self.trials,
                "results": self.results,
                "wall": time.monotonic() - self._began,
                "driver_cpu": time.process_time(),
                "main_thread_cpu": time.thread_time(),
                "rss_mb": _resident_mb(),
                "mlflow_epochs": self._delivered(),
            }
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--slots", type=int, default=200, help="one process of about 80 MB each")
    parser.add_argument("--step-seconds", type=float, default=0.0, help="of an epoch; the driver is idle meanwhile")
    parser.add_argument(
        "--mlflow",
        choices=["server", "sqlite", "none"],
        default="server",
        help="a tracking server, which clusters have; a file that the driver itself writes; nothing, to see the rest",
    )
    parser.add_argument("--output", default=str(Path(__file__).parent / "results" / "driver_scale.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        if options.mlflow == "server":
            with server(Path(folder), free_port()) as address:
                result = _run(options, Path(folder), address, Path(folder) / "server.db")
        else:
            result = _run(options, Path(folder), f"sqlite:///{folder}/mlflow.db", Path(folder) / "mlflow.db")
    Path(options.output).write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=2))
    assert result["driver_ms_per_result"] < 10 and result["growth"] <= 1.5, "a bar is missed"


def _run(options: argparse.Namespace, folder: Path, uri: str, database: Path) -> dict[str, Any]:
    import ray
    from rich.console import Console

    from benchmarks.driver_scale import NoOp  # sent by its name, as a search's proxy is
    from petl.counts import BackboneShape
    from search.control import Events, Live, Stop, Stopper, no_snapshots
    from search.journal import Journal
    from search.live import LineView
    from search.records import SearchRecord
    from search.sampler import OptunaSampler
    from search.scheduler import Asha, AshaScheduler
    from search.sizes import trainable_params
    from search.space import load_space
    from search.tracking import Tracker

    space_file = Path(__file__).parent.parent / "spaces" / "moa.yaml"
    space = load_space(space_file, {"epochs": 9, "budget.trials": options.trials})
    os.environ |= {"RAY_TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[1])}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    run, meeting = folder / "run", folder / "meeting"
    run.mkdir()
    meeting.mkdir()
    record = SearchRecord(space.name, str(run), list(space.objectives), {"epochs": 9})
    journal = Journal.create(run, record)
    view = LineView(Console(file=(folder / "view.txt").open("w", encoding="utf-8"), width=120))
    tracker = Tracker(uri, space.name, run, patience=3600.0, longest=3600.0)
    live = Live()
    listeners: list[Any] = [live, view]
    if options.mlflow != "none":
        tracker.start(record, tags={}, params=dict(space.base))
        listeners.insert(1, tracker)
    view.start(record, options.trials, None)
    stop = Stop(threading.Event(), None)
    first, scheduling = space.objectives[0], space.scheduler
    rule = Asha(first.mode, scheduling.rungs(9), scheduling.eta)
    scheduler = AshaScheduler(rule, first.metric)
    events = Events(journal, scheduler, stop, listeners, abandon=lambda trial: None, alive=lambda: True)
    shape = BackboneShape()
    asks: list[float] = []

    class Timed(OptunaSampler):
        def suggest(self, trial_id: str) -> Any:
            began = time.thread_time()
            try:
                return super().suggest(trial_id)
            finally:
                asks.append(1000 * (time.thread_time() - began))

    sampler = Timed(
        space,
        journal,
        trainable_params=lambda params: trainable_params(space, params, shape, 50),
        wrap=lambda trial: order(
            trial.id,
            flat=space.trial_config(trial.params).to_flat(),
            sleep=options.step_seconds,
            meeting=str(meeting),
            slots=min(options.slots, options.trials),
        ),
        more=lambda: len(record.trials) < options.trials,
        on_start=events.on_start,
        room=lambda: live.count < options.slots,
    )
    events.listeners.insert(0, sampler)
    meter = Meter(max(1, options.trials // POINTS), lambda: _epochs_in(database))
    began, before = time.monotonic(), _threads()
    meter.read()
    tuner = tune.Tuner(
        NoOp,
        tune_config=tune.TuneConfig(
            search_alg=sampler,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=options.slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(folder / "tune"),
            stop=Stopper(stop),
            callbacks=[events, meter],
            failure_config=tune.FailureConfig(max_failures=2),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            verbose=0,
        ),
    )
    with no_snapshots():
        tuner.fit()
    wall = time.monotonic() - began
    meter.read()
    at_end, threads = _epochs_in(database), _threads()
    began = time.monotonic()
    if options.mlflow != "none":
        tracker.finish(record)
        tracker.close()
    drained = time.monotonic() - began
    meter.read()
    epochs = sum(len(trial.epochs) for trial in record.trials)
    if options.mlflow != "none":
        _check(database, record)
    journal.close()
    ray.shutdown()
    return {
        **_summary(meter.rows, asks, options),
        "ms_per_result_by_thread_while_the_search_ran": _shares(before, threads, meter.results),
        "trials": len(record.trials),
        "results": meter.results,
        "wall_seconds": round(wall, 1),
        "mlflow": {
            "epochs_written_while_the_search_ran": at_end,
            "epochs_in_all": epochs,
            "seconds_to_deliver_the_rest": round(drained, 1),
        },
        "journal_mb": round((run / "journal.jsonl").stat().st_size / 1e6, 1),
        "rows": [{key: round(value, 3) for key, value in row.items()} for row in meter.rows],
        **{k: environment.versions()[k] for k in ("processor", "versions", "git_commit")},
    }


def _summary(rows: list[Row], asks: list[float], options: argparse.Namespace) -> dict[str, Any]:
    """Figures over the whole run and by fifths of its results; the last row is after MLflow has everything."""
    running, total = rows[:-1], rows[-1]["results"]
    fifths = []
    for i in range(5):
        part = [row for row in running if i * total / 5 <= row["results"] <= (i + 1) * total / 5]
        results = part[-1]["results"] - part[0]["results"]
        figures = {
            name: round(1000 * (part[-1][key] - part[0][key]) / results, 2)
            for name, key in (("driver_ms", "driver_cpu"), ("main_thread_ms", "main_thread_cpu"), ("wall_ms", "wall"))
        }
        asked = asks[i * len(asks) // 5 : (i + 1) * len(asks) // 5]
        fifths.append({**figures, "rss_mb": round(part[-1]["rss_mb"], 1), "ask_ms": round(statistics.median(asked), 1)})
    low = next(row for row in running if row["results"] >= total / 5)
    grown = 1024 * (running[-1]["rss_mb"] - low["rss_mb"]) / max(1.0, running[-1]["trials"] - low["trials"])
    percentiles = statistics.quantiles(asks, n=100)
    return {
        "slots": options.slots,
        "mlflow_is": options.mlflow,
        "step_seconds": options.step_seconds,
        "driver_ms_per_result": round(1000 * (rows[-1]["driver_cpu"] - rows[0]["driver_cpu"]) / total, 2),
        "main_thread_ms_per_result": round(
            1000 * (running[-1]["main_thread_cpu"] - rows[0]["main_thread_cpu"]) / total, 2
        ),
        "growth": round(fifths[4]["driver_ms"] / fifths[1]["driver_ms"], 2),
        "memory_kb_per_trial": round(grown, 1),
        "ask_ms": {"median": round(percentiles[49], 1), "95 %": round(percentiles[94], 1), "most": round(max(asks), 1)},
        "by_fifth_of_the_results": fifths,
    }


def _threads() -> dict[str, float]:
    """Milliseconds of processor time of this process by thread, Ray's own by the names that it gives them."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    spent: dict[str, float] = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            comm, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
            user, system = (int(field) for field in rest.split()[11:13])
            name = names.get(int(task.name), comm)
            spent[name] = spent.get(name, 0.0) + 1000 * (user + system) / os.sysconf("SC_CLK_TCK")
    return spent


def _shares(before: dict[str, float], after: dict[str, float], results: int) -> dict[str, float]:
    """The dearest ten of the threads that live at the end."""
    spent = {name: (after[name] - before.get(name, 0.0)) / results for name in after}
    return {name: round(spent[name], 2) for name in sorted(spent, key=lambda name: -spent[name])[:10]}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _epochs_in(database: Path) -> int:
    """Epochs that MLflow has, read past it."""
    if not database.is_file():
        return 0
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        return int(connection.execute("select count(*) from metrics where key = 'seconds'").fetchone()[0])


def _check(database: Path, record: Any) -> None:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
        query = (
            "select tags.value, metrics.step, count(*) from metrics join tags using (run_uuid) "
            "where metrics.key = 'seconds' and tags.key = 'petl.trial_id' group by 1, 2"
        )
        found = {(trial, step): count for trial, step, count in connection.execute(query)}
        running = connection.execute("select count(*) from runs where status = 'RUNNING'").fetchone()[0]
    wanted = {(trial.id, epoch.epoch): 1 for trial in record.trials for epoch in trial.epochs}
    assert found == wanted, f"MLflow has {len(found)} epochs, the journal {len(wanted)}"
    assert running == 0, f"{running} runs are still RUNNING"


if __name__ == "__main__":
    main()
