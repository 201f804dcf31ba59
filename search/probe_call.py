"""The part of a probe that talks to a cluster: run as `python -m search.probe_call ADDRESS SECONDS`, JSON on stdout.

It asks the cluster's control service by gRPC and nothing else: no Ray is started here, nothing is registered there,
every question has a deadline. The first question goes without a token, to learn whether the cluster wants one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from search import autoscaler, ray_access

_SERVICE = "Ray's control service (GCS)"
_WIRE = ("Failed parsing HTTP/2", "frame", "Trying to connect an http1.x server", "Socket closed")
"""Words of gRPC about something that listens, but speaks another protocol."""


class Fault(Exception):
    """Why there is no answer, for the person who gave the address."""


def ask(address: str, seconds: float) -> dict[str, Any]:
    """What the cluster says of itself, as plain values (see `search.probe.ClusterFacts`); raises `Fault`."""
    end = time.monotonic() + seconds
    found = address == "auto" and not os.environ.get("RAY_ADDRESS")  # which may be anywhere
    shown, missing = ray_access.sends_token(found=found), ray_access.token_fault()
    mode = os.environ.get(ray_access.MODE, "")
    os.environ[ray_access.MODE] = "disabled"  # read when ray is imported; the token is shown here by hand
    place = _resolved(address)
    control = _Control(place, end)
    first = control.alive()
    closed = first is None
    if closed:
        _check_token(place, mode, shown, missing)
        control.show_token()
        first = control.alive()
        if first is None:
            raise Fault(
                f"the cluster at {place} refuses the token of {ray_access.token_source()}: it belongs to another "
                f"cluster. Take the head node's: point {ray_access.PATH} to a file that holds it"
            )
    elif mode.lower() == "token":
        raise Fault(
            f"{ray_access.MODE}=token is set here, but the cluster at {place} answers without one: whoever "
            f"reaches its ports can run code in it. Start it with {ray_access.MODE}=token, or unset the variable"
        )
    metadata = json.loads(control.stored(b"cluster", b"CLUSTER_METADATA") or b"{}")
    types = autoscaler.node_types(place)
    return {
        "address": place,
        "ray": metadata.get("ray_version") or getattr(first, "ray_version", ""),
        "python": metadata.get("python_version", ""),
        "token": closed,
        "nodes": _nodes(control.nodes()),
        "types": types,
        "autoscaling": bool(types) or control.autoscales(),
    }


def _resolved(address: str) -> str:
    """`host:port`. "auto" is the cluster that `ray start` has begun on this machine."""
    from ray._private import services

    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "") or _on_this_machine()
    place = services.canonicalize_bootstrap_address(address)
    return place or address


def _on_this_machine() -> str:
    from ray._private import services

    running = sorted(services.find_gcs_addresses())
    latest = services.find_bootstrap_address(None)
    if latest in running or len(running) == 1:
        return str(latest if latest in running else running[0])
    if not running:
        raise Fault(
            "no Ray runs on this machine. Start a cluster (`ray start --head`), give the address of one, or leave "
            "--address out to run on this machine alone"
        )
    raise Fault(f"several Rays run on this machine ({', '.join(running)}); say which: --address HOST:PORT")


def _check_token(place: str, mode: str, shown: bool, missing: str) -> None:
    """Raise `Fault` when there is no token to show to a cluster that asks for one."""
    wants = f"the cluster at {place} asks for a token"
    how = (
        f"put the head node's token into a file of mode 600, set {ray_access.PATH} to it and {ray_access.MODE}=token "
        "(see docs/security.md)"
    )
    if not shown:
        state = f"is '{mode}'" if mode else "is not set"
        raise Fault(f"{wants}, and none is shown because {ray_access.MODE} {state} here: {how}")
    if missing:
        raise Fault(f"{wants}, and there is none here: {missing}; {how}")


class _Control:
    """Questions to a cluster's control service, all of them answered by the `end` (time.monotonic)."""

    def __init__(self, place: str, end: float) -> None:
        from ray._private.grpc_utils import init_grpc_channel
        from ray.core.generated import gcs_service_pb2

        self._place, self._end = place, end
        self._messages: Any = gcs_service_pb2
        self._channel = init_grpc_channel(place, options=[("grpc.enable_http_proxy", 0)])
        self._headers: tuple[tuple[str, str], ...] = ()

    def show_token(self) -> None:
        import ray._raylet

        raylet: Any = ray._raylet
        headers = raylet.AuthenticationTokenLoader.instance().get_token_for_http_header(ignore_auth_mode=True)
        self._headers = tuple((name.lower(), value) for name, value in headers.items())

    def alive(self) -> Any:
        """What the service says of itself; None when the token is missing or wrong."""
        try:
            return self._call("NodeInfo", "CheckAlive", self._messages.CheckAliveRequest())
        except PermissionError:
            return None

    def nodes(self) -> Any:
        return self._call("NodeInfo", "GetAllNodeInfo", self._messages.GetAllNodeInfoRequest()).node_info_list

    def stored(self, namespace: bytes, key: bytes) -> bytes:
        """A value of the cluster's table; b"" when there is none."""
        message = self._messages.InternalKVGetRequest(namespace=namespace, key=key)
        return bytes(self._call("InternalKV", "InternalKVGet", message).value)

    def autoscales(self) -> bool:
        """Whether an autoscaler has reported to the cluster."""
        import grpc
        from ray.core.generated import autoscaler_pb2, autoscaler_pb2_grpc

        messages: Any = autoscaler_pb2
        stub: Any = autoscaler_pb2_grpc.AutoscalerStateServiceStub(self._channel)
        try:
            reply = stub.GetClusterStatus(messages.GetClusterStatusRequest(), timeout=5, metadata=self._headers)
        except grpc.RpcError:
            return False
        return bool(reply.autoscaling_state.autoscaler_state_version > 0)

    def _call(self, service: str, method: str, message: Any) -> Any:
        import grpc
        from ray.core.generated import gcs_service_pb2_grpc

        stub = getattr(gcs_service_pb2_grpc, f"{service}GcsServiceStub")(self._channel)
        seconds = max(0.1, self._end - time.monotonic())
        try:
            return getattr(stub, method)(message, timeout=seconds, metadata=self._headers)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise PermissionError from None
            raise self._fault(error.code().name, error.details() or "") from None

    def _fault(self, code: str, details: str) -> Fault:
        if code == "DEADLINE_EXCEEDED":
            return Fault(
                f"{self._place} does not answer: a firewall may swallow the packets, or what listens there is no Ray"
            )
        if code == "UNIMPLEMENTED" or (code == "UNAVAILABLE" and any(word in details for word in _WIRE)):
            return Fault(
                f"what listens at {self._place} is not {_SERVICE}; its port is 6379 unless `ray start` was told "
                "another (the dashboard's is 8265, Ray Client's 10001)"
            )
        if "resolving" in details or "resolution" in details:
            return Fault(f"the host of {self._place} is not known here")
        if code == "UNAVAILABLE":
            reason = "Connection refused" if "Connection refused" in details else details[-160:]
            return Fault(
                f"nothing listens at {self._place} ({reason}). Start a cluster (`ray start --head`), or leave "
                "--address out to run on this machine"
            )
        return Fault(f"{self._place} answers with an error: {code} {details[:200]}")


def _nodes(found: Any) -> list[dict[str, Any]]:
    """Living nodes; `here`: on this machine, found as `ray.init` finds the one it connects to."""
    from ray._private import services

    here = services.find_node_ids()
    return [
        {
            "id": node.node_id.hex(),
            "address": node.node_manager_address,
            "head": bool(node.is_head_node),
            "here": node.node_id.hex() in here,
            "resources": dict(node.resources_total),
        }
        for node in found
        if node.state == 0
    ]


def main() -> None:
    address, seconds = sys.argv[1], float(sys.argv[2])
    try:
        answer: dict[str, Any] = {"facts": ask(address, seconds)}
    except Fault as fault:
        answer = {"fault": str(fault)}
    except Exception as error:  # of Ray's and gRPC's own checks
        lines = str(error).strip().splitlines()
        answer = {"fault": lines[0][:300] if lines else type(error).__name__}
    print(json.dumps(answer), flush=True)
    os._exit(0)  # gRPC's threads may wait for a connection that never comes


if __name__ == "__main__":
    main()
