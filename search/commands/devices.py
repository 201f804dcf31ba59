"""Where a trained model computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from petl.errors import UserError

if TYPE_CHECKING:
    import torch


def chosen_device(name: str | None) -> torch.device:
    """The device of this name (cpu, cuda, cuda:1, …); None: a GPU if there is one, else the CPU.

    `UserError` for a name that torch does not know and for a device that is not in this machine.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # the last two: torch built without it
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"--device {name}: it cannot be used here ({reason}); allowed: cpu, and cuda or cuda:0, cuda:1, … where "
            "there are GPUs"
        ) from None
    return device
