"""The learning rate's share of its peak, as a function of how far a trial is (torch-free).

Epochs need not have equally many steps: progress is counted in epochs, and numbers of steps (of a warm-up, of the
whole trial) are those of a trial all of whose epochs are as long as the current one. Where they are equally long, the
factors are those of the published schedulers, step by step:

* cosine: torch's `CosineAnnealingLR` stepped per step down to 0 (PETL_AST, arXiv 2312.03694);
* linear: linear to 0 behind a linear warm-up, transformers' default (SURE, arXiv 2303.03267);
* tri_stage: linear warm-up, 1 until step ⌈S (`hold_ratio` + `warmup_ratio`)⌉ of S, linear to 0 (SURE's speech
  recognition and slot filling). A warm-up given in steps or epochs does not move the end of the plateau; where it
  lasts longer than that, the smaller of the two ramps counts (the published code jumps from 1 down to the second one);
* step: torch's `MultiStepLR` stepped per epoch, with milestones from `step_start` every `step_every` epochs (AAT,
  arXiv 2401.10544).

Two things differ on purpose. A warm-up's first step is at 1/W of the peak where transformers' is at 0, so that no step
is wasted: its factors are those of transformers one step later. And it rises with every step, where AAT changes the
rate every 50 steps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.config import ScheduleOptions


def learning_rate_factor(options: ScheduleOptions, epochs: int, epoch: int, step: int, steps: int) -> float:
    """The share, in [0, 1], for one step of training.

    Args:
        epochs: of the whole trial.
        epoch: the current one, from 1 on.
        step: the step within it, from 0 on.
        steps: how many steps it has.
    """
    total = epochs * steps
    done = (epoch - 1) * steps + step
    warmup = warmup_steps(options, epochs, steps)
    rising = min(1.0, (done + 1) / warmup) if warmup else 1.0
    if options.name == "tri_stage":
        hold = min(total, math.ceil(total * (options.hold_ratio + options.warmup_ratio)))
        return min(rising, _falling(done, hold, total))
    if done < warmup:
        # A step decay that begins during the warm-up takes part in it; the others wait for its end.
        return rising * (_steps_down(options, epoch) if options.name == "step" else 1.0)
    if options.name == "step":
        return _steps_down(options, epoch)
    if options.name == "linear":
        return _falling(done, warmup, total)
    if options.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (1 - _falling(done, warmup, total))))
    return 1.0


def warmup_steps(options: ScheduleOptions, epochs: int, steps: int) -> int:
    """Length of the warm-up in steps, in a trial of `epochs` epochs of `steps` steps; 0: none."""
    if options.warmup_ratio:
        return math.ceil(epochs * steps * options.warmup_ratio)
    return options.warmup_steps or round(options.warmup_epochs * steps)


def _falling(done: int, start: int, total: int) -> float:
    """1 until `start` steps are done, then linear to 0 at `total`."""
    return max(0.0, min(1.0, (total - done) / max(1, total - start)))


def _steps_down(options: ScheduleOptions, epoch: int) -> float:
    finished = epoch - 1
    if finished < options.step_start:
        return 1.0
    return options.step_factor ** (1 + (finished - options.step_start) // options.step_every)
