"""Which number format a trial computes in, and the reason, for the log."""

from __future__ import annotations

import torch

CPU_WIDTH = 256
"""From this model width on AMX processors train faster in bfloat16 than in float32; on narrower ones the casts
cost more than the multiplications save (`benchmarks/cpu_precision.py`)."""


def choose(precision: str, device: torch.device, width: int) -> tuple[torch.dtype, str]:
    """The autocast dtype for `train.precision` on this device and model width, and one sentence saying why."""
    if precision == "float32":
        return torch.float32, "float32: asked for"
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
