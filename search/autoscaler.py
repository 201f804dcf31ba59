"""What is known of a cluster's autoscaler: what it may start, and what it says it never can (torch-free).

Ray's open autoscaler tells the cluster nothing of its node types. Where it runs on this machine (`ray up` puts it on
the head, where drivers are, too) its configuration is a file that its process names. KubeRay keeps it in another
container: there only what the autoscaler says of requests is known.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

_OPTION = "--autoscaling-config="


def node_types(place: str) -> list[dict[str, Any]]:
    """Name, resources, least and most of every node type but the head's; [] where they cannot be known from here.

    Args:
        place: host:port of the cluster's control service.
    """
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError, ValueError, KeyError, TypeError, AttributeError):
            words = process.cmdline()
            if f"--gcs-address={place}" in words:
                files = [word.removeprefix(_OPTION) for word in words if word.startswith(_OPTION)]
                if files:
                    return _read(Path(files[0]).expanduser())
    return []


def _read(file: Path) -> list[dict[str, Any]]:
    import yaml

    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    limit = config.get("max_workers")
    found = []
    for name, kind in config["available_node_types"].items():
        if name == config.get("head_node_type"):
            continue
        most = [n for n in (kind.get("max_workers"), limit) if n is not None]
        resources = {key: float(amount) for key, amount in (kind.get("resources") or {}).items()}
        found.append(
            {
                "name": name,
                "resources": resources,
                "least": int(kind.get("min_workers") or 0),
                "most": min(most) if most else None,
            }
        )
    return found


class Verdicts:
    """What the autoscaler of the cluster that this process is connected to says of requests that wait."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._client: Any = None

    def hopeless(self, bundle: dict[str, float]) -> bool:
        """Whether it says that a placement group of such bundles fits on no node that it may ever start."""
        import ray
        from ray.core.generated import autoscaler_pb2

        raylet, messages = vars(ray)["_raylet"], vars(autoscaler_pb2)
        self._client = self._client or raylet.GcsClient(self._place)
        reply = messages["GetClusterStatusReply"].FromString(self._client.get_cluster_status(timeout_s=5))
        wanted = {name: amount for name, amount in bundle.items() if amount}
        return any(
            _same(dict(request.resources_bundle), wanted)
            for gang in reply.autoscaling_state.infeasible_gang_resource_requests
            for request in gang.requests
        )


def _same(asked: dict[str, float], wanted: dict[str, float]) -> bool:
    return {n: a for n, a in asked.items() if a and ":" not in n and not n.startswith("bundle")} == wanted
