"""The Tune trainable: a thin stand-in that drives one trial on a leased worker group (torch-free).

With `reuse_actors=True` Tune keeps this actor and names a new trial through `reset_config`, so a warm trial
costs a few messages instead of new processes. It needs no CPU and stays on the head node: what happens to the nodes
that train is dealt with by `search.calling`, and Tune never hears of it.
"""

from __future__ import annotations

from typing import Any

from ray import tune
from ray.tune import PlacementGroupFactory

from search.calling import Caller, Ending, Failed, Halted
from search.sealed import reported, told


class TrialProxy(tune.Trainable):
    """`config` is `search.sealed.order(trial, hub=actor name, flat=dotted keys, deadline=…, patience=seconds)`."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> PlacementGroupFactory:
        """The head. `tune.with_resources` would make a class of its own, which cannot be sent by its name."""
        return PlacementGroupFactory([{"node:__internal_head__": 0.0001}])

    def setup(self, config: dict[str, Any]) -> None:
        self._caller = Caller(told(config)["hub"])
        self._caller.begin(config["trial"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        self._caller.begin(new_config["trial"])
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch; returns the worker's report (`search.sealed`), with `done` when it was the last.

        `{"failed": reason}` when the trial is given up, `{"halt": reason}` when the whole search has to wait for
        somebody.
        """
        try:
            command = {name: told(self.config)[name] for name in ("flat", "deadline", "patience")}
            return reported(self._caller.send({"op": "epoch", **command}))
        except Failed as failed:
            return reported({"failed": str(failed), "done": True})
        except (Halted, Ending) as halted:
            return reported({"halt": str(halted), "done": True})

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}  # the workers write the trial's own checkpoints (trainables.checkpoints)

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None

    def cleanup(self) -> None:
        self._caller.release()
