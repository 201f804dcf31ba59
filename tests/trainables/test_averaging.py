"""Means of weights over epochs."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainables.averaging import WeightAverage
from trainables.checkpoints import Checkpoint, CheckpointStore
from trainables.config import TrainOptions


def _epochs(count: int, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    return [
        {
            "layer.weight": torch.randn(3, 2, generator=draw).to(dtype),
            "mean/bias": torch.randn(2, generator=draw).to(dtype),  # a name that looks like a key of the state
            "num_batches_tracked": torch.tensor(10 * (i + 1)),
        }
        for i in range(count)
    ]


def test_the_mean_of_the_epochs_asked_for() -> None:
    epochs = _epochs(6)
    average = WeightAverage(2, 4)
    taken = [average.update(i, weights) for i, weights in enumerate(epochs, 1)]
    assert taken == [False, True, True, True, False, False]
    found = average.averages()
    for name in ("layer.weight", "mean/bias"):
        assert torch.allclose(found[name], torch.stack([weights[name] for weights in epochs[1:4]]).mean(0), atol=1e-6)
    assert found["num_batches_tracked"] == 40, "counted, not averaged"
    assert average.count == 3


def test_nothing_before_the_first_epoch() -> None:
    average = WeightAverage(3)
    assert not average.update(2, _epochs(1)[0])
    assert average.averages() == {} == average.tensors()


def test_by_hand() -> None:
    average = WeightAverage(1)
    for epoch, value in enumerate((1.0, 2.0, 6.0), 1):
        average.update(epoch, {"w": torch.tensor([value, -value])})
    assert average.averages()["w"].tolist() == [3.0, -3.0]


def test_it_keeps_no_hold_of_the_weights() -> None:
    """Parameters are changed in place by the next epoch, and the averages are loaded into them."""
    weight = torch.nn.Parameter(torch.ones(2))
    average = WeightAverage(1)
    average.update(1, {"w": weight})
    with torch.no_grad():
        weight.fill_(5)
    found = average.averages()["w"]
    assert found.tolist() == [1, 1] and not found.requires_grad
    found.fill_(9)
    assert average.averages()["w"].tolist() == [1, 1]


def test_half_precision_weights_are_summed_in_float32() -> None:
    average = WeightAverage(1)
    for epoch in range(1, 1001):
        average.update(epoch, {"w": torch.tensor([1.0 if epoch % 2 else 1.0078125], dtype=torch.bfloat16)})
    assert average.averages()["w"].dtype == torch.bfloat16
    assert abs(float(average.tensors()["mean/w"]) - 1.00390625) < 1e-5


@given(cut=st.integers(0, 6), first=st.integers(1, 4), last=st.one_of(st.none(), st.integers(4, 6)))
def test_it_goes_on_from_a_checkpoint(cut: int, first: int, last: int | None) -> None:
    epochs = _epochs(6, torch.float64)
    straight, before, after = (WeightAverage(first, last) for _ in range(3))
    for epoch, weights in enumerate(epochs, 1):
        straight.update(epoch, weights)
    for epoch, weights in enumerate(epochs[:cut], 1):
        before.update(epoch, weights)
    after.restore(before.tensors(), like=epochs[0])
    for epoch, weights in enumerate(epochs[cut:], cut + 1):
        after.update(epoch, weights)
    assert after.count == straight.count
    for name, tensor in straight.averages().items():
        assert torch.equal(after.averages()[name], tensor) and tensor.dtype == epochs[0][name].dtype


def test_through_a_checkpoint_file(tmp_path: object) -> None:
    epochs = _epochs(3, torch.float16)
    average = WeightAverage(1)
    average.update(1, epochs[0])
    average.update(2, epochs[1])
    store = CheckpointStore(str(tmp_path))
    store.write("t", "last", Checkpoint({f"average/{k}": v for k, v in average.tensors().items()}))
    read = store.read("t", "last")
    assert read is not None
    again = WeightAverage(1)
    again.restore(read.part("average"), like=epochs[0])
    for one in (average, again):
        one.update(3, epochs[2])
    for name, tensor in average.averages().items():
        assert torch.equal(again.averages()[name], tensor)
    assert again.averages()["layer.weight"].dtype == torch.float16


def test_from_options() -> None:
    assert WeightAverage.of(TrainOptions()) is None
    average = WeightAverage.of(TrainOptions(average_first=2, average_last=5))
    assert average is not None and (average.first, average.last) == (2, 5)
    assert WeightAverage.of(TrainOptions(average_first=2)).last is None  # type: ignore[union-attr]
