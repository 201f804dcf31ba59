"""What searches still hold of a cluster: placement groups, actors, resources. Asked by a short driver on the head."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.faults.cluster import MiniCluster

_ASK = """
import json, sys, time
import ray
from ray._private.state import actors
from ray.util import placement_group_table
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
def look():
    groups = [f"placement group {g['placement_group_id'][:8]} {g['state']} {list(g['bundles'].values())}"
              for g in placement_group_table().values() if g["state"] != "REMOVED"]
    alive = [f"actor {a['ActorClassName']} {a['Name']} {a['State']}" for a in actors().values()
             if a["State"] != "DEAD"]
    total, free = ray.cluster_resources(), ray.available_resources()
    used = [f"{name}: {total[name] - free.get(name, 0):g} of {total[name]:g} in use" for name in total
            if not name.startswith(("memory", "object_store_memory")) and free.get(name, 0) != total[name]]
    return groups + alive + used
limit = time.monotonic() + float(sys.argv[2])
while (found := look()) and time.monotonic() < limit:
    time.sleep(0.2)
print("> " + json.dumps(found), flush=True)
"""


def held(cluster: MiniCluster, seconds: float = 5.0) -> list[str]:
    """One line for each thing that somebody has, `seconds` after the question at the latest; empty: all is free.

    Raises:
        RuntimeError: the cluster gave no answer.
    """
    answer = subprocess.run(
        [sys.executable, "-c", _ASK, cluster.address, str(seconds)],
        env=cluster.environment(),
        capture_output=True,
        text=True,
        timeout=120 + seconds,
        check=False,
    )
    for line in answer.stdout.splitlines():
        if line.startswith("> "):
            found: list[str] = json.loads(line.removeprefix("> "))
            return found
    raise RuntimeError(f"the cluster gave no answer:\n{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}")
