"""Which clips make up a step, and what a step computes of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from petl.errors import ConfigError
from tests.trainables.small_trials import flat_of, trained
from trainables import batches
from trainables.augment import augmented_waveforms, samples_needed
from trainables.checkpoints import CheckpointStore
from trainables.config import TrialConfig
from trainables.data import AudioData
from trainables.data.clips import Clip
from trainables.loop import train
from trainables.session import Session
from trainables.shares import PARTNERS as _PARTNERS


@dataclass
class _Lengths:
    """Clips of which nothing is known but how long they are and what they are."""

    lengths: list[int]
    classes: list[tuple[str, ...]]

    def size(self, split: str) -> int:
        return len(self.lengths)

    def frames(self, split: str) -> np.ndarray:
        return np.array(self.lengths)

    def clips(self, split: str) -> tuple[Clip, ...]:
        return tuple(Clip(Path(f"{i}"), f"{i}", labels=held) for i, held in enumerate(self.classes))


def _steps(lengths: list[int], epoch: int = 1, classes: Any = (), **options: Any) -> list[list[int]]:
    data = cast(AudioData, _Lengths(lengths, list(classes)))
    config = TrialConfig.from_flat({f"train.{name}": value for name, value in options.items()})
    return [batch.tolist() for batch in batches.steps_of(config, data, epoch)]


_LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=80)


@given(
    _LENGTHS,
    st.sampled_from(["shuffled", "bucketed"]),
    st.integers(1, 12),
    st.none() | st.floats(0.05, 60),
    st.integers(1, 5),
)
def test_batches_hold_every_clip_once_within_their_limits(
    lengths: list[int], batching: str, size: int, seconds: float | None, world: int
) -> None:
    options: dict[str, Any] = {"batching": batching, "batch_size": size}
    if seconds is not None:
        options["batch_seconds"] = seconds
    steps = _steps(lengths, **options)
    assert sorted(i for batch in steps for i in batch) == list(range(len(lengths)))
    for batch in steps:
        assert 1 <= len(batch) <= size
        longest = max(lengths[i] for i in batch)
        if seconds is not None:
            assert len(batch) == 1 or len(batch) * longest <= seconds * 100
        shares = [batches.share(torch.tensor(batch), rank, world).tolist() for rank in range(world)]
        assert sorted(i for share in shares for i in share) == sorted(batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert _steps(lengths, **options) == steps


@given(_LENGTHS, st.integers(1, 12), st.none() | st.floats(0.05, 60))
def test_bucketed_batches_are_of_clips_of_like_length(lengths: list[int], size: int, seconds: float | None) -> None:
    steps = _steps(
        lengths, batching="bucketed", batch_size=size, **({} if seconds is None else {"batch_seconds": seconds})
    )
    if len(lengths) > 50 * size:
        return  # more than one window, each with a batch of every length
    ranges = sorted((min(lengths[i] for i in batch), max(lengths[i] for i in batch)) for batch in steps)
    assert all(one[1] <= other[0] for one, other in pairwise(ranges))


@given(_LENGTHS, st.sampled_from(["shuffled", "bucketed"]), st.none() | st.floats(0.05, 60))
@settings(max_examples=30)
def test_judging_takes_every_clip_once(lengths: list[int], batching: str, seconds: float | None) -> None:
    flat = {"train.batching": batching, "train.eval_batch_size": 7}
    config = TrialConfig.from_flat(flat | ({} if seconds is None else {"train.batch_seconds": seconds}))
    parts = batches.for_judging(config, cast(AudioData, _Lengths(lengths, [])), "val")
    assert sorted(torch.cat(parts).tolist()) == list(range(len(lengths)))
    assert max(map(len, parts)) <= 7


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    lengths = list(range(1, 101))
    for batching in ("shuffled", "bucketed"):
        found = {str(_steps(lengths, epoch, batching=batching, batch_size=8)) for epoch in range(1, 6)}
        assert len(found) == 5


def test_balanced_epochs_draw_every_class_alike() -> None:
    classes = [("rare",)] * 2 + [("some",)] * 20 + [("many",)] * 200
    drawn: Counter[str] = Counter()
    for epoch in range(1, 21):
        steps = _steps([1] * 222, epoch, classes, balanced=True, batch_size=32)
        assert sum(map(len, steps)) == 222
        drawn.update(classes[i][0] for batch in steps for i in batch)
    assert steps == _steps([1] * 222, 20, classes, balanced=True, batch_size=32)
    for name in ("rare", "some", "many"):  # a third each; the deviation of a share of 4440 draws is 0.007
        assert drawn[name] / sum(drawn.values()) == pytest.approx(1 / 3, abs=0.03)


def test_clips_of_several_classes_weigh_the_mean_of_them() -> None:
    classes = [("a", "b"), ("a",), ("a",), ("b", "c")]
    drawn: Counter[int] = Counter()
    for epoch in range(1, 1501):
        drawn.update(i for batch in _steps([1] * 4, epoch, classes, balanced=True) for i in batch)
    weights = [(1 / 3 + 1 / 2) / 2, 1 / 3, 1 / 3, (1 / 2 + 1) / 2]
    for i, weight in enumerate(weights):  # 6000 draws
        assert drawn[i] / 6000 == pytest.approx(weight / sum(weights), abs=0.03)


# -- what a step computes --------------------------------------------------------------------------------------


def _gradients(checkpoint: Any) -> dict[str, torch.Tensor]:
    """Of the only step: AdamW's first moment is a tenth of it."""
    return {name: 10 * tensor for name, tensor in checkpoint.part("optimizer/exp_avg").items()}


@pytest.mark.parametrize("pooling", ["masked_mean", "stats"])
@pytest.mark.parametrize("accumulate", [2, 5, 14])
def test_a_batch_in_parts_has_the_gradients_of_the_whole(
    uneven: Path, tiny_wave: Path, tmp_path: Path, accumulate: int, pooling: str
) -> None:
    """Whose clips are padded otherwise, as the parts have other longest clips."""
    flat = flat_of(uneven, tiny_wave, **{"pooling": pooling, "train.batch_size": 14})
    whole, one = trained(flat, tmp_path / "whole")
    parts, other = trained({**flat, "train.accumulate": accumulate}, tmp_path / "parts")
    assert parts["train/loss"] == pytest.approx(whole["train/loss"], abs=1e-6)
    expected = _gradients(one)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-3
    for name, gradient in _gradients(other).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    # Steps as long as gradients, and these clipped: of the whole batch, not of its parts.
    clipped = {"optim.eps": 1.0, "optim.lr": 0.3, "train.grad_clip": 0.05}
    _, one = trained({**flat, **clipped}, tmp_path / "whole-clipped")
    _, other = trained({**flat, **clipped, "train.accumulate": accumulate}, tmp_path / "parts-clipped")
    norm = sum(float(gradient.square().sum()) for gradient in _gradients(one).values()) ** 0.5
    assert norm == pytest.approx(0.05, rel=1e-3)
    for name, tensor in one.part("model").items():
        torch.testing.assert_close(other.part("model")[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [{"lora.dropout": 0.2}, {"method": "adapter", "adapter.block": "conformer"}])
def test_gradient_checkpointing_changes_nothing(
    uneven: Path, tiny_wave: Path, tmp_path: Path, method: dict[str, Any]
) -> None:
    more = {**method, "train.batch_size": 7}
    if "method" in method:
        more |= {"adapter.reduction": 4, "adapter.kernel": 3, "lora.rank": None}
    flat = {name: value for name, value in flat_of(uneven, tiny_wave, **more).items() if value is not None}
    session = Session(CheckpointStore(str(tmp_path)), torch.device("cpu"), None, ("val/accuracy", "max"))
    found = []
    for trial, extra in (("off", {}), ("on", {"train.gradient_checkpointing": True}), ("again", {})):
        report = session.epoch(trial, {**flat, **extra})
        checkpoint = CheckpointStore(str(tmp_path)).read(trial, "last")
        assert checkpoint is not None
        found.append((report["train/loss"], report["val/loss"], checkpoint.part("model")))
        backbone = next(iter(session._backbones.values()))
        assert not any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules())
    for loss, judged, tensors in found[1:]:
        assert (loss, judged) == pytest.approx(found[0][:2], abs=1e-6)
        for name, tensor in tensors.items():
            torch.testing.assert_close(tensor, found[0][2][name], rtol=1e-5, atol=1e-6)


def test_mixed_clips_cost_what_both_are_by_their_shares(uneven: Path, tiny_ast: Path, tmp_path: Path) -> None:
    flat = flat_of(uneven, tiny_ast, **{"aug.mixup": 0.8, "train.batch_size": 14, "seed": 5})
    report, _ = trained(flat, tmp_path)
    config = TrialConfig.from_flat(flat)
    session = Session(None, torch.device("cpu"), None, ("val/accuracy", "max"))
    (data,) = session.data(config)
    model = session.build(config, data).train()
    (batch,) = batches.steps_of(config, data, 1)
    partners = torch.randint(14, (14,), generator=batches.generator(5, 1, 0, 0, 0, _PARTNERS))
    most = samples_needed(config.aug, data.front_end)
    mixed = augmented_waveforms(
        *data.waveforms("train", batch, most),
        config.aug,
        data.front_end,
        batches.generator(5, 1, 0, 0, 0),
        data.waveforms("train", partners, most),
    )
    weights = mixed.weights_B.tolist()
    assert 0 < sum(weight < 1 for weight in weights) < 14
    with torch.no_grad():
        logits = model(data.front_end.collate_waveforms(mixed.waves_BS, mixed.lengths_B).values)
    costs = -logits.log_softmax(dim=1)
    number = {label: i for i, label in enumerate(data.labels)}
    classes = [number[clip.label] for clip in data.clips("train")]
    losses = [
        weight * float(cost[classes[i]]) + (1 - weight) * float(cost[classes[j]])
        for cost, weight, i, j in zip(costs, weights, batch.tolist(), partners.tolist(), strict=True)
    ]
    assert report["train/loss"] == pytest.approx(sum(losses) / 14, abs=1e-5)


def test_averaged_weights_are_judged_and_kept_and_training_goes_on_from_its_own(
    uneven: Path, tiny_ast: Path, tmp_path: Path
) -> None:
    more = {"epochs": 4, "train.batch_size": 7, "optim.lr": 1e-2}
    session = Session(None, torch.device("cpu"), None, ("val/accuracy", "max"))
    plain = TrialConfig.from_flat(flat_of(uneven, tiny_ast, **more))
    averaged = TrialConfig.from_flat(
        flat_of(uneven, tiny_ast, **more, **{"train.average_first": 2, "train.average_last": 3})
    )
    runs = []
    for config in (plain, averaged):
        (data,) = session.data(config)
        model = session.build(config, data)
        runs.append([(r.checkpoint.part("model"), dict(r.judged)) for r in train(config, model, data)])
        model.adapted.detach()
    for (raw, judged), (of_plain, judged_plain) in zip(runs[1], runs[0], strict=True):
        for name, tensor in of_plain.items():
            assert torch.equal(raw[name], tensor)
            assert torch.equal(judged_plain[f"model/{name}"], tensor)
            assert f"model/{name}" in judged
    for name, tensor in runs[0][1][0].items():
        assert torch.equal(runs[1][0][1][f"model/{name}"], runs[0][0][0][name])  # not yet
        assert torch.equal(runs[1][1][1][f"model/{name}"], tensor)  # of one epoch
        mean = (tensor + runs[0][2][0][name]) / 2
        torch.testing.assert_close(runs[1][2][1][f"model/{name}"], mean, rtol=1e-6, atol=1e-8)
        assert torch.equal(runs[1][3][1][f"model/{name}"], runs[0][3][0][name])  # no more
    flat = averaged.to_flat()
    trained(flat, tmp_path)
    store = CheckpointStore(str(tmp_path))
    best = store.read("t", "best")
    assert best is not None
    judged = runs[1][best.meta["epoch"] - 1][1]
    assert best.tensors.keys() == judged.keys()
    assert all(torch.equal(tensor, judged[name]) for name, tensor in best.tensors.items())


def test_half_precision_needs_an_accelerator(uneven: Path, tiny_ast: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"float16") as caught:
        trained(flat_of(uneven, tiny_ast, **{"train.precision": "float16"}), tmp_path)
    assert caught.value.key == "train.precision"
