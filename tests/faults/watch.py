"""Which nodes a cluster has, looked at several times a second by a process of its own.

Run as a module it prints one line of JSON per look; `NodeWatch` starts that and keeps what it says. Ray's token and
address are settings of a whole process, so the tests' own process stays out of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.machine import ROOT


@dataclass(frozen=True)
class Sample:
    """The nodes alive at one moment; `seconds` since the watch began. `error`: the head gave no answer."""

    seconds: float
    head: bool = False
    workers: tuple[str, ...] = ()  # their names
    error: str = ""
    ids: Mapping[str, str] = field(default_factory=dict, compare=False)  # Ray's node id by name


class NodeWatch:
    """Looks until `close()`. `history` holds the samples at which something changed, oldest first."""

    def __init__(self, address: str, environment: Mapping[str, str], period: float = 0.2) -> None:
        self.history: list[Sample] = []
        self._latest: Sample | None = None
        self._began = time.monotonic()
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.watch", address, str(period)],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True, name="node-watch")
        self._reader.start()

    def now(self) -> float:
        """Seconds since the watch began."""
        return time.monotonic() - self._began

    def latest(self) -> Sample | None:
        with self._changed:
            return self._latest

    def wait(self, what: Callable[[Sample], bool], seconds: float, asked: str) -> Sample:
        """The first sample from now on of which `what` is true.

        Raises:
            TimeoutError: none came within `seconds`; says what was asked for and what was seen last.
        """
        begin = self.now()
        with self._changed:
            while True:
                sample = self._latest
                if sample is not None and sample.seconds >= begin and what(sample):
                    return sample
                left = begin + seconds - self.now()
                if left <= 0 or not self._reader.is_alive():
                    raise TimeoutError(f"{asked} not seen within {seconds:g} s; the last look: {sample}")
                self._changed.wait(min(left, 1.0))

    def counts(self) -> list[tuple[float, int]]:
        """(seconds, worker nodes alive) at every change of the number, a head without an answer left out."""
        found: list[tuple[float, int]] = []
        with self._changed:
            for sample in self.history:
                if not sample.error and (not found or found[-1][1] != len(sample.workers)):
                    found.append((sample.seconds, len(sample.workers)))
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        if self._process.stdout is None:
            return
        for line in self._process.stdout:
            seen = json.loads(line)
            names = tuple(sorted(seen["workers"]))
            sample = Sample(self.now(), seen["head"], names, seen["error"], {**seen["workers"]})
            with self._changed:
                last = self.history[-1] if self.history else None
                same = last and (last.head, last.workers, last.error) == (sample.head, sample.workers, sample.error)
                if not same:
                    self.history.append(sample)
                self._latest = sample
                self._changed.notify_all()


def _look(client: Any) -> dict[str, Any]:
    from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]

    try:
        infos = client.get_all_node_info(timeout=2, state_filter=GcsNodeInfo.GcsNodeState.ALIVE).values()
    except Exception as error:
        return {"head": False, "workers": {}, "error": type(error).__name__}
    workers = {i.node_name: i.node_id.hex() for i in infos if not i.is_head_node}
    return {"head": any(i.is_head_node for i in infos), "workers": workers, "error": ""}


def _main(address: str, period: float) -> None:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    client = None
    while True:
        try:
            client = client or GcsClient(address=address)
            seen = _look(client)
        except Exception as error:  # nobody listens there yet
            seen = {"head": False, "workers": {}, "error": type(error).__name__}
        print(json.dumps(seen), flush=True)
        time.sleep(period)


if __name__ == "__main__":
    _main(sys.argv[1], float(sys.argv[2]))
