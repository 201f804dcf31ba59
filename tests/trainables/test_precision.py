"""What a trial computes in."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from petl.errors import ConfigError
from trainables.precision import CPU_WIDTH, check, choose, scaler

_CPU = torch.device("cpu")


def test_float16_needs_a_gpu() -> None:
    for ask in (lambda: choose("float16", _CPU, 768), lambda: check("float16", gpu=False)):
        with pytest.raises(ConfigError, match=r"train\.precision is 'float16'.*CUDA.*train\.precision=auto") as caught:
            ask()
        assert caught.value.key == "train.precision"
    check("float16", gpu=True)
    for precision in ("auto", "float32", "bfloat16"):
        check(precision, gpu=False)


def test_what_is_asked_for_is_taken() -> None:
    assert choose("float32", _CPU, 768) == (torch.float32, "float32: asked for")
    assert choose("bfloat16", _CPU, 8)[0] == torch.bfloat16
    assert choose("float16", torch.device("cuda", 0), 768) == (torch.float16, "float16: asked for")


def test_narrow_models_stay_in_float32_on_a_cpu() -> None:
    dtype, why = choose("auto", _CPU, CPU_WIDTH - 1)
    assert dtype == torch.float32 and why.startswith("float32: this processor")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_formats_get_a_scaler_that_changes_nothing(dtype: torch.dtype) -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    plain = torch.nn.Parameter(torch.tensor([2.0]))
    scaled_by = scaler(dtype, _CPU)
    one, other = torch.optim.AdamW([weight], lr=0.1), torch.optim.AdamW([plain], lr=0.1)
    for _ in range(3):
        scaled_by.scale((weight**2).sum()).backward()
        scaled_by.unscale_(one)
        scaled_by.step(one)
        scaled_by.update()
        (plain**2).sum().backward()
        other.step()
    assert torch.equal(weight, plain) and scaled_by.state_dict() == {}


def test_float16_gradients_are_scaled_and_overflows_left_out() -> None:
    """GradScaler works on a CPU, too, so that its use can be tried without a GPU."""
    scaled_by = scaler(torch.float16, _CPU)
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaled_by.scale((3 * weight).sum()).backward()
    assert float(weight.grad) == 3 * scaled_by.get_scale() > 3
    scaled_by.unscale_(optimizer)
    assert float(weight.grad) == 3
    scaled_by.step(optimizer)
    scaled_by.update()
    assert weight.item() == pytest.approx(1.7)
    before = scaled_by.get_scale()
    optimizer.zero_grad()
    scaled_by.scale((weight * float("inf")).sum()).backward()
    scaled_by.step(optimizer)
    scaled_by.update()
    assert weight.item() == pytest.approx(1.7) and scaled_by.get_scale() < before
    again = scaler(torch.float16, _CPU)
    again.load_state_dict(scaled_by.state_dict())
    assert again.get_scale() == scaled_by.get_scale()


def test_asking_whether_it_can_be_had_takes_no_torch() -> None:
    code = "import sys, trainables.precision as p; p.check('auto', gpu=False); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
