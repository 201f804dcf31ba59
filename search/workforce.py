"""Ray and the worker groups: asked for first, so that they come up while the driver still reads audio.

Starting processes that import torch takes longer than anything else before the first training step, and needs
nothing from the data. Ray itself is started from the calling thread: its processes end with the *thread* that
started them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
import warnings
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from search.hub import NAMESPACE
from search.ray_access import cluster_token, local_token
from search.resources import GroupPlan
from search.scratch import Scratch
from search.signals import kept

if TYPE_CHECKING:
    from search.groups import Groups


class Workforce:
    """A context in which Ray and all groups of a search are up, or coming up.

    Args:
        ray_args: how to reach or start Ray (`ray.init`).
        token: whether the cluster at the address asks for a token. A Ray that is started here always does.
        plan: how many groups of what size; those of a machine of one's own are asked for at once.
        worker: what every worker is told (see `search.groups.Groups`).
        interrupted: set when a person wants the search to end; its end then waits for nobody.
    """

    def __init__(
        self,
        ray_args: dict[str, Any],
        token: bool,
        plan: GroupPlan,
        worker: dict[str, Any],
        interrupted: threading.Event,
    ) -> None:
        self._ray_args, self._token, self._plan, self._worker = ray_args, token, plan, worker
        self._interrupted = interrupted
        self.scratch = Scratch()
        self._groups: Groups | None = None
        self._access = ExitStack()

    def __enter__(self) -> Workforce:
        from search.groups import Groups

        try:
            local = "address" not in self._ray_args
            self._access.enter_context(local_token(self.scratch.folder) if local else cluster_token(self._token))
            connect({**self._ray_args, **({"_temp_dir": str(self.scratch.ray)} if local else {})})
            folder = str(self.scratch.folder / "train")
            self._groups = Groups(uuid.uuid4().hex[:8], self._plan, self._worker, folder)
            self._groups.want(self._plan.groups if not self._plan.grows else 1)
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
        self._access.close()
        self.scratch.remove()

    def drop(self) -> None:
        """End at once, waiting for nobody: what is left of a search that a person ends by force."""
        groups = self._groups
        if groups is not None:
            with contextlib.suppress(Exception):
                groups.kill()
        self.scratch.remove()

    def __exit__(self, *_: object) -> None:
        self.release()


def connect(ray_args: dict[str, Any]) -> None:
    """`ray.init`, quiet."""
    import ray

    local = "address" not in ray_args
    with kept(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            include_dashboard=False if local else None,
            **ray_args,
        )
