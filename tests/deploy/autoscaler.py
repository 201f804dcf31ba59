"""What Ray's own autoscaler (v2) would start for waiting trials, given a cluster file; nothing is started."""

from __future__ import annotations

from typing import Any


def launches(config: dict[str, Any], gpu_workers: int, monitor: Any = None, *, cpus: int = 1) -> dict[str, int]:
    """Nodes per type that the scheduler asks for, from an empty cluster.

    Args:
        config: a complete autoscaler configuration.
        gpu_workers: placement groups of one worker (1 GPU) that wait.
        monitor: what Ray remembers of failed launches (`CloudResourceMonitor`).
        cpus: of a worker.
    """
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil
    from ray.core.generated.autoscaler_pb2 import GangResourceRequest

    whole = AutoscalingConfig(config, skip_content_hash=True)
    waiting = [
        GangResourceRequest(requests=[ResourceRequestUtil.make({"CPU": cpus, "GPU": 1})]) for _ in range(gpu_workers)
    ]
    types = whole.get_node_type_configs()
    types.pop(config["head_node_type"])  # the head is there already
    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=types,
            max_num_nodes=whole.get_max_num_worker_nodes(),
            gang_resource_requests=waiting,
            cloud_resource_availabilities=monitor.get_resource_availabilities() if monitor else {},
            recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities() if monitor else {},
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def failed(node_type: str, *, timed_out: bool) -> Any:
    """Ray's memory after a launch that failed: refused by the provider at once, or started but never joined."""
    from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
    from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

    monitor = CloudResourceMonitor()
    status = Instance.ALLOCATION_TIMEOUT if timed_out else Instance.ALLOCATION_FAILED
    monitor.notify([InstanceUpdateEvent(instance_id="1", instance_type=node_type, new_instance_status=status)])
    return monitor
