"""A cluster whose nodes come and go by Ray's autoscaler (v2), on one machine.

with AutoscalingCluster({"worker": {"resources": {"CPU": 1}, "max_workers": 2}}) as cluster:
    ...                                  # whatever waits for resources is the demand
    cluster.wait_for_nodes(2)
    cluster.machines()["w1"].kill()      # a spot machine is taken away
    cluster.capacity(worker=0)           # and there are no others
    cluster.watch.counts()               # [(0.0, 0), (14.2, 1), (14.9, 2), ...]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.faults import machine
from tests.faults.cluster import QUICK_DEATHS, MiniCluster, Node
from tests.faults.machine import PID_FILE, Machine

_SITE_FILE, _CAPACITY_FILE, _HEAD = "site.json", "capacity.json", "head"  # as in tests.faults.provider

_COMMANDS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"),
)


class AutoscalingCluster(MiniCluster):
    """Starts with the head alone.

    Args:
        node_types: by name, what the autoscaler may start: `resources`, `max_workers`, and if wanted `min_workers`
            and `labels`.
        head_cpus: CPUs of the head.
        idle_seconds: how long a node does nothing before it is given back.
        health: settings of Ray on the head for how soon a death is noticed.
        environment: variables for every node and driver.
    """

    def __init__(
        self,
        node_types: Mapping[str, Mapping[str, Any]],
        *,
        head_cpus: float = 0,
        idle_seconds: float = 4.0,
        health: Mapping[str, str] = QUICK_DEATHS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(head_cpus=head_cpus, health=health, environment=environment)
        self._types, self._idle_seconds = {k: dict(v) for k, v in node_types.items()}, idle_seconds

    def machines(self) -> dict[str, Node]:
        """The nodes that the autoscaler has started and that are still there, by name."""
        found = {}
        for path in sorted(self.root.glob(f"w*/{PID_FILE}")):
            pid = path.read_text(encoding="ascii")
            node = Node(self.site, path.parent.name, int(pid or 0))
            if pid and node.pids():
                found[node.name] = node
        return found

    def capacity(self, **most: int) -> None:
        """How many machines of a type there are to be had from now on; those that run go on running."""
        path = self.root / _CAPACITY_FILE
        new = path.with_suffix(".new")
        new.write_text(json.dumps(most), encoding="utf-8")
        new.replace(path)

    def monitor_log(self, characters: int = 4000) -> str:
        """The end of what the autoscaler wrote."""
        logs = sorted(self.root.glob("head/session_2*/logs/monitor*.log"))
        return "\n".join(path.read_text(errors="replace")[-characters:] for path in logs)

    def logs(self, characters: int = 1500) -> str:
        return f"{super().logs(characters)}\n--- autoscaler\n{self.monitor_log(characters)}"

    def _start_head(self) -> Node:
        self.site.save(self.root / _SITE_FILE)
        path = self.root / "autoscaling.json"
        path.write_text(json.dumps(self._config(self.root)), encoding="utf-8")
        environment = {
            **self.health,
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": _HEAD,
            "RAY_NODE_TYPE_NAME": _HEAD,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "AUTOSCALER_METRIC_PORT": str(machine.free_port()),  # else every monitor of the machine wants the same
        }
        options = Machine(self._head_cpus, environment=environment)
        started = machine.start(self.site, "head", options, head=True, options=("--autoscaling-config", str(path)))
        return Node(self.site, "head", started)

    def _config(self, root: Path) -> dict[str, Any]:
        head = {"resources": {"CPU": self._head_cpus}, "node_config": {}, "min_workers": 0, "max_workers": 0}
        types = {name: {"node_config": {}, "min_workers": 0, **options} for name, options in self._types.items()}
        return {
            "cluster_name": root.name,
            "max_workers": sum(options.get("max_workers", 0) for options in types.values()),
            "idle_timeout_minutes": self._idle_seconds / 60,
            "provider": {"type": "external", "module": "tests.faults.provider.Machines", "root": str(root)},
            "auth": {"ssh_user": "nobody"},
            "available_node_types": {_HEAD: head, **types},
            "head_node_type": _HEAD,
            "file_mounts": {},
            **{key: [] for key in _COMMANDS},  # only files for the cluster launcher have use for them
        }
