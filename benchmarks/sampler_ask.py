"""What an ask costs with `search.tpe` and with Optuna's own TPE, and whether either finds better configurations.

    python benchmarks/sampler_ask.py [--only time] [--trials 600] [--seeds 0 1 2 3 4 5]

Time: 250 trials have ended and 0, 50 or 150 are running; both samplers are asked in turn, and the median of the
processor time is taken. Equality: what ours draws for a group of parameters is what Optuna's own draws from the same
random state, number by number.

Quality: whole searches of the made-up problem of `sampler_history.py`, one trial at a time and twenty at once. Which
groups are drawn differs, so the same seeds do not propose the same. What is compared is the true value of the best
complete trial and the mean true value of what was proposed in the last fifth.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from search import environment

environment.quiet_libraries()

ASKS = 40
CASES = ((0, False), (50, False), (150, False), (150, True))
"""Running trials; whether there are two objectives."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["time", "quality"], help="the other part of the result file stays")
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    options = parser.parse_args()
    file = Path(__file__).parent / "results" / "sampler_ask.json"
    result = json.loads(file.read_text()) if options.only and file.is_file() else {}
    about = {k: environment.versions()[k] for k in ("processor", "versions", "git_commit")}
    if options.only != "quality":
        result["time"] = {"draws held against Optuna's": _hold(150), "asks": [_time(*case) for case in CASES], **about}
    if options.only != "time":
        result["quality"] = {"trials": options.trials, **_quality(options.trials, options.seeds), **about}
    print(json.dumps(result, indent=2))
    file.write_text(json.dumps(result, indent=2) + "\n")


def _own(startup: int, seed: int) -> Any:
    import optuna

    return optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, n_startup_trials=startup, seed=seed
    )


@contextmanager
def _sampling(make: Any) -> Iterator[None]:
    """Studies get their sampler from `make`."""
    import search.tpe

    ours = search.tpe.ThriftyTPE
    search.tpe.ThriftyTPE = make
    try:
        yield
    finally:
        search.tpe.ThriftyTPE = ours  # type: ignore[misc]


def _filled(make: Any, folder: str, running: int, two: bool = False) -> Any:
    from benchmarks.sampler_history import _fill, _sampler, _space

    space = replace(_space(two), enqueue=())  # what is tried first is not asked of the estimator
    with _sampling(make):
        sampler = _sampler(space, folder, 10**9)
        _fill(space, sampler, 250)
        sampler = _sampler(space, folder, 10**9, sampler._journal)
    for _ in range(running):
        sampler.suggest("")
    return sampler


def _hold(running: int) -> int:
    """Hold draws of ours against those of Optuna's own; returns how many."""
    from search.tpe import ThriftyTPE

    held = 0

    class Held(ThriftyTPE):
        def _sample(self, study: Any, trial: Any, search_space: Any) -> Any:
            nonlocal held
            own = _own(0, 0)
            own._rng.rng.set_state(self._rng.rng.get_state())
            expected, found = own._sample(study, trial, search_space), super()._sample(study, trial, search_space)
            assert found == expected, f"{found} instead of {expected}"
            held += 1
            return found

    with tempfile.TemporaryDirectory() as folder:
        _filled(Held, folder, running)
    return held


def _time(running: int, two: bool) -> dict[str, Any]:
    from optuna.trial import TrialState

    from search.tpe import ThriftyTPE

    spent: dict[str, list[float]] = {"Optuna's own": [], "ours": []}
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        samplers = {n: _filled(make, folder, running, two) for n, make in zip(spent, (_own, ThriftyTPE), strict=True)}
        waiting = {name: list(sampler._asked.values()) for name, sampler in samplers.items()}
        for _ in range(ASKS):
            value = draw.random()
            for name, sampler in samplers.items():
                began = time.thread_time()
                waiting[name].append(sampler._ask()[0])
                spent[name].append(1000 * (time.thread_time() - began))
                ended = waiting[name].pop(0)  # as in a search: a trial has ended before the next one is asked for
                if not two:
                    ended.report(value, 3)
                sampler._study.tell(ended, state=TrialState.PRUNED)
    medians = {name: statistics.median(times) for name, times in spent.items()}
    ratio = medians["Optuna's own"] / medians["ours"]
    row = {"running": running, "objectives": 1 + two, **{f"ms, {k}": round(v, 1) for k, v in medians.items()}}
    row["ratio"] = round(ratio, 2)
    print(row, flush=True)
    return row


def _quality(trials: int, seeds: list[int]) -> dict[str, Any]:
    from search.tpe import ThriftyTPE

    found: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        for at_once in (1, 20):
            for name, make in (("Optuna's own", _own), ("ours", ThriftyTPE)):
                with _sampling(make):
                    outcome = _search(trials, seed, at_once)
                found.setdefault(f"{name}, {at_once} at once", []).append(outcome)
                print(seed, name, at_once, outcome, flush=True)
    means = {
        name: {key: round(statistics.mean(o[key] for o in outcomes), 4) for key in outcomes[0]}
        for name, outcomes in found.items()
    }
    return {"means": means, "by seed": found}


def _search(trials: int, seed: int, at_once: int) -> dict[str, float]:
    """One whole search of the made-up problem; the trials that run end in random order."""
    from benchmarks.sampler_history import _sampler, _space, train, true_value
    from search.records import Status, TrialRecord
    from search.sampler import HISTORY
    from search.scheduler import Asha

    space, draw, rule = _space(seed=seed), random.Random(seed), Asha("max", (3,), 3)
    truths: list[float] = []
    complete: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        sampler = _sampler(space, folder, HISTORY)
        journal = sampler._journal
        running: list[TrialRecord] = []
        for asked in range(trials + at_once - 1):
            if asked < trials:
                running.append(journal.trial(sampler.suggest("")["trial"]))
                truths.append(true_value(running[-1].params))
            if len(running) < at_once and asked < trials - 1:
                continue
            trial = running.pop(draw.randrange(len(running)))
            truth = train(trial, rule, draw)
            sampler.trial_ended(trial)
            if trial.status is Status.COMPLETE:
                complete.append(truth)
        assert not running and len(journal.record.trials) == trials
        journal.close()
    return {
        "best": round(max(complete), 4),
        "mean of the last fifth": round(statistics.mean(truths[-(trials // 5) :]), 4),
    }


if __name__ == "__main__":
    main()
