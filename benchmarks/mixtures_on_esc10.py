"""Do mixtures of adapters beat the linear probe on real recordings? Same data, same epochs, over ESC-10's folds.

    uv run python benchmarks/mixtures_on_esc10.py --data PATH [--folds 5] [--epochs 15]

Every method trains with its published learning rate (mixtures and adapters 5e-3, probe 1e-3), the probe also with
ten times its rate, the mixture also with the published SpecAugment (24 mel bins, 80 frames). Validation recordings
choose the epoch, the held-out fold is read once per run. One thread, embedded backbone, seed 0.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch

from search.environment import processor
from trainables.checkpoints import Checkpoint
from trainables.config import TrialConfig
from trainables.evaluation import answers_on
from trainables.loop import train
from trainables.session import Session

RUNS = {
    "linear, lr 1e-3": {"method": "linear", "optim.lr": 1e-3},
    "linear, lr 1e-2": {"method": "linear", "optim.lr": 1e-2},
    "dense_moa 7 x RR128": {"method": "dense_moa"},
    "soft_moa 7 x 1 x RR128": {"method": "soft_moa"},
    "dense_moa 7 x RR128, SpecAugment": {"method": "dense_moa", "aug.freq_mask": 24, "aug.time_mask": 80},
    "soft_moa 7 x 1 x RR128, SpecAugment": {"method": "soft_moa", "aug.freq_mask": 24, "aug.time_mask": 80},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/data/esc10")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    session = Session(None, torch.device("cpu"), None, ("val/accuracy", "max"))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    for fold in range(1, asked.folds + 1):
        for name, own in RUNS.items():
            flat = {"dataset": "esc50", "data": asked.data, "data.fold": fold, "epochs": asked.epochs, **own}
            config = TrialConfig.from_flat(flat)
            data = session.data(config)[0]
            model = session.build(config, data)
            best: Checkpoint | None = None
            for report in train(config, model, data):
                best = report.checkpoint if report.is_best else best
            assert best is not None
            model.load_adapter_state(best.part("model"))
            test = answers_on(config, model, data, "test").metrics()
            model.adapted.detach()
            found[name].append({"val": best.meta["best"], "test": test["accuracy"]})
            print(f"fold {fold}  {name:<36} val {best.meta['best']:.3f}  test {test['accuracy']:.3f}", flush=True)
    means = {
        name: {part: statistics.mean(row[part] for row in rows) for part in ("val", "test")}
        for name, rows in found.items()
    }
    for name, mean in means.items():
        print(f"mean    {name:<36} val {mean['val']:.3f}  test {mean['test']:.3f}")
    result = {"folds": found, "means": means, "epochs": asked.epochs, "processor": processor()}
    target = Path(__file__).parent / "results" / "mixtures_on_esc10.json"
    target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
