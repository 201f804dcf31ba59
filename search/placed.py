"""Ray Train runs in placement groups that were there before them (imports Ray Train: for the hub's process only).

Ray Train asks for its workers' resources when a run begins, by a process per run that waits for them. A search that
waits for a cluster to grow would keep a process for every group that has no place yet, and could not take a request
back without ending it. So the placement groups are made first (`search.keeper`): a pending one is what the
autoscaler sees, costs nothing, and can be withdrawn; the run starts when its place is granted.

Of the actors that Ray Train starts beside a run's workers only the one stays that its workers are told of. Each is a
process, and one on a worker node keeps that node from idling, so that it is paid for without anybody training there.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.util.placement_group import get_placement_group


class _PlacedGroup(WorkerGroup):
    def _create_placement_group(self, scaling_config: Any, worker_group_context: Any) -> DefaultPlacementGroupHandle:
        return DefaultPlacementGroupHandle(get_placement_group(self._train_run_context.run_config.name))

    def _start(self) -> None:
        try:
            super()._start()
        except Exception:
            self.end()
            raise

    def end(self) -> None:
        """End the actors of a run that Ray Train leaves to the end of its controller's process, which lives on here."""
        if self._worker_group_state is not None:
            self._worker_group_state.shutdown()


class _PlacedController(TrainController):
    worker_group_cls = _PlacedGroup


class _NoRequests(FixedScalingPolicy):
    """Asks the autoscaler for nothing: a run begins when its place is there.

    Ray Train would ask a second time for what its placement group has asked for, through a detached actor of the
    whole cluster; of a run that was killed, for three minutes more.
    """

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass


class PlacedTrainer(TorchTrainer):
    """A `TorchTrainer` whose workers go into the placement group that has the name of the run."""

    def _create_default_callbacks(self) -> list[Any]:
        """Without actors that nobody has a use for.

        One, detached, removes a run's placement group should its controller be killed. The placement group is the
        hub's, and goes with it. The actor would stay: it ends itself from a thread, which an actor of Ray cannot do,
        and 115 MB of every killed search would stay on the head. The other one, as large, deals out Ray Data's
        datasets.
        """
        usual = super()._create_default_callbacks()  # type: ignore[misc]
        return [c for c in usual if not isinstance(c, PlacementGroupCleanerCallback | DatasetsCallback)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        """Run the controller in the calling thread, not in an actor of its own.

        The hub's process has all that a controller needs in memory; as an actor, each would hold 360 MB of the head.
        Nothing is lost with the hub that would have outlived it.
        """
        policy = _NoRequests(scaling_config=arguments["scaling_policy"].scaling_config)
        controller = _PlacedController(**{**arguments, "scaling_policy": policy})
        try:
            asyncio.run(controller.run())
            return controller.get_result()
        finally:
            group = controller.get_worker_group()
            if isinstance(group, _PlacedGroup):
                group.end()
