"""Asking a Ray cluster what it is before a driver connects to it: quickly, and with an answer that helps (Ray-free).

`ray.init` waits for minutes where nobody answers or the token is wrong, and may end the process where versions differ.
Here another process asks (`search.probe_call`), and is ended when time is up.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from petl.errors import UserError
from search import ray_access

_ADDRESS = re.compile(r"auto|(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9][^\s:/\[\]]*):\d{1,5}")
_ROOT = str(Path(__file__).parents[1])
_STARTUP = 2.0  # seconds of the time limit that the other process may need to start


@dataclass(frozen=True)
class NodeFacts:
    """A living node. `here`: it runs on this machine."""

    id: str
    address: str
    head: bool
    here: bool
    resources: Mapping[str, float]


@dataclass(frozen=True)
class NodeType:
    """A kind of node that the autoscaler may start, `least` to `most` of it (None: as many as are wanted)."""

    name: str
    resources: Mapping[str, float]
    least: int = 0
    most: int | None = None


@dataclass(frozen=True)
class ClusterFacts:
    """What a cluster says of itself.

    `address` is what to connect to, also where "auto" was asked. `token`: it asks for one, and ours is right (see
    `search.ray_access.cluster_token`). `types` is empty where no autoscaler runs, and
    where it runs out of sight (KubeRay's); `autoscaling` says whether one does. `cautions` are lines to show.
    """

    address: str
    ray: str
    python: str
    token: bool
    nodes: tuple[NodeFacts, ...]
    types: tuple[NodeType, ...] = ()
    autoscaling: bool = False
    cautions: tuple[str, ...] = field(default=())

    def total(self, resource: str) -> float:
        """The sum of a resource ("CPU", "GPU", …) over the living nodes."""
        return sum(node.resources.get(resource, 0.0) for node in self.nodes)

    def largest(self, resource: str) -> float:
        """The most of a resource that one node has, or could have if the autoscaler started it."""
        may_come = (kind.resources for kind in self.types if kind.most != 0)
        return max((r.get(resource, 0.0) for r in (*(node.resources for node in self.nodes), *may_come)), default=0.0)


def probe(address: str, timeout: float = 20.0) -> ClusterFacts:
    """Ask the cluster at `address` (`host:port`, or "auto" for the one on this machine).

    Raises:
        UserError: within `timeout` seconds, when the cluster cannot be used from here. It says which: no such
            address, nothing listens, no answer, something else listens, a token that is missing or wrong or shown to
            a cluster without, another version of Ray or Python, no node on this machine.
    """
    _check_form(address)
    command = [sys.executable, "-m", "search.probe_call", address, str(max(1.0, timeout - _STARTUP))]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "GRPC_VERBOSITY": "NONE"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (_ROOT, os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise _refused(address, f"no answer within {timeout:.0f} s") from None
    answer = _answer(done.stdout)
    if "facts" not in answer:
        last = (done.stderr.strip().splitlines() or [f"the asking process ended with {done.returncode}"])[-1]
        raise _refused(address, answer.get("fault") or last[:300])
    facts = _facts(answer["facts"])
    fault = version_fault(facts) or _place_fault(facts)
    if fault:
        raise _refused(address, fault)
    return facts


def version_fault(facts: ClusterFacts, ray: str = "", python: str = "") -> str:
    """What to say when Ray would not let this driver into the cluster; "" when it would.

    `ray` and `python` are the driver's versions, by default those in use. The patch level of Python counts unless
    `RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL` is "minor".
    """
    ray = ray or version("ray")
    python = python or ".".join(map(str, sys.version_info[:3]))
    minor = os.environ.get("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "patch") == "minor"
    parts = 2 if minor else 3
    if facts.ray and facts.ray != ray:
        return (
            f"the cluster at {facts.address} runs Ray {facts.ray}, this is Ray {ray}; they have to be the same. "
            "Install the project by its own lock on the nodes and here"
        )
    if facts.python and facts.python.split(".")[:parts] != python.split(".")[:parts]:
        return (
            f"the cluster at {facts.address} runs Python {facts.python}, this is Python {python}; "
            + ("the first two numbers have to be the same" if minor else "they have to be the same")
            + ". Start the search with the nodes' Python"
            + ("" if minor else " (RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor makes Ray overlook the last number)")
        )
    return ""


def _place_fault(facts: ClusterFacts) -> str:
    if any(node.here for node in facts.nodes):
        return ""
    return (
        f"this machine is not a node of the cluster at {facts.address}, and a driver has to run on one: start the "
        f"search on the head node (`ray job submit`), or join: ray start --num-cpus=0 --address={facts.address}"
    )


def _check_form(address: str) -> None:
    if address.startswith("ray://"):
        raise _refused(
            address,
            "Ray Client cannot carry a search: its driver has to run on a node of the cluster. Submit it "
            "(`ray job submit`), or run it on a node with --address auto",
        )
    if not _ADDRESS.fullmatch(address):
        raise _refused(
            address,
            "an address is HOST:PORT (6379 unless `ray start` was told another) or 'auto', the cluster on this "
            "machine; without --address the search starts a Ray of its own",
        )


def _answer(output: str) -> dict[str, Any]:
    lines = output.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _facts(values: dict[str, Any]) -> ClusterFacts:
    cautions = []
    if not values["token"]:
        cautions.append(
            f"the cluster at {values['address']} asks for no token: whoever reaches its ports can run code in it "
            f"(start it with {ray_access.MODE}=token, see docs/security.md)"
        )
    elif ray_access.exposed_token():
        cautions.append(ray_access.exposed_token())
    return ClusterFacts(
        address=values["address"],
        ray=values["ray"],
        python=values["python"],
        token=values["token"],
        nodes=tuple(NodeFacts(**node) for node in values["nodes"]),
        types=tuple(NodeType(**kind) for kind in values["types"]),
        autoscaling=values["autoscaling"],
        cautions=tuple(cautions),
    )


def _refused(address: str, why: str) -> UserError:
    return UserError(f"--address {address}: {why}")
