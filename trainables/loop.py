"""The training loop: plain PyTorch, one report per epoch. It knows neither Ray nor MLflow.

    for report in train(config, model, data):
        print(report.epoch, report.metrics)

It runs alone or as one of several processes of an initialised `torch.distributed` group; the numbers are then
those of the whole group. Training continues exactly from a checkpoint: whatever is random in an epoch is drawn
from (seed, epoch), never from where a generator happened to stand.

Legend: B clips of a batch, C classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from petl.model import AudioClassifier
from trainables import batches, metrics
from trainables.augment import augmented
from trainables.checkpoints import Checkpoint
from trainables.config import TrialConfig
from trainables.data import AudioData
from trainables.precision import choose

Monitor = tuple[str, str]
"""The metric that chooses the best epoch, and "max" or "min"."""


class Diverged(RuntimeError):
    """The loss left the finite numbers; trying the same configuration again would do the same."""


@dataclass
class Report:
    """One finished epoch. `checkpoint` is what to continue from; `is_best` marks the best epoch so far.

    The optimiser's tensors in `checkpoint` are its own: write or copy them before asking for the next epoch.
    """

    epoch: int
    metrics: dict[str, float]
    seconds: float
    is_best: bool
    checkpoint: Checkpoint = field(repr=False)


def train(
    config: TrialConfig,
    model: AudioClassifier,
    data: AudioData,
    *,
    resume: Checkpoint | None = None,
    monitor: Monitor = ("val/accuracy", "max"),
) -> Generator[Report, None, None]:
    """Train `model` in place on the train split, judge every epoch on the validation split.

    Raises:
        Diverged: when the training loss or a trained parameter is not finite after an epoch.
    """
    device = next(iter(model.parameters())).device
    dtype, _ = choose(config.train.precision, device, model.adapted.shape.hidden)
    trained = model.trainable()
    optimizer = build_optimizer(config, trained)
    steps_per_epoch = math.ceil(data.size("train") / config.train.batch_size)
    best: float | None = None
    first_epoch = 1
    if resume is not None:
        model.load_adapter_state(resume.part("model"))
        _restore_optimizer(optimizer, trained, resume)
        first_epoch, best = int(resume.meta["epoch"]) + 1, resume.meta["best"]
    parallel = _distributed(model, device)
    targets = data.targets("train")
    for epoch in range(first_epoch, config.epochs + 1):
        started = time.perf_counter()
        waiting = batches.Waiting()
        model.train()
        _seed(int(batches.generator(config.seed, epoch, _rank()).initial_seed()) % (1 << 62), model)
        step = (epoch - 1) * steps_per_epoch
        sums = torch.zeros(2, device=device)  # loss and clips right; left on the device so that no step waits
        order = batches.shuffled(data.size("train"), config.seed, epoch)
        wanted = list(order.split(config.train.batch_size))
        mine = [batches.share(batch, _rank(), _world()) for batch in wanted]
        # A worker without a share of a small last batch computes on one clip that counts nothing: DDP needs
        # every worker in every step, and no backbone takes an empty batch.
        counted = [len(part) > 0 for part in mine]
        filled = [part if counts else batch[:1] for part, counts, batch in zip(mine, counted, wanted, strict=True)]
        loaded = batches.prefetched(lambda part: (part, data.batch("train", part)), filled, waiting)
        for (part_B, clean), counts, batch in zip(loaded, counted, wanted, strict=True):
            noise = batches.generator(config.seed, epoch, step, _rank())
            x = augmented(clean, config.aug, model.front_end, noise).to(device)
            _set_learning_rates(optimizer, config, step, steps_per_epoch)
            model.adapted.counts(counts)
            with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                logits_BC = parallel(x.values, x.mask)
            y_B = targets[part_B].to(device)
            # A sum over this worker's clips divided by the clips of all: after DDP's mean over the workers (hence
            # the factor) the gradient is that of the mean over the global batch, however it was shared out.
            loss = nn.functional.cross_entropy(
                logits_BC.float(), y_B, reduction="sum", label_smoothing=config.train.label_smoothing
            )
            optimizer.zero_grad(set_to_none=True)
            (loss * (counts * _world() / len(batch))).backward()
            if config.train.grad_clip > 0:
                nn.utils.clip_grad_norm_(list(trained.values()), config.train.grad_clip)
            optimizer.step()
            if counts:
                sums += torch.stack([loss.detach(), (logits_BC.argmax(dim=1) == y_B).sum()])
            step += 1
        trained_for = time.perf_counter() - started
        loss_sum, right, waited = _summed([*sums.tolist(), waiting.seconds / trained_for / _world()])
        # Judged on the sum over all workers, so that all of them leave together.
        if not math.isfinite(loss_sum):
            raise Diverged(f"the training loss became {loss_sum} in epoch {epoch}")
        if not all(bool(torch.isfinite(p).all()) for p in trained.values()):
            raise Diverged(f"a trained parameter is not finite after epoch {epoch}")
        logits_BC, y_B = predict_split(config, model, data, "val")
        measured = {f"val/{k}": v for k, v in metrics.classification(logits_BC, y_B).items()}
        count = data.size("train")
        report_metrics = {
            "train/loss": loss_sum / count,
            "train/accuracy": right / count,
            **measured,
            "train/data_wait": waited,  # share of the training time spent waiting for data
        }
        value = report_metrics[monitor[0]]
        is_best = math.isfinite(value) and (best is None or (value > best if monitor[1] == "max" else value < best))
        best = value if is_best else best
        seconds = time.perf_counter() - started
        checkpoint = Checkpoint(
            {
                **{f"model/{name}": tensor for name, tensor in model.adapter_state().items()},
                **_optimizer_tensors(optimizer, trained),
            },
            {"epoch": epoch, "best": best, "metrics": report_metrics, "seconds": seconds, "monitor": list(monitor)},
        )
        yield Report(epoch, report_metrics, seconds, is_best, checkpoint)


@torch.inference_mode()
def predict_split(config: TrialConfig, model: AudioClassifier, data: AudioData, split: str) -> tuple[Tensor, Tensor]:
    """Logits (clips, C) and targets of a whole split, in its order, the same on every worker; float32, CPU."""
    device = next(iter(model.parameters())).device
    dtype, _ = choose(config.train.precision, device, model.adapted.shape.hidden)
    model.eval()
    parts = torch.arange(data.size(split)).split(config.train.eval_batch_size)
    mine = list(parts)[_rank() :: _world()]
    logits: list[Tensor] = []
    for loaded in batches.prefetched(lambda part: data.batch(split, part), mine, batches.Waiting()):
        x = loaded.to(device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits.append(model(x.values, x.mask).float().cpu())
    seen = torch.cat(mine) if mine else torch.zeros(0, dtype=torch.long)
    logits_BC = torch.cat(logits) if logits else torch.zeros(0, len(data.labels))
    return metrics.gathered(logits_BC, data.targets(split)[seen], seen)


def build_optimizer(config: TrialConfig, trained: dict[str, nn.Parameter]) -> torch.optim.AdamW:
    """AdamW with the published betas; matrices decay, vectors (biases, LayerNorms) do not; the head may differ."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        groups.setdefault((name.startswith("head."), parameter.ndim > 1), []).append(parameter)
    head_lr = config.optim.head_lr or config.optim.lr
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "lr": head_lr if of_head else config.optim.lr,
                "peak_lr": head_lr if of_head else config.optim.lr,
                "weight_decay": config.optim.weight_decay if decays else 0.0,
            }
            for (of_head, decays), members in groups.items()
        ],
        betas=(0.9, 0.98),
        eps=1e-6,
    )


def learning_rate_factor(config: TrialConfig, step: int, steps_per_epoch: int) -> float:
    """Share of the peak rate at 0-based `step`: linear warm-up, then the chosen decay to 0 at the last step."""
    warmup = round(config.schedule.warmup_epochs * steps_per_epoch)
    total = config.epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    if config.schedule.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if config.schedule.name == "linear" else 1.0


def _set_learning_rates(optimizer: torch.optim.Optimizer, config: TrialConfig, step: int, steps_per_epoch: int) -> None:
    factor = learning_rate_factor(config, step, steps_per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def _optimizer_tensors(optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """AdamW's state by parameter name: `optimizer/<moment>/<name>`."""
    return {
        f"optimizer/{moment}/{name}": value
        for name, parameter in trained.items()
        for moment, value in optimizer.state.get(parameter, {}).items()
    }


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter], checkpoint: Checkpoint
) -> None:
    for key, value in checkpoint.part("optimizer").items():
        moment, _, name = key.partition("/")
        parameter = trained[name]
        # The step counter stays on the CPU, as AdamW keeps it.
        placed = value if moment == "step" else value.to(parameter.device, parameter.dtype)
        optimizer.state[parameter][moment] = placed.clone()


def _distributed(model: AudioClassifier, device: torch.device) -> nn.Module:
    if _world() == 1:
        return model
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,
        # A backbone in training mode may skip layers, or mask nothing: what it skips gets no gradient in that step.
        find_unused_parameters=not model.adapted.method.frozen_eval,
    )


def _seed(number: int, model: AudioClassifier) -> None:
    """Where everything starts that draws from global generators: dropout, and transformers' own augmentation."""
    torch.manual_seed(number)
    if not model.adapted.method.frozen_eval:
        np.random.seed(number % (1 << 32))  # noqa: NPY002 - the one that transformers masks and skips layers with


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _summed(values: list[float]) -> list[float]:
    """Element-wise sum over the workers."""
    if _world() == 1:
        return values
    shares: list[Any] = [None] * _world()
    dist.all_gather_object(shares, values)
    return [sum(column) for column in zip(*shares, strict=True)]
