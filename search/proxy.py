"""The Tune trainable: a thin stand-in that drives one trial on a leased worker group (torch-free).

With `reuse_actors=True` Tune keeps this actor and names a new trial through `reset_config`, so a warm trial
costs a few messages instead of new processes.
"""

from __future__ import annotations

import uuid
from typing import Any

import ray
from ray import tune

from search.hub import NAMESPACE

_PATIENCE_S = 30.0  # between two looks for a free group
_START_S = 1800.0  # for a first group to come up: a cloud node may have to boot


class GroupLost(RuntimeError):
    """The workers died under the trial; Tune tries it again from its last checkpoint."""


class TrialProxy(tune.Trainable):
    """`config` is {"trial": id, "hub": actor name, "flat": dotted keys, "deadline": seconds per epoch}."""

    def setup(self, config: dict[str, Any]) -> None:
        self._owner = uuid.uuid4().hex
        self._hub: Any = ray.get_actor(config["hub"], namespace=NAMESPACE)
        self._lease: tuple[str, int] | None = None
        self._fresh = True

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        self._fresh = True
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch; returns the worker's report, with `done` when it was the last.

        The first command of a proxy for a trial is `fresh`: when the trial has a checkpoint, the report of that
        epoch comes back instead, for it may have been lost on its way to the driver.
        """
        if self._lease is None:
            self._lease = self._acquire()
        command = {
            "op": "epoch",
            "trial": self.config["trial"],
            "flat": self.config["flat"],
            "fresh": self._fresh,
            "deadline": self.config["deadline"],
        }
        answer: dict[str, Any] = ray.get(self._hub.call.remote(*self._lease, command))
        if "lost" in answer:
            self._lease = None
            raise GroupLost(f"{self.config['trial']}: {answer['lost']}")
        if "error" in answer:
            raise RuntimeError(f"{self.config['trial']} failed in its worker:\n{answer['error']}")
        self._fresh = False
        return answer

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}  # the workers write the trial's own checkpoints (trainables.checkpoints)

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None

    def cleanup(self) -> None:
        ray.get(self._hub.release.remote(self._owner), timeout=10)

    def _acquire(self) -> tuple[str, int]:
        waited = 0.0
        while waited < _START_S:
            lease: dict[str, Any] | None = ray.get(self._hub.acquire.remote(self._owner, _PATIENCE_S))
            if lease is not None and "lost" in lease:
                raise GroupLost(f"{self.config['trial']}: {lease['lost']}")
            if lease is not None:
                return lease["group"], lease["incarnation"]
            waited += _PATIENCE_S
        raise GroupLost(f"{self.config['trial']}: no worker group came up within {_START_S / 60:.0f} minutes")
