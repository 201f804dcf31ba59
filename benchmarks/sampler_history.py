"""What asking the sampler costs in a long search, and whether a cut history finds worse configurations.

    python benchmarks/sampler_history.py [--only latency] [--trials 2500] [--seeds 0 1 2] [--kept 250 500]

Latency: a search of 100 to 5,000 ended trials (a fifth complete, the others stopped early) is resumed, and asked 15
times; once with all of its history, once with what `search.history` leaves of it. Single and two objectives.

Quality: whole searches of one made-up problem with conditions (`spaces/moa.yaml`: every method has an optimum of its
own, reports are noisy, the worse two thirds of a rung are stopped), the same seeds with all of the history and with a
cut one. Equality: up to the first cut both propose the same configurations, bit for bit. What is compared is the true
value of the best complete trial and the mean true value of what was proposed in the last fifth.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from search import environment

environment.quiet_libraries()

ALL = 10**9
SHAPE_OF_TRIALS = (3, 3, 3, 3, 9)  # epochs of one in five


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["latency", "quality"], help="the other part of the result file stays")
    parser.add_argument("--trials", type=int, default=2500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kept", type=int, nargs="+", default=[250, 500])
    options = parser.parse_args()
    file = Path(__file__).parent / "results" / "sampler_history.json"
    result = json.loads(file.read_text()) if options.only and file.is_file() else {}
    about = {k: environment.versions()[k] for k in ("processor", "versions", "git_commit")}
    if options.only != "quality":
        asked = {name: _latencies(two) for name, two in (("one objective", False), ("two objectives", True))}
        result["latency"] = {"ask_milliseconds": asked, **about}
    if options.only != "latency":
        found = {**_quality(options.trials, options.seeds, options.kept), **about}
        result["quality"] = {**result.get("quality", {}), f"{options.trials} trials": found}
    print(json.dumps(result, indent=2))
    file.write_text(json.dumps(result, indent=2) + "\n")


def _space(two: bool = False, seed: int = 0) -> Any:
    from search.space import parse_space

    file = Path(__file__).parent.parent / "spaces" / "moa.yaml"
    text = file.read_text(encoding="utf-8")
    line = "  - {metric: val/accuracy, mode: max}\n"
    assert line in text
    text = text.replace(line, line + "  - {metric: trainable_params, mode: min}\n" if two else line)
    return parse_space(text, str(file), {"sampler.seed": seed, "epochs": 9})


def _sampler(space: Any, folder: str, most: int, journal: Any = None) -> Any:
    from petl.counts import BackboneShape
    from search.journal import Journal
    from search.records import SearchRecord
    from search.sampler import OptunaSampler
    from search.sizes import trainable_params

    if journal is None:
        directory = Path(tempfile.mkdtemp(dir=folder))
        journal = Journal.create(directory, SearchRecord("x", str(directory), list(space.objectives), {}))
    shape = BackboneShape()
    return OptunaSampler(
        space,
        journal,
        trainable_params=lambda params: trainable_params(space, params, shape, 50),
        wrap=lambda trial: {"trial": trial.id},
        more=lambda: True,
        on_start=lambda trial: None,
        most=most,
    )


def _latencies(two: bool) -> list[dict[str, float]]:
    from search.sampler import HISTORY

    space = replace(_space(two), enqueue=())  # what is tried first is not asked of the estimator
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for trials in (100, 500, 1000, 2500, 5000):
            row: dict[str, float] = {"trials": trials}
            for name, most in (("all", ALL), ("cut", HISTORY)):
                sampler = _sampler(space, folder, ALL)
                _fill(space, sampler, trials)
                began = time.process_time()
                sampler = _sampler(space, folder, most, sampler._journal)
                row[f"{name}: made in"] = round(1000 * (time.process_time() - began), 1)
                spent = []
                for _ in range(15):
                    began = time.process_time()
                    sampler.suggest("")
                    spent.append(time.process_time() - began)
                row[name] = round(1000 * statistics.median(spent), 1)
            rows.append(row)
            print(two, row, flush=True)
    return rows


def _fill(space: Any, sampler: Any, trials: int) -> None:
    """Random trials that have ended."""
    import optuna

    from search.records import EpochRecord, Status, TrialRecord

    draw = random.Random(0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(1, trials + 1):
        trial = TrialRecord(f"t{number:04d}", number, "", space.suggest(study.ask()), draw.randrange(10**6))
        length = draw.choice(SHAPE_OF_TRIALS)
        trial.epochs = [EpochRecord(e, {"val/accuracy": draw.random()}, 1.0) for e in range(1, length + 1)]
        trial.status = Status.COMPLETE if length == max(SHAPE_OF_TRIALS) else Status.STOPPED
        sampler._journal.record.trials.append(trial)


def _quality(trials: int, seeds: list[int], kept: list[int]) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        proposals: dict[int, list[str]] = {}
        for most in (ALL, *kept):
            name = "all" if most == ALL else str(most)
            outcome, proposals[most] = _search(trials, seed, most)
            found.setdefault(name, []).append(outcome)
            print(seed, name, outcome, flush=True)
            same = min(trials, most + most // 4)
            assert proposals[most][:same] == proposals[ALL][:same], "before the first cut nothing may differ"
    return {"equal before the first cut": True, "kept": found}


def _search(trials: int, seed: int, most: int) -> tuple[dict[str, float], list[str]]:
    """One whole search of the made-up problem, one trial at a time."""
    from search.records import Status
    from search.scheduler import Asha

    space, draw = _space(seed=seed), random.Random(seed)
    rule = Asha("max", (3,), 3)
    with tempfile.TemporaryDirectory() as folder:
        sampler = _sampler(space, folder, most)
        journal, began = sampler._journal, time.process_time()
        truths: list[tuple[float, bool]] = []
        for _ in range(trials):
            trial = journal.trial(sampler.suggest("")["trial"])
            truth = train(trial, rule, draw)
            sampler.trial_ended(trial)
            truths.append((truth, trial.status is Status.COMPLETE))
        spent = time.process_time() - began
        keys = [space.key(trial.params) for trial in journal.record.trials]
        journal.close()
    last = [truth for truth, _ in truths[-trials // 5 :]]
    outcome = {
        "best": round(max(truth for truth, complete in truths if complete), 4),
        "mean of the last fifth": round(statistics.mean(last), 4),
        "milliseconds a trial": round(1000 * spent / trials, 1),
    }
    return outcome, keys


def train(trial: Any, rule: Any, draw: random.Random) -> float:
    """Give a trial its epochs, with noise, and its end; returns the true value of its configuration."""
    from search.records import EpochRecord, Status

    truth, trial.status = true_value(trial.params), Status.COMPLETE
    for epoch in range(1, 10):
        value = truth * (1 - math.exp(-epoch / 3)) + draw.gauss(0, 0.01)
        trial.epochs.append(EpochRecord(epoch, {"val/accuracy": value}, 1.0))
        if rule.report(trial.id, epoch, value):
            trial.status = Status.STOPPED
            break
    return truth


def true_value(params: dict[str, Any]) -> float:
    """Accuracy of a configuration after many epochs, without noise: each method has an optimum of its own."""
    off = (math.log10(params["optim.lr"]) + 2.6) ** 2 / 2 + (math.log10(params["optim.weight_decay"]) + 1.4) ** 2 / 8
    method = params["method"]
    if method in ("soft_moa", "dense_moa"):
        off += (params["moa.experts"] - 9) ** 2 / 200 + 0.1 * (params["moa.location"] != "both")
        off += (math.log2(params["moa.reduction"]) - 4) ** 2 / 60 + 0.05 * (params["moa.expert"] != "convpass")
        off += (params.get("moa.slots", 1) - 2) ** 2 / 60
    elif method == "adapter":
        off += (math.log2(params["adapter.reduction"]) - 3) ** 2 / 30 + 0.1 * (params["adapter.location"] != "ffn")
    elif method == "lora":
        off += (math.log2(params["lora.reduction"]) - 5) ** 2 / 30 + (math.log2(params["lora.alpha"]) - 3) ** 2 / 60
    ceiling = {"soft_moa": 0.9, "dense_moa": 0.88, "adapter": 0.87, "lora": 0.86, "linear": 0.7}[method]
    return ceiling * math.exp(-off)


if __name__ == "__main__":
    main()
