"""The steps of one training, epoch by epoch, with its optimiser, schedule and averages. See `trainables.loop`.

Legend: B clips of a batch, S samples.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from petl.frontend import ModelInput
from petl.model import AudioModel
from trainables import batches
from trainables.augment import augmented, augmented_waveforms, samples_needed
from trainables.averaging import WeightAverage
from trainables.checkpoints import under
from trainables.collective import rank, summed, world
from trainables.config import TrialConfig
from trainables.data import AudioData
from trainables.evaluation import answers_on
from trainables.optimizer import build_optimizer, optimizer_tensors, restore_optimizer, set_learning_rates
from trainables.precision import choose, scaler
from trainables.schedule import learning_rate_factor
from trainables.tasks import Targets

_PARTNERS = 1
"""Sets the draw of mixup's partners apart from the draws of everything else in a step."""


class Diverged(RuntimeError):
    """The loss left the finite numbers; trying the same configuration again would do the same."""


@dataclass
class Epoch:
    """One epoch: metrics, what to continue from (`tensors` and `meta`), and the weights that were judged."""

    metrics: dict[str, float]
    tensors: dict[str, Tensor]
    meta: dict[str, Any]
    judged: dict[str, Tensor]


@dataclass(frozen=True)
class _Part:
    """What a worker computes at a time: its share of a batch, or with accumulation a part of that."""

    step: int
    part: int
    clips: Tensor
    counts: bool  # False: any clip, for company; see `_parts`
    of: int  # clips of the whole batch
    last: bool  # the optimiser steps behind it


@dataclass
class _Loaded:
    part: _Part
    clean: ModelInput | None
    waves: tuple[Tensor, Tensor] | None
    partners: tuple[Tensor, Tensor] | None
    partner_clips: Tensor | None


def epochs(
    config: TrialConfig,
    model: AudioModel,
    data: AudioData,
    parallel: nn.Module,
    first: int,
    resume: tuple[Mapping[str, Tensor], Mapping[str, Any]] | None = None,
) -> Generator[Epoch, None, None]:
    """Train `model` in place from epoch `first` on; `parallel` is what calls it, with all workers.

    `resume` is an earlier epoch's `tensors` and `meta`. Raises `Diverged` when the training loss or a trained
    parameter is not finite after an epoch.
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
        load = partial(_load, config, data, epoch)
        optimizer.zero_grad(set_to_none=True)
        counts_right = True
        for loaded in batches.prefetched(load, _parts(steps, config.train.accumulate), waiting, config.train.loaders):
            part = loaded.part
            noise = batches.generator(config.seed, epoch, part.step, rank(), part.part)
            x, weights_B = _inputs(config, model, loaded, noise, device)
            factor = learning_rate_factor(config.schedule, config.epochs, epoch, part.step, len(steps))
            set_learning_rates(optimizer, factor)
            model.adapted.counts(part.counts)
            # The other workers wait for this one's gradients only where the optimiser steps.
            quiet = contextlib.nullcontext() if part.last or world() == 1 else parallel.no_sync()  # type: ignore[operator]
            with quiet:
                with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                    logits = parallel(x.values, x.mask)
                lengths_B = model.lengths(x.mask)
                wanted = targets.at(part.clips).to(device)
                losses_B = task.losses(logits.float(), lengths_B, wanted)
                if weights_B is not None:
                    losses_B = _weighted(losses_B, weights_B, targets, loaded, task, logits, lengths_B)
                loss = losses_B.sum()
                # A sum over this worker's clips divided by the clips of all: after DDP's mean over the workers (hence
                # the factor) the gradient is that of the mean over the global batch, however it was shared out.
                grads.scale(loss * (part.counts * world() / part.of)).backward()
            if part.last:
                if config.train.grad_clip > 0:
                    grads.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(list(trained.values()), config.train.grad_clip)
                grads.step(optimizer)
                grads.update()
                optimizer.zero_grad(set_to_none=True)
            if part.counts:
                right = task.right(logits.detach(), lengths_B, wanted)
                counts_right = right is not None
                sums += torch.stack(
                    [loss.detach(), sums.new_zeros(()) if right is None else right, sums.new_tensor(len(part.clips))]
                )
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
        measured = answers_on(config, model, data, "val").metrics()
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


def _parts(steps: list[Tensor], accumulate: int) -> Iterator[_Part]:
    """What this worker computes in an epoch: its shares of the parts of every batch.

    A part is of the same clips however many workers share it, so that BatchNorm sees the same. A worker without a share
    of a small part computes on one clip that counts nothing: DDP needs every worker in every step, and no backbone
    takes an empty batch.
    """
    for number, batch in enumerate(steps):
        count = min(accumulate, len(batch))
        for part in range(count):
            clips = batches.share(batch[part::count], rank(), world())
            counts = len(clips) > 0
            yield _Part(number, part, clips if counts else batch[:1], counts, len(batch), part == count - 1)


def _load(config: TrialConfig, data: AudioData, epoch: int, part: _Part) -> _Loaded:
    """The audio of a part; in a thread of its own."""
    if not config.aug.of_waveform:
        return _Loaded(part, data.batch("train", part.clips), None, None, None)
    most = samples_needed(config.aug, data.front_end)
    waves = data.waveforms("train", part.clips, most)
    if not config.aug.mixup:
        return _Loaded(part, None, waves, None, None)
    draw = batches.generator(config.seed, epoch, part.step, rank(), part.part, _PARTNERS)
    others_B = torch.randint(data.size("train"), (len(part.clips),), generator=draw)
    return _Loaded(part, None, waves, data.waveforms("train", others_B, most), others_B)


def _inputs(
    config: TrialConfig, model: AudioModel, loaded: _Loaded, noise: torch.Generator, device: torch.device
) -> tuple[ModelInput, Tensor | None]:
    """The augmented batch on the device and, where clips were mixed, each one's own share."""
    if loaded.waves is None:
        assert loaded.clean is not None
        return augmented(loaded.clean, config.aug, model.front_end, noise).to(device), None
    waves_BS, lengths_B = loaded.waves
    partners = None if loaded.partners is None else (loaded.partners[0].to(device), loaded.partners[1])
    found = augmented_waveforms(
        waves_BS.to(device), lengths_B, config.aug, model.front_end, noise, partners, whole=model.output.sequence
    )
    x = model.front_end.collate_waveforms(found.waves_BS, found.lengths_B)
    return augmented(x, config.aug, model.front_end, noise), found.weights_B if config.aug.mixup else None


def _weighted(
    losses_B: Tensor,
    weights_B: Tensor,
    targets: Targets,
    loaded: _Loaded,
    task: Any,
    logits: Tensor,
    lengths_B: Tensor | None,
) -> Tensor:
    """The losses of mixtures: those of both clips, weighted as the clips were."""
    assert loaded.partner_clips is not None
    others_B = task.losses(logits.float(), lengths_B, targets.at(loaded.partner_clips).to(logits.device))
    mixed_B: Tensor = weights_B * losses_B + (1 - weights_B) * others_B
    return mixed_B


def _seed(number: int, model: AudioModel) -> None:
    """Where everything starts that draws from global generators: dropout, and transformers' own augmentation."""
    torch.manual_seed(number)
    if not model.adapted.method.frozen_eval:
        np.random.seed(number % (1 << 32))  # noqa: NPY002 - the one that transformers masks and skips layers with
