"""Telling an error of the trial from the end of another worker, which shows as one of whoever talks to it.

Torch-free: who started the workers is given what they raised, and need not load torch for it.
"""

from __future__ import annotations

import re

# gloo raises plain RuntimeErrors; they begin with the place in its source.
_GLOO = re.compile(r"\bgloo/.*(connect|closed|reset|timed? ?out|pipe|(read|write) error)", re.IGNORECASE | re.DOTALL)
_MISUSED = "enforce fail"


class PeerLost(RuntimeError):
    """Another worker of the group does not take part any more; which, and why, is known to who started them."""


def is_peer_lost(error: BaseException) -> bool:
    """Whether this error says no more than that another worker, or the way to it, is gone.

    NCCL says so by the same `DistBackendError` by which it says everything; none of that is a trial's own.
    """
    import torch.distributed as dist

    known: BaseException | None = error
    while known is not None:
        if isinstance(known, (dist.DistError, PeerLost)):
            return True
        if type(known) is RuntimeError and _GLOO.search(str(known)) and _MISUSED not in str(known):
            return True
        known = known.__cause__
    return False


def peer_lost(error: BaseException) -> PeerLost:
    """What to raise instead, in one line: a lost node or process, as far as can be told from here."""
    said = " ".join(str(error).split())[:300]
    return PeerLost(f"a worker of this group, or the node it ran on, was lost ({said})")
