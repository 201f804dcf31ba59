"""The training loop: plain PyTorch, one report per epoch. It knows neither Ray nor MLflow.

    for report in train(config, model, data):
        print(report.epoch, report.metrics)

It runs alone or as one of several processes of an initialised `torch.distributed` group; the numbers are then
those of the whole group. Training continues exactly from a checkpoint: whatever is random in an epoch is drawn
from (seed, epoch), never from where a generator happened to stand.

Given the data of several repeats (folds, few-shot draws), it trains one set of weights for each, an epoch of every one
after the other, and reports their mean: a repeat is judged at the same number of epochs as the others, and a scheduler
that stops the trial saves the epochs of all of them. The best epoch is the one that is best in the mean.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from petl.model import AudioModel
from trainables.checkpoints import Checkpoint, under
from trainables.config import TrialConfig
from trainables.data import AudioData
from trainables.epochs import Diverged, Epoch, epochs, in_parallel
from trainables.metrics import over_folds
from trainables.stopping import EarlyStopping

__all__ = ["Diverged", "Monitor", "Report", "train"]

Monitor = tuple[str, str]
"""The metric that chooses the best epoch, and "max" or "min"."""


@dataclass
class Report:
    """One finished epoch. `checkpoint` is what to continue from; `is_best` marks the best epoch so far.

    `judged` holds the weights that were judged, under `model/` like those of the checkpoint, from which they differ
    where weights are averaged. `over`: no epoch follows. The optimiser's tensors in `checkpoint` are its own: write or
    copy them before asking for the next epoch.
    """

    epoch: int
    metrics: dict[str, float]
    seconds: float
    is_best: bool
    over: bool
    checkpoint: Checkpoint = field(repr=False)
    judged: dict[str, Tensor] = field(repr=False)


def train(
    config: TrialConfig,
    model: AudioModel,
    data: AudioData | Sequence[AudioData],
    *,
    resume: Checkpoint | None = None,
    monitor: Monitor = ("val/accuracy", "max"),
    parts: int = 1,
) -> Generator[Report, None, None]:
    """Train `model` in place on the train split, judge every epoch on the validation split.

    Of several repeats the tensors of a checkpoint are under their names (`fold2/model/...`), and the model is left
    with the weights of the last one. `parts` cuts what is computed at a time, for want of memory.

    Raises:
        Diverged: when the training loss or a trained parameter is not finite after an epoch.
        OutOfMemory: when memory runs out (see `trainables.memory`).
    """
    repeats = [data] if isinstance(data, AudioData) else list(data)
    prefixes = [f"{one.title}/" if one.title else "" for one in repeats]
    stopping = EarlyStopping(monitor[1], config.train.patience)
    first = 1
    if resume is not None:
        stopping.restore(resume.meta)
        first = int(resume.meta["epoch"]) + 1
        if resume.meta.get("over"):
            return
    parallel = in_parallel(model)
    states = [model.adapter_state() for _ in repeats] if len(repeats) > 1 else []
    running = []
    for one, prefix in zip(repeats, prefixes, strict=True):
        before = None
        if resume is not None:
            tensors = {n.removeprefix(prefix): t for n, t in resume.tensors.items() if n.startswith(prefix)}
            before = (tensors, resume.meta.get("repeats", {}).get(prefix, {}))
        running.append(epochs(config, model, one, parallel, first, before, parts))
    for number in range(first, config.epochs + 1):
        started = time.perf_counter()
        done: list[Epoch] = []
        for place, (training, one) in enumerate(zip(running, repeats, strict=True)):
            model.front_end = one.front_end
            if states and not (resume is not None and number == first):  # a resumed one brings its weights
                model.load_adapter_state(states[place])
            done.append(next(training))
            if states:
                states[place] = under(done[-1].tensors, "model")
        metrics = mean_of([epoch.metrics for epoch in done], [one.title for one in repeats])
        is_best = stopping.update(metrics[monitor[0]])
        over = number == config.epochs or stopping.stop
        seconds = time.perf_counter() - started
        checkpoint = Checkpoint(
            {prefix + n: t for prefix, epoch in zip(prefixes, done, strict=True) for n, t in epoch.tensors.items()},
            {
                "epoch": number,
                **stopping.state(),
                "over": over,
                "metrics": metrics,
                "seconds": seconds,
                "monitor": list(monitor),
                "repeats": {prefix: epoch.meta for prefix, epoch in zip(prefixes, done, strict=True)},
            },
        )
        judged = {
            f"{prefix}model/{n}": t
            for prefix, epoch in zip(prefixes, done, strict=True)
            for n, t in epoch.judged.items()
        }
        yield Report(number, metrics, seconds, is_best, over, checkpoint, judged)
        if over:
            break
    for training in running:
        training.close()


def mean_of(found: list[dict[str, float]], titles: list[str]) -> dict[str, float]:
    """The metrics of one training; of several their mean, `<name>_std`, and each one's as `<name>/<title>`."""
    if len(found) == 1:
        return found[0]
    judged = {
        f"{name}/{t}": v
        for t, one in zip(titles, found, strict=True)
        for name, v in one.items()
        if not name.startswith("train/")
    }
    mean = over_folds(found)
    return {**{n: v for n, v in mean.items() if not (n.startswith("train/") and n.endswith("_std"))}, **judged}
