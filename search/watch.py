"""The thread that follows the worker groups while the main thread is inside Tune (torch-free).

Once a second it asks for as many groups as trials can use, and passes on what is new: incidents, groups that are up,
why there will be none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from search.autoscaler import Verdicts
from search.control import Stop
from search.groups import Groups
from search.keeper import bundle
from search.records import SearchRecord
from search.resources import GroupPlan

if TYPE_CHECKING:
    from search.live import View

_log = logging.getLogger(__name__)

_SLOW_START_S = 90.0
_ORDERLY_S = 40.0
"""After a request to end, until Tune has come back: it waits for ever where Ray has gone."""
_VERDICT_S = 15.0  # until an autoscaler has looked at what waits


class GroupWatch:
    """Follows the groups of a search from `start` to `close`.

    Args:
        groups: whom to follow.
        plan: how many of them there may be.
        record: of the search; the device that trains is written into its facts.
        stop: is told when nothing can train any more.
        useful: how many groups have something to do now.
        incident: is called with what went wrong with a trial (see `search.hub.Hub.standing`).
        lost: why the search is no longer this process's, or "".
        view: is told what a person should know.
        give_up: ends this process without waiting for Ray. Whoever asks for an end may ask all processes of the
            machine, or of a job, and Ray's are among them.
    """

    def __init__(
        self,
        groups: Groups,
        plan: GroupPlan,
        record: SearchRecord,
        stop: Stop,
        useful: Callable[[], int],
        incident: Callable[[dict[str, Any]], None],
        lost: Callable[[], str],
        view: View,
        give_up: Callable[[], None],
    ) -> None:
        self._groups, self._plan, self._record, self._stop = groups, plan, record, stop
        self._useful, self._incident, self._lost, self._view = useful, incident, lost, view
        self._give_up = give_up
        self.slots = 0 if plan.grows else plan.groups
        """Groups that train, or are about to."""
        self._heard = 0
        self._told_device = self._told_waiting = False
        self._working = self._placed = time.monotonic()  # when any was last up; when any last had a place
        self._failed_starts: set[str] = set()
        self._verdicts: Verdicts | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name="watch")

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Nobody may be inside Ray when it shuts down."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _follow(self) -> None:
        from ray.exceptions import RayActorError

        while not self._over.is_set():
            interrupted = self._stop.interrupted.wait(1.0)
            try:
                if interrupted:
                    self._view.note("stopping in an orderly way; Ctrl-C once more ends it at once")
                    self._groups.stop_answering()
                    if not self._over.wait(_ORDERLY_S):
                        self._give_up()
                    return
                self._look()
            except RayActorError:
                if interrupted:
                    self._give_up()
                self._stop.dead = self._stop.dead or "the process that keeps the worker groups died"
                return
            except Exception:
                if interrupted:
                    self._give_up()
                    return
                _log.debug("the worker groups gave no answer", exc_info=True)  # busy: ask again

    def _look(self) -> None:
        self._groups.want(self._useful())
        standing = self._groups.standing(self._heard)
        for incident in standing["incidents"]:
            self._heard += 1
            if incident["trial"]:
                self._incident(incident)
            elif incident["reason"] not in self._failed_starts:
                self._failed_starts.add(incident["reason"])
                self._view.note(f"a worker group could not start: {incident['reason']}")
        self._stop.dead = self._stop.dead or self._lost() or standing["dead"]
        self.slots = standing["slots"]
        if standing["facts"]:
            self._tell_device(next(iter(standing["facts"].values())))
            self._working, self._told_waiting = time.monotonic(), False
        elif not self._told_waiting and time.monotonic() - self._working > _SLOW_START_S:
            self._told_waiting = True
            self._view.note(self._waiting_for())
        if self.slots or not self._plan.grows:
            self._placed = time.monotonic()
        elif time.monotonic() - self._placed > _VERDICT_S:
            self._stop.dead = self._stop.dead or self._never_placed()

    def _tell_device(self, facts: dict[str, Any]) -> None:
        if not self._told_device:
            self._told_device = True
            self._view.note(f"{self._plan}; {facts['device']}; {facts['precision']}")
            self._record.info["device"], self._record.info["precision"] = facts["device"], facts["precision"]

    def _waiting_for(self) -> str:
        if self.slots or not self._plan.grows:
            return f"no worker has come up yet; Ray's logs are in {self._groups.logs()}"
        each = f"{self._plan.cpus} CPUs" + (f" and {self._plan.gpus:g} GPU" if self._plan.gpus else "")
        return (
            f"no node has room for a worker ({each}); waiting for one. `ray status` says what the cluster has and what "
            "its autoscaler waits for; Ctrl-C ends the search, and --resume goes on with it"
        )

    def _never_placed(self) -> str:
        """Why no node will ever hold a worker, by the autoscaler's word and by what is there; "" while one may."""
        import ray

        needed = bundle(self._plan)
        self._verdicts = self._verdicts or Verdicts(ray.get_runtime_context().gcs_address)
        fitting = any(
            all(node["Resources"].get(name, 0.0) >= amount for name, amount in needed.items())
            for node in ray.nodes()
            if node["Alive"]
        )
        if fitting or not self._verdicts.hopeless(needed):
            return ""
        each = ", ".join(f"{amount:g} {name}" for name, amount in needed.items())
        return (
            f"no node that the cluster's autoscaler may start can hold a worker ({each}). Ask for less "
            "(--gpus-per-worker, --cpus-per-worker), or add a larger node type"
        )
