"""Which number format a trial computes in, and the reason, for the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from petl.errors import ConfigError

if TYPE_CHECKING:
    import torch

CPU_WIDTH = 256
"""From this model width on AMX processors train faster in bfloat16 than in float32; on narrower ones the casts
cost more than the multiplications save (`benchmarks/cpu_precision.py`)."""


def check(precision: str, *, gpu: bool) -> None:
    """Raise `ConfigError` for what cannot be had with, or without, a GPU; torch is not needed to ask."""
    if precision == "float16" and not gpu:
        raise ConfigError(
            "train.precision is 'float16', which needs a CUDA device, and this trial runs on a CPU; "
            "use auto, bfloat16 or float32 (--set train.precision=auto)",
            "train.precision",
        )


def choose(precision: str, device: torch.device, width: int) -> tuple[torch.dtype, str]:
    """The autocast dtype for `train.precision` on this device and model width, and one sentence saying why.

    float16 needs a `scaler`, too. Raises `ConfigError` where it is asked for on a CPU.
    """
    import torch

    check(precision, gpu=device.type == "cuda")
    if precision in ("float32", "float16"):
        return getattr(torch, precision), f"{precision}: asked for"
    if device.type == "cuda":
        capable = torch.cuda.is_bf16_supported(including_emulation=False)
        what = torch.cuda.get_device_name(device)
    else:
        # avx512_bf16 without AMX gains too little to pay for the casts.
        capable = bool(torch.cpu._is_amx_tile_supported())
        what = "this processor, with AMX," if capable else "this processor, without AMX,"
    if precision == "bfloat16":
        return torch.bfloat16, "bfloat16: asked for" + ("" if capable else f", although {what} gains nothing by it")
    if not capable:
        return torch.float32, f"float32: {what} has no fast bfloat16"
    if device.type == "cpu" and width < CPU_WIDTH:
        return torch.float32, f"float32: {what} has bfloat16, but it pays only from width {CPU_WIDTH} on (here {width})"
    return torch.bfloat16, f"bfloat16: {what} computes it natively"


def scaler(dtype: torch.dtype, device: torch.device) -> torch.amp.GradScaler:
    """What keeps float16 gradients from vanishing; for other dtypes one that changes nothing, so that a loop is one.

    In this order: `scaler.scale(loss).backward()`, `scaler.unscale_(optimizer)` before anything looks at the gradients
    (clipping), `scaler.step(optimizer)`, `scaler.update()`. A step whose gradients overflow is left out. Its
    `state_dict()` (plain numbers; empty for other dtypes) belongs into a checkpoint's meta, and goes back with
    `load_state_dict` when it is not empty.
    """
    import torch

    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
