"""Ray Train runs in placement groups that were there before them (imports Ray Train: for the hub's process only).

Ray Train asks for its workers' resources when a run begins, by a process per run that waits for them. A search that
waits for a cluster to grow would keep a process for every group that has no place yet, and could not take a request
back without ending it. So the placement groups are made first (`search.keeper`): a pending one is what the
autoscaler sees, costs nothing, and can be withdrawn; the run starts when its place is granted.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.util.placement_group import get_placement_group


class _PlacedGroup(WorkerGroup):
    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> DefaultPlacementGroupHandle:
        return DefaultPlacementGroupHandle(get_placement_group(self._train_run_context.run_config.name))


class _PlacedController(TrainController):
    worker_group_cls = _PlacedGroup


class PlacedTrainer(TorchTrainer):
    """A `TorchTrainer` whose workers go into the placement group that has the name of the run."""

    def _create_default_callbacks(self) -> list[Any]:
        """Without the detached actor that removes a run's placement group should its controller be killed.

        The placement group is the hub's, and goes with it. The actor would stay: it ends itself from a thread, which
        an actor of Ray cannot do, and 115 MB of every killed search would stay on the head.
        """
        usual = super()._create_default_callbacks()  # type: ignore[misc]
        return [callback for callback in usual if not isinstance(callback, PlacementGroupCleanerCallback)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        settings = {"env_vars": get_env_vars_to_propagate()}
        made: Any = ray.remote(num_cpus=0, label_selector=here, runtime_env=settings)(_PlacedController)
        controller = made.remote(**arguments)
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())
