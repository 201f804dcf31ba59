"""Ray and the worker groups: asked for first, so that they come up while the driver still reads audio.

Starting processes that import torch takes longer than anything else before the first training step, and needs
nothing from the data. Ray itself is started from the calling thread: its processes end with the *thread* that
started them.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import uuid
import warnings
from typing import TYPE_CHECKING, Any

from search.hub import NAMESPACE
from search.resources import GroupPlan

if TYPE_CHECKING:
    from search.groups import Groups


class Workforce:
    """A context in which Ray and all groups of a search are up, or coming up.

    Args:
        ray_args: how to reach or start Ray (`ray.init`).
        plan: how many groups of what size.
        worker: what every worker is told (see `search.groups.Groups`).
        interrupted: set when a person wants the search to end; its end then waits for nobody.
    """

    def __init__(
        self, ray_args: dict[str, Any], plan: GroupPlan, worker: dict[str, Any], interrupted: threading.Event
    ) -> None:
        self._ray_args, self._plan, self._worker, self._interrupted = ray_args, plan, worker, interrupted
        self._scratch = tempfile.mkdtemp(prefix="petl-train-")
        self._groups: Groups | None = None

    def __enter__(self) -> Workforce:
        from search.groups import Groups

        try:
            connect(self._ray_args)
            self._groups = Groups(uuid.uuid4().hex[:8], self._plan, self._worker, self._scratch)
        except BaseException:
            self.release()
            raise
        return self

    @property
    def groups(self) -> Groups:
        """All groups, up or coming up."""
        if self._groups is None:
            raise RuntimeError("the worker groups were released")
        return self._groups

    def release(self) -> None:
        """End the groups and leave Ray; done once, at the latest when the context ends."""
        import ray

        if self._groups is not None:
            self._groups.close(patience=2.0 if self._interrupted.is_set() else 15.0)
            self._groups = None
        if ray.is_initialized():
            ray.shutdown()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        self.release()


def connect(ray_args: dict[str, Any]) -> None:
    """`ray.init`, quiet."""
    import ray

    local = "address" not in ray_args
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            include_dashboard=False if local else None,
            **ray_args,
        )
