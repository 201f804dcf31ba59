"""The steps of one training, epoch by epoch, with its optimiser, schedule and averages. See `trainables.loop`.

Legend: B clips of a batch, S samples.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from petl.model import AudioModel
from trainables import batches
from trainables.averaging import WeightAverage
from trainables.checkpoints import under
from trainables.collective import rank, summed, world
from trainables.config import TrialConfig
from trainables.data import AudioData
from trainables.evaluation import answers_on
from trainables.memory import Piece, noticing, pieces
from trainables.optimizer import build_optimizer, optimizer_tensors, restore_optimizer, set_learning_rates
from trainables.precision import choose, scaler
from trainables.schedule import learning_rate_factor
from trainables.shares import Loaded, inputs_of, load, parts_of_steps
from trainables.tasks import Targets


class Diverged(RuntimeError):
    """The loss left the finite numbers; trying the same configuration again would do the same."""


@dataclass
class Epoch:
    """One epoch: metrics, what to continue from (`tensors` and `meta`), and the weights that were judged."""

    metrics: dict[str, float]
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    judged: dict[str, Tensor]


def epochs(
    config: TrialConfig,
    model: AudioModel,
    data: AudioData,
    parallel: nn.Module,
    first: int,
    resume: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None = None,
    parts: int = 1,
) -> Generator[Epoch, None, None]:
    """Train `model` in place from epoch `first` on; `parallel` is what calls it, with all workers.

    `resume` is an earlier epoch's `tensors` and `meta`. Whatever the configuration has computed at a time is cut into
    `parts` pieces, which have its augmentation and padding, so that the steps stay what they were. Raises `Diverged`
    when the training loss or a trained parameter is not finite after an epoch, `OutOfMemory` when memory runs out.
    """
    device = next(iter(model.parameters())).device
    dtype, _ = choose(config.train.precision, device, model.adapted.shape.hidden)
    trained = model.trainable()
    optimizer = build_optimizer(config, trained)
    grads = scaler(dtype, device)
    average = WeightAverage.of(config.train)
    if resume is not None:
        tensors, meta = resume
        model.load_adapter_state(under(tensors, "model"))
        restore_optimizer(optimizer, trained, under(tensors, "optimizer"))
        if meta.get("scaler"):
            grads.load_state_dict(dict(meta["scaler"]))
        if average is not None:
            average.restore(under(tensors, "average"), model.stored())
    task = data.task(config.train)
    targets = task.targets(data.clips("train"))
    for epoch in range(first, config.epochs + 1):
        started = time.perf_counter()
        waiting = batches.Waiting()
        model.train()
        _seed(int(batches.generator(config.seed, epoch, rank()).initial_seed()) % (1 << 62), model)
        sums = torch.zeros(3, device=device)  # loss, clips right, clips; on the device so that no step waits
        steps = batches.steps_of(config, data, epoch)
        loading = partial(load, config, data, epoch)
        optimizer.zero_grad(set_to_none=True)
        counts_right = True
        shares = parts_of_steps(steps, config.train.accumulate)
        for loaded in batches.prefetched(loading, shares, waiting, config.train.loaders):
            part = loaded.part
            noise = batches.generator(config.seed, epoch, part.step, rank(), part.part)
            factor = learning_rate_factor(config.schedule, config.epochs, epoch, part.step, len(steps))
            set_learning_rates(optimizer, factor)
            cut = pieces(len(part.clips), parts, part.most)
            with noticing(max(len(part.clips[piece.clips]) for piece in cut), "training"):
                x, weights_B = inputs_of(config, model, loaded, noise, device)
                for piece in cut:
                    counts = part.counts and piece.counts
                    model.adapted.counts(counts)
                    # The other workers wait for this one's gradients only where the optimiser steps.
                    joined = (part.last and piece.last) or world() == 1
                    with contextlib.nullcontext() if joined else parallel.no_sync():  # type: ignore[operator]
                        values = x.values[piece.clips]
                        mask = None if x.mask is None else x.mask[piece.clips]
                        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                            logits = parallel(values, mask)
                        lengths_B = model.lengths(mask)
                        clips = part.clips[piece.clips]
                        wanted = targets.at(clips).to(device)
                        losses_B = task.losses(logits.float(), lengths_B, wanted)
                        if weights_B is not None:
                            shares_B = weights_B[piece.clips]
                            others = _others(targets, loaded, piece)
                            losses_B = _weighted(losses_B, shares_B, others, task, logits, lengths_B)
                        loss = losses_B.sum()
                        # A sum over this worker's clips divided by the clips of all: after DDP's mean over the workers
                        # (hence the factor) the gradient is that of the mean over the global batch, however it was
                        # shared out.
                        grads.scale(loss * (counts * world() / part.of)).backward()
                    if counts:
                        right = task.right(logits.detach(), lengths_B, wanted)
                        counts_right = right is not None
                        known = sums.new_zeros(()) if right is None else right
                        sums += torch.stack([loss.detach(), known, sums.new_tensor(len(clips))])
                if part.last:
                    if config.train.grad_clip > 0:
                        grads.unscale_(optimizer)
                        nn.utils.clip_grad_norm_(list(trained.values()), config.train.grad_clip)
                    grads.step(optimizer)
                    grads.update()
                    optimizer.zero_grad(set_to_none=True)
        trained_for = time.perf_counter() - started
        loss_sum, right_sum, count, waited = summed([*sums.tolist(), waiting.seconds / trained_for / world()])
        # Judged on the sum over all workers, so that all of them leave together.
        if not math.isfinite(loss_sum):
            raise Diverged(f"the training loss became {loss_sum} in epoch {epoch}")
        if not all(bool(torch.isfinite(p).all()) for p in trained.values()):
            raise Diverged(f"a trained parameter is not finite after epoch {epoch}")
        state = model.adapter_state()
        judged = state
        if average is not None and average.update(epoch, state):
            judged = average.averages()
            model.load_adapter_state(judged)
        measured = answers_on(config, model, data, "val", parts).metrics()
        if judged is not state:
            model.load_adapter_state(state)
        yield Epoch(
            {
                "train/loss": loss_sum / count,
                **({"train/accuracy": right_sum / count} if counts_right else {}),
                **{f"val/{name}": value for name, value in measured.items()},
                "train/data_wait": waited,  # share of the training time spent waiting for data
            },
            {
                **{f"model/{name}": tensor for name, tensor in state.items()},
                **{f"optimizer/{name}": tensor for name, tensor in optimizer_tensors(optimizer, trained).items()},
                **({f"average/{n}": t for n, t in average.tensors().items()} if average is not None else {}),
            },
            {"scaler": grads.state_dict()},
            judged,
        )


def in_parallel(model: AudioModel) -> nn.Module:
    """What calls the model so that gradients are those of all workers."""
    if world() == 1:
        return model
    device = next(iter(model.parameters())).device
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,
        # A backbone in training mode may skip layers, or mask nothing: what it skips gets no gradient in that step.
        find_unused_parameters=not model.adapted.method.frozen_eval,
    )


def _others(targets: Targets, loaded: Loaded, piece: Piece) -> Targets:
    """What the clips are that were mixed into those of a piece."""
    assert loaded.partner_clips is not None
    return targets.at(loaded.partner_clips[piece.clips])


def _weighted(
    losses_B: Tensor, weights_B: Tensor, others: Targets, task: Any, logits: Tensor, lengths_B: Tensor | None
) -> Tensor:
    """The losses of mixtures: those of both clips, weighted as the clips were."""
    others_B = task.losses(logits.float(), lengths_B, others.to(logits.device))
    mixed_B: Tensor = weights_B * losses_B + (1 - weights_B) * others_B
    return mixed_B


def _seed(number: int, model: AudioModel) -> None:
    """Where everything starts that draws from global generators: dropout, and transformers' own augmentation."""
    torch.manual_seed(number)
    if not model.adapted.method.frozen_eval:
        np.random.seed(number % (1 << 32))  # noqa: NPY002 - the one that transformers masks and skips layers with
