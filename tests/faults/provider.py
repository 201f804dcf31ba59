"""A cloud on this machine: what the autoscaler's monitor calls to get nodes and to give them back.

Ray's own fake provider starts a node's processes inside of the monitor, all with the monitor's environment and in one
folder, and needs a file that is not in the wheel. This one starts each as `tests.faults.machine` does, so that it
can be killed by itself. The autoscaler loads it as an external provider, in the monitor's process.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.tags import NODE_KIND_HEAD, STATUS_UP_TO_DATE
from ray.autoscaler.tags import TAG_RAY_NODE_KIND as KIND
from ray.autoscaler.tags import TAG_RAY_NODE_NAME as NAME
from ray.autoscaler.tags import TAG_RAY_NODE_STATUS as STATUS
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE as TYPE

from tests.faults import machine, processes
from tests.faults.machine import Machine, Site

HEAD_TYPE = "head"
SITE_FILE, CAPACITY_FILE = "site.json", "capacity.json"
_GOODBYE_S = 8.0


class Machines(NodeProvider):
    """`provider_config["root"]` is the folder of the cluster."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        super().__init__(provider_config, cluster_name)
        self._root = Path(provider_config["root"])
        self._site = Site.load(self._root / SITE_FILE)
        self._lock = threading.RLock()
        head = {KIND: NODE_KIND_HEAD, TYPE: HEAD_TYPE, NAME: HEAD_TYPE, STATUS: STATUS_UP_TO_DATE}
        self._tags: dict[str, dict[str, str]] = {HEAD_TYPE: head}
        self._pids: dict[str, int] = {}
        self._number = 0

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        with self._lock:
            return [n for n, tags in self._tags.items() if tag_filters.items() <= tags.items() and self.is_running(n)]

    def is_running(self, node_id: str) -> bool:
        with self._lock:
            return node_id == HEAD_TYPE or (node_id in self._pids and not machine.ended(self._pids[node_id]))

    def is_terminated(self, node_id: str) -> bool:
        return not self.is_running(node_id)

    def node_tags(self, node_id: str) -> dict[str, str]:
        with self._lock:
            return dict(self._tags[node_id])

    def internal_ip(self, node_id: str) -> str:
        return self._site.address.rpartition(":")[0]

    external_ip = internal_ip

    def create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        for _ in range(count):
            with self._lock:
                self._create(tags, resources, labels)

    def terminate_node(self, node_id: str) -> None:
        """SIGTERM, and after some seconds SIGKILL."""
        processes.send(self._pids[node_id], signal.SIGTERM)
        limit = time.monotonic() + _GOODBYE_S
        while self.is_running(node_id) and time.monotonic() < limit:
            time.sleep(0.05)
        processes.kill(self._site.mark(node_id))

    def _create(self, tags: dict[str, str], resources: dict[str, float], labels: dict[str, str]) -> None:
        kind = tags[TYPE]
        alive = [n for n in self._pids if self._tags[n][TYPE] == kind and self.is_running(n)]
        if len(alive) >= self._capacity(kind):
            raise NodeLaunchException("NoCapacity", f"no more machines of type {kind} than {len(alive)} today", None)
        self._number += 1
        name = f"w{self._number}"
        others = {k: v for k, v in resources.items() if k not in ("CPU", "GPU", "memory", "object_store_memory")}
        environment = {"RAY_CLOUD_INSTANCE_ID": name, "RAY_NODE_TYPE_NAME": kind}
        asked = Machine(resources.get("CPU", 0), resources.get("GPU", 0), others, labels or {}, environment)
        self._pids[name] = machine.start(self._site, name, asked)
        self._tags[name] = {**tags, NAME: name, STATUS: STATUS_UP_TO_DATE}

    def _capacity(self, kind: str) -> float:
        path = self._root / CAPACITY_FILE
        return json.loads(path.read_text(encoding="utf-8")).get(kind, float("inf")) if path.exists() else float("inf")
