"""A made-up search that looks like a real one: conditional parameters, early stops, a failure, a rejection."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from typing import Any

from search.records import EpochRecord, Incident, Objective, SearchRecord, Status, TrialRecord

LABELS = [
    *("chainsaw", "clock tick", "crackling fire", "crying baby", "dog"),
    *("helicopter", "rain", "rooster", "sea waves", "sneezing"),
]
_CEILING = {"linear": 0.69, "adapter": 0.77, "lora": 0.75, "dense_moa": 0.79, "soft_moa": 0.82}
_BACKBONE_PARAMS = 868_096


def fake_record(
    trials: int = 24, *, seed: int = 0, epochs: int = 27, hostile: str = "", directory: str = "runs/moa-demo"
) -> SearchRecord:
    """Build a finished search of `trials` trials; `hostile` is put wherever a stranger could put text."""
    draw = random.Random(seed)
    methods = list(_CEILING)
    made = [
        _trial(draw, n, methods[n] if n < len(methods) else draw.choice([*methods, "soft_moa"]), epochs)
        for n in range(trials)
    ]
    objective = Objective("val/accuracy", "max")
    _stop_the_worse_ones(made, objective)
    if trials > 9:
        made[9].status, made[9].epochs = Status.FAILED, []
        made[9].reason = "the loss became NaN at epoch 1, step 7 (optim.lr=0.0199)" + hostile
    if trials > 7:
        made[7].incidents = [
            Incident("node", "the node it trained on was lost (10.0.0.7)" + hostile, 1_790_000_100.0, 3),
            Incident("hung", "its worker group gave no answer for 600 s", 1_790_000_000.0, 0, "in forward" + hostile),
        ]
    if hostile and made:
        made[0].name += hostile
        made[0].params["adapter.activation"] = hostile

    record = SearchRecord(
        name="moa" + hostile,
        directory=directory + hostile,
        objectives=[objective, Objective("trainable_params", "min", bound_max=1_000_000)],
        trials=made,
        rejected=[
            {
                "params": {"method": "soft_moa", "moa.experts": 15, "moa.reduction": 2, "optim.lr": 0.003},
                "trainable_params": 1_990_490,
                "reason": "1,990,490 trainable parameters are over the bound of 1,000,000" + hostile,
            }
        ],
        seconds=241.7,
        info=_info(epochs, draw, hostile),
    )
    ranked = record.ranked()
    if ranked:
        winner = ranked[0]
        record.winner = winner.id
        record.test = {"test/accuracy": 0.758, "test/loss": 0.741, "test/f1_macro": 0.751}
        record.info["best_config"] = {**winner.params, "backbone": "embedded", "epochs": epochs, "seed": 0}
    return record


def _trial(draw: random.Random, number: int, method: str, epochs: int) -> TrialRecord:
    params: dict[str, Any] = {"method": method, "optim.lr": 10 ** draw.uniform(-4, -1.7)}
    params["optim.weight_decay"] = 10 ** draw.uniform(-5, -1)
    head = 128 * 10 + 10
    if method in ("soft_moa", "dense_moa"):
        params["moa.experts"] = draw.randint(2, 15)
        if method == "soft_moa":
            params["moa.slots"] = draw.randint(1, 4)
        params["moa.reduction"] = draw.choice([4, 8, 16, 32, 64])
        params["moa.location"] = draw.choice(["attention", "ffn", "both"])
        width = 128 // params["moa.reduction"]
        sites = 2 if params["moa.location"] == "both" else 1
        trained = head + 4 * sites * params["moa.experts"] * (257 * width + 128)
    elif method == "adapter":
        params["adapter.reduction"] = draw.choice([4, 8, 16, 32, 64])
        trained = head + 4 * (257 * (128 // params["adapter.reduction"]) + 128)
    elif method == "lora":
        params["lora.rank"] = draw.randint(2, 64)
        params["lora.alpha"] = draw.uniform(1, 64)
        trained = head + 4 * 2 * 2 * 128 * params["lora.rank"]
    else:
        trained = head
    off = abs(math.log10(params["optim.lr"]) + 2.4)
    top = _CEILING[method] - 0.16 * off**1.5 + 0.01 * math.log10(trained / 1300) + draw.gauss(0, 0.008)
    trial = TrialRecord(
        id=f"t{number:04d}",
        number=number,
        name=f"t{number:04d}-{method}",
        params=params,
        trainable_params=trained,
        enqueued=number < 5,
        status=Status.COMPLETE,
        started=1.8e9 + 9 * number,
        ended=1.8e9 + 9 * number + 25,
    )
    for epoch in range(1, epochs + 1):
        accuracy = 0.1 + (top - 0.1) * (1 - math.exp(-epoch / 4.5)) + draw.gauss(0, 0.009)
        metrics = {
            "train/loss": 2.3 * math.exp(-epoch / 8) + 0.3 * off + draw.gauss(0, 0.01),
            "val/accuracy": round(accuracy * 120) / 120,
            "val/loss": 2.3 * (1 - accuracy) + draw.gauss(0, 0.02),
        }
        trial.epochs.append(EpochRecord(epoch, metrics, 0.9 + draw.random() / 5))
    return trial


def _stop_the_worse_ones(trials: list[TrialRecord], objective: Objective) -> None:
    """What ASHA would do at epochs 3 and 9, seen from afterwards: the better third goes on."""
    alive = list(trials)
    for rung in (3, 9):
        alive.sort(key=lambda t: max(e.metrics[objective.metric] for e in t.epochs[:rung]), reverse=True)
        keep = max(1, math.ceil(len(alive) * 0.45))
        for trial in alive[keep:]:
            trial.status = Status.STOPPED
            trial.reason = f"below the best third at epoch {rung}"
            trial.epochs = trial.epochs[:rung]
        alive = alive[:keep]


def _info(epochs: int, draw: random.Random, hostile: str) -> dict[str, Any]:
    matrix = [[0] * 10 for _ in LABELS]
    for true in range(10):
        for _ in range(12):
            matrix[true][true if draw.random() < 0.76 else draw.randrange(10)] += 1
    return {
        "space": "spaces/moa.yaml" + hostile,
        "space_digest": "sha256:5a1c09d2e7f3",
        "backbone": "embedded",
        "backbone_params": _BACKBONE_PARAMS,
        "dataset": "embedded",
        "data": "/home/ada/data/sounds" + hostile,
        "data_digest": "sha256:91be2207aa40",
        "splits": {"train": 240, "val": 120, "test": 120},
        "classes": 10,
        "epochs": epochs,
        "seed": 0,
        "bad_files": [{"file": "audio/3-1-A.wav" + hostile, "reason": "no samples"}],
        "git_commit": "3f2a9c1",
        "versions": {"python": "3.11.7", "torch": "2.11.0", "ray": "2.60.0", "optuna": "5.0.0"},
        "hardware": "2 CPU cores, 24 GiB, no GPU",
        "confusion": {"labels": [*LABELS[:9], LABELS[9] + hostile], "matrix": matrix},
    }


def with_folds(record: SearchRecord, folds: int = 5, *, kind: str = "fold", seed: int = 1) -> SearchRecord:
    """The same search, every trial of which trained on several folds (or draws): mean, deviation, each one's value."""
    draw = random.Random(seed)
    titles = [f"{kind}{n}" for n in range(1, folds + 1)]

    def spread(metrics: dict[str, float]) -> dict[str, float]:
        found = {}
        for name, value in metrics.items():
            if name.startswith("train/"):
                found[name] = value
                continue
            own = [max(0.0, value + draw.gauss(0, 0.02)) for _ in titles]
            found[name], found[f"{name}_std"] = statistics.fmean(own), statistics.pstdev(own)
            found |= {f"{name}/{title}": one for title, one in zip(titles, own, strict=True)}
        return found

    for trial in record.trials:
        for epoch in trial.epochs:
            epoch.metrics = spread(epoch.metrics)
    record.test = spread(record.test)
    record.info |= {"repeats": titles, "protocol": "mean over " + "; ".join(f"{t} (test on {t})" for t in titles)}
    record.winner = record.ranked()[0].id
    return record


def fake_task(task: str, **given: Any) -> SearchRecord:
    """A search on another task than clip classification."""
    record = fake_record(**given)
    metrics, mode, facts = _TASKS[task]
    for trial in record.trials:
        for epoch in trial.epochs:
            accuracy = epoch.metrics.pop("val/accuracy")
            epoch.metrics |= {f"val/{name}": of(accuracy) for name, of in metrics.items()}
    first = next(iter(metrics))
    record.objectives[0] = Objective(f"val/{first}", mode)
    record.winner = record.ranked()[0].id
    record.test = {f"test/{name}": of(0.74) for name, of in metrics.items()} | {"test/loss": 0.741}
    del record.info["confusion"]
    record.info |= {"task": task, **facts}
    value = record.test[f"test/{first}"]
    record.info["intervals"] = {first: [0.9 * value, 1.1 * value]}
    return record


_TASKS: dict[str, tuple[dict[str, Callable[[float], float]], str, dict[str, Any]]] = {
    "speech_recognition": (
        {"wer": lambda a: 1.5 * (1 - a), "cer": lambda a: 0.5 * (1 - a)},
        "min",
        {
            "dataset": "librispeech",
            "target": "transcript",
            "classes": 31,
            "labels_are": "symbols",
            "dropped": [
                {
                    "file": f"84/121123/84-121123-{n:04d}.flac",
                    "reason": f"its target needs {90 + n} tokens, its 1.50 s give 74",
                }
                for n in range(5)
            ],
        },
    ),
    "verification": (
        {"eer": lambda a: 0.5 * (1 - a), "min_dcf": lambda a: 1.6 * (1 - a)},
        "min",
        {
            "dataset": "vctk",
            "target": "verification",
            "classes": 70,
            "labels_are": "speakers",
            "tables": ["trials"],
            "trials": {"speakers": 20, "clips": 120, "same": 600, "different": 600, "from": "drawn"},
        },
    ),
    "tagging": (
        {"map": lambda a: a - 0.2, "mauc": lambda a: 0.2 + a, "d_prime": lambda a: 3 * a},
        "max",
        {
            "dataset": "openmic",
            "target": "relevance",
            "classes": 10,
            "labels_are": "tags",
            "tables": ["per_class"],
            "per_class": [
                {
                    "label": label,
                    "positives": 40 + 7 * n,
                    "negatives": 80 - 7 * n,
                    "average_precision": None if n == 4 else 0.9 - 0.05 * n,
                    "auc": None if n == 4 else 0.97 - 0.03 * n,
                }
                for n, label in enumerate(LABELS)
            ],
        },
    ),
}
