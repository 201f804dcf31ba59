"""Pretrain the embedded backbone on sound synthesised on the way.

    uv run python -m trainables.embedded.pretrain --out DIR --minutes 40
    uv run python -m trainables.embedded.pretrain --out DIR --steps 5000     (repeats exactly)

One thread is enough and is the default. With `--steps` the result depends on the seed, the step count and the
versions of numpy and torch alone; with `--minutes` also on the speed of the machine, and the number of steps that
were done is written into the model card. Nothing but the synthesiser's sound is ever read.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import ASTFeatureExtractor, ASTModel

from trainables.embedded.card import model_card
from trainables.embedded.mel import frames as frame_count
from trainables.embedded.network import build, configuration, hidden_states
from trainables.embedded.objectives import Objectives, texture
from trainables.embedded.pool import Batch, Pool


@dataclass(frozen=True)
class Recipe:
    """Everything a pretraining run depends on (besides library versions)."""

    seed: int = 0
    steps: int | None = None
    minutes: float = 40.0
    pairs: int = 48
    long_pairs: int = 12
    long_every: int = 3
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    kept_share: float = 0.55
    threads: int = 1

    @property
    def long_frames(self) -> int:
        """Frames of the long clips: five seconds."""
        return frame_count(5 * 16_000 + 240)


def pretrain(out: Path, recipe: Recipe, pool_recipes: int = 8000, first_recipes: int = 1500) -> dict[str, float]:
    """Train from scratch, write the directory `out`, return the last running means of the losses by name."""
    torch.set_num_threads(recipe.threads)
    short = Pool(128, pool_recipes, recipe.seed)
    long = Pool(recipe.long_frames, max(64, pool_recipes // 6), recipe.seed)
    short.add(first_recipes)
    long.add(max(recipe.long_pairs, first_recipes // 6))
    mean, std = short.statistics()
    model = build(configuration(), recipe.seed)
    goals = texture((short.draw(min(256, len(short))).features_BTM - mean) / (2 * std))
    objectives = Objectives(model.config.hidden_size, goals.mean(0), goals.std(0) + 1e-3)
    generator = torch.Generator().manual_seed(recipe.seed)
    optimizer = _optimizer(model, objectives, recipe)
    began, step, means = time.monotonic(), 0, dict[str, float]()
    while (progress := _progress(recipe, step, began)) < 1.0:
        lengthy = step % recipe.long_every == recipe.long_every - 1
        pool, pairs = (long, recipe.long_pairs) if lengthy else (short, recipe.pairs)
        batch = pool.draw(pairs)
        losses = _step(model, objectives, optimizer, batch, mean, std, recipe, progress, lengthy, generator)
        pool.add(max(1, pairs // 5))
        step += 1
        for name, value in losses.items():
            means[name] = 0.98 * means.get(name, value) + 0.02 * value
        if step % 100 == 0:
            told = " ".join(f"{name} {value:.3f}" for name, value in means.items())
            print(f"step {step} · {time.monotonic() - began:.0f} s · {progress:.0%} · {told}", flush=True)
    _save(model, out, mean, std, recipe, step, means, time.monotonic() - began)
    return means


def _progress(recipe: Recipe, step: int, began: float) -> float:
    """Share of the run that is done, in [0, 1]."""
    if recipe.steps is not None:
        return min(1.0, step / max(1, recipe.steps))
    return min(1.0, (time.monotonic() - began) / (60 * recipe.minutes))


def _optimizer(model: ASTModel, objectives: Objectives, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    parameters = [*model.parameters(), *objectives.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def _step(
    model: ASTModel,
    objectives: Objectives,
    optimizer: torch.optim.AdamW,
    batch: Batch,
    mean: float,
    std: float,
    recipe: Recipe,
    progress: float,
    lengthy: bool,
    generator: torch.Generator,
) -> dict[str, float]:
    """One optimiser step; the losses by name."""
    warm = min(1.0, progress / 0.03)
    rate = recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))) * max(warm, 0.02)
    for group in optimizer.param_groups:
        group["lr"] = rate
    normalised = (batch.features_BTM - mean) / (2 * std)
    # Most of the run looks at about half of the patches (quicker, and a regulariser); the end looks at all.
    share = 1.0 if progress > 0.8 else recipe.kept_share
    kept = _kept(normalised, share, generator) if share < 1 else None
    losses = objectives(hidden_states(model, normalised, kept), batch, normalised)
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    torch.nn.utils.clip_grad_norm_([*model.parameters(), *objectives.parameters()], 2.0)
    optimizer.step()
    return {name: float(value.detach()) for name, value in losses.items()}


def _kept(input_BTM: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Numbers (B, n) of the patches to look at, drawn anew for every example."""
    patches = (128 // 16) * ((input_BTM.shape[1] - 16) // 16 + 1)
    order = torch.rand(len(input_BTM), patches, generator=generator).argsort(dim=1)
    return order[:, : max(8, int(share * patches))]


def _save(
    model: ASTModel,
    out: Path,
    mean: float,
    std: float,
    recipe: Recipe,
    steps: int,
    means: dict[str, float],
    seconds: float,
) -> None:
    """Write weights, configuration, feature extractor, model card and the record of the run."""
    out.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(out)
    extractor = ASTFeatureExtractor(
        mean=round(mean, 6), std=round(std, 6), max_length=model.config.max_length, sampling_rate=16_000
    )
    extractor.save_pretrained(out)
    record = {"recipe": asdict(recipe), "steps": steps, "seconds": round(seconds, 1), "torch": torch.__version__}
    record |= {"losses": {name: round(value, 4) for name, value in means.items()}}
    (out / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(model_card(model, record), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--minutes", type=float, default=40.0, help="length of the run when --steps is not given")
    parser.add_argument("--steps", type=int, default=None, help="number of optimiser steps (repeatable)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pool", type=int, default=8000, help="recipes kept in memory (64 KiB each)")
    parser.add_argument("--first", type=int, default=1500, help="recipes synthesised before the first step")
    given = parser.parse_args(arguments)
    recipe = Recipe(seed=given.seed, steps=given.steps, minutes=given.minutes, threads=given.threads)
    pretrain(given.out, recipe, given.pool, given.first)


if __name__ == "__main__":
    main()
