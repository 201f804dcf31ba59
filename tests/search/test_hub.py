"""The hub on its own: an ordinary object in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from search.group import Group, surplus
from search.hub import Hub


def _run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


OWNER = "proxy"


async def _dead(hub: Hub) -> str:
    return str((await hub.standing())["dead"])


class _Ending(Hub):
    """Remembers which groups were to be ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[Group] = []

    def _end_workers(self, group: Group) -> None:
        self.ended.append(group)


def _command(**more: Any) -> dict[str, Any]:
    return {"op": "epoch", "trial": "t0001", "deadline": 5.0, **more}


def test_a_command_goes_to_the_group_and_its_answer_comes_back() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {"device": "cpu"})
        lease = await hub.acquire(OWNER, 1.0)
        assert lease == {"group": "g0", "incarnation": incarnation}
        asked = asyncio.create_task(hub.call("g0", incarnation, OWNER, _command()))
        command = await hub.next("g0", incarnation, 1, 1.0)
        assert command is not None and command["trial"] == "t0001"
        await hub.answer("g0", incarnation, 1, {"epoch": 1})
        assert await asked == {"epoch": 1}
        assert (await hub.standing())["facts"] == {"g0": {"device": "cpu"}}

    _run(story())


def test_every_worker_of_a_group_gets_every_command_once_and_in_order() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        hub._groups["g0"].lease = OWNER
        calls = [asyncio.create_task(hub.call("g0", incarnation, OWNER, _command(n=n))) for n in range(3)]
        for rank in range(2):
            got = [await hub.next("g0", incarnation, number, 1.0) for number in (1, 2, 3)]
            assert [c["n"] for c in got if c] == [0, 1, 2], rank
        for number in (1, 2, 3):
            await hub.answer("g0", incarnation, number, {"n": number})
        assert [answer["n"] for answer in await asyncio.gather(*calls)] == [1, 2, 3]

    _run(story())


def test_a_restarted_group_loses_what_was_asked_and_ignores_late_answers() -> None:
    async def story() -> None:
        hub = Hub()
        first = await hub.hello("g0", {})
        assert await hub.acquire(OWNER, 1.0)
        asked = asyncio.create_task(hub.call("g0", first, OWNER, _command()))
        await asyncio.sleep(0)
        second = await hub.hello("g0", {})
        assert "restarted" in (await asked)["lost"]
        await hub.answer("g0", first, 1, {"epoch": 1})
        assert (await hub.next("g0", first, 1, 1.0)) == {"op": "exit"}, "a zombie of the old set is sent away"
        assert "lost" in await hub.call("g0", first, OWNER, _command())
        assert await hub.acquire("another", 1.0) == {"group": "g0", "incarnation": second}

    _run(story())


def test_a_group_that_refuses_ends_everything_with_its_reason() -> None:
    async def story() -> None:
        hub = Hub()
        first = await hub.hello("g0", {})
        assert await hub.acquire(OWNER, 1.0)
        asked = asyncio.create_task(hub.call("g0", first, OWNER, _command()))
        waiting = asyncio.create_task(hub.acquire("another", 5.0))
        await asyncio.sleep(0)
        assert await _dead(hub) == ""
        await hub.refuse("g1", "that cannot be had")
        assert await _dead(hub) == "that cannot be had"
        assert await waiting == {"lost": "that cannot be had", "kind": "ending"}
        assert not asked.done()  # a group that works is not disturbed
        await hub.down("g0", "gone")
        assert await asked == {"lost": "gone", "kind": "worker"}
        assert await _dead(hub) == "that cannot be had"

    _run(story())


def test_groups_are_leased_to_one_owner_at_a_time() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.hello("g0", {})
        assert await hub.acquire("a", 0.1)
        assert await hub.acquire("b", 0.1) is None
        waiting = asyncio.create_task(hub.acquire("b", 5.0))
        await asyncio.sleep(0)
        await hub.release("a")
        lease = await waiting
        assert lease is not None and lease["group"] == "g0"

    _run(story())


def test_the_group_of_a_dead_proxy_is_freed_by_its_trial() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        await hub.acquire(OWNER, 0.1)
        asyncio.create_task(hub.call("g0", incarnation, OWNER, _command(trial="t0007")))  # noqa: RUF006
        await asyncio.sleep(0)
        await hub.abandon("t0001")
        assert await hub.acquire("next", 0.1) is None
        await hub.abandon("t0007")
        assert await hub.acquire("next", 0.1) is not None

    _run(story())


def test_a_group_that_does_not_answer_in_time_is_lost_and_not_leased_again() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        hub._groups["g0"].lease = OWNER
        asked = asyncio.create_task(hub.call("g0", incarnation, OWNER, _command(deadline=-19.8)))
        assert await hub.next("g0", incarnation, 1, 1.0)
        assert "gave no answer" in (await asked)["lost"]
        assert await hub.acquire("next", 0.1) is None
        await hub.hello("g0", {})
        assert await hub.acquire("next", 0.1) is not None, "a new set of workers is as good as any"

    _run(story())


def test_the_deadline_of_a_command_that_gets_on_begins_again() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        hub._groups["g0"].lease = OWNER
        for answered in (True, False):
            number = len(hub._groups["g0"].commands) + 1
            asked = asyncio.create_task(hub.call("g0", incarnation, OWNER, _command(deadline=-19.7)))
            assert await hub.next("g0", incarnation, number, 1.0)
            for _ in range(8):
                await asyncio.sleep(0.1)
                await hub.busy("g0", incarnation, number)
                await hub.busy("g0", incarnation - 1, number)
                await hub.busy("g1", incarnation, number)
            assert not asked.done()
            if answered:
                await hub.answer("g0", incarnation, number, {"prepared": True})
                assert await asked == {"prepared": True}
            else:
                began = asyncio.get_running_loop().time()
                assert (await asked)["kind"] == "hung"
                assert asyncio.get_running_loop().time() - began < 1

    _run(story())


def test_a_group_that_is_busy_with_what_a_dead_proxy_wanted_is_not_condemned() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        hub._groups["g0"].lease = OWNER
        asyncio.create_task(hub.call("g0", incarnation, OWNER, _command()))  # noqa: RUF006
        await asyncio.sleep(0)
        assert await hub.next("g0", incarnation, 1, 1.0)
        assert "gave no answer" in (await hub.call("g0", incarnation, OWNER, _command(deadline=-19.9)))["lost"]
        await hub.abandon("t0001")
        assert await hub.acquire("next", 0.1) is not None

    _run(story())


def test_an_error_of_one_of_several_workers_takes_the_group_out_until_it_is_back() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {"workers": 2})
        hub._groups["g0"].lease = OWNER
        asked = asyncio.create_task(hub.call("g0", incarnation, OWNER, _command()))
        await hub.next("g0", incarnation, 1, 1.0)
        await hub.answer("g0", incarnation, 1, {"error": "out of memory"})
        assert await asked == {"error": "out of memory"}
        assert await hub.acquire("retry", 0.1) is None
        await hub.hello("g0", {"workers": 2})
        assert await hub.acquire("retry", 0.1) is not None

    _run(story())


def test_all_leases_can_be_taken_back() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.hello("g0", {})
        await hub.acquire("killed", 0.1)
        await hub.free_all()
        assert await hub.acquire("driver", 0.1) is not None

    _run(story())


def test_when_every_group_is_down_waiting_ends_with_the_reason() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.hello("g0", {})
        await hub.hello("g1", {})
        await hub.down("g0", "no such module")
        assert await _dead(hub) == ""
        await hub.down("g1", "no such module")
        assert await _dead(hub) == "no such module"
        assert await hub.acquire(OWNER, 5.0) == {"lost": "no such module", "kind": "ending"}

    _run(story())


def test_closing_sends_workers_home_and_lets_waiters_go() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        hub._groups["g0"].lease = OWNER
        asked = asyncio.create_task(hub.call("g0", incarnation, OWNER, _command()))
        pulling = asyncio.create_task(hub.next("g0", incarnation, 2, 30.0))
        await asyncio.sleep(0)
        await hub.close()
        assert "ending" in (await asked)["lost"]
        assert await pulling == {"op": "exit"}
        assert await hub.acquire("late", 1.0) == {"lost": "the search is ending", "kind": "ending"}

    _run(story())


def test_workers_that_do_not_even_ask_are_frozen_and_ended() -> None:
    async def story() -> None:
        hub = _Ending()
        await hub.enlist("g0", 0, "handle", "node")
        incarnation = await hub.hello("g0", {})
        hub._groups["g0"].lease = OWNER
        told = await hub.call("g0", incarnation, OWNER, _command(deadline=-19.9))
        assert told["kind"] == "worker", "no fault of the trial"
        assert [group.workers for group in hub.ended] == [{0: "handle"}]
        assert await hub.acquire("next", 0.1) is None

    _run(story())


def test_a_watchdog_tells_where_a_command_hung() -> None:
    async def story() -> None:
        hub = _Ending()
        incarnation = await hub.hello("g0", {})
        hub._groups["g0"].lease = OWNER
        asked = asyncio.create_task(hub.call("g0", incarnation, OWNER, _command(deadline=7.0)))
        await asyncio.sleep(0)
        await hub.next("g0", incarnation, 1, 1.0)
        await hub.hung("g0", incarnation, 1, "in forward")
        answer = await asked
        assert (answer["kind"], answer["stack"]) == ("hung", "in forward") and "7 s" in answer["lost"]
        assert await hub.acquire("next", 0.1) is None, "its workers are about to end themselves"
        await hub.hung("g0", incarnation, 1, "told twice")  # by another rank: nothing happens

    _run(story())


def test_a_lost_node_is_told_as_such() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        hub._groups["g0"].lease = OWNER
        asked = asyncio.create_task(hub.call("g0", incarnation, OWNER, _command()))
        await asyncio.sleep(0)
        await hub.lost("g0", "the node went away", "node")
        assert await asked == {"lost": "the node went away", "kind": "node"}
        standing = await hub.standing()
        assert (standing["slots"], standing["pending"], standing["dead"]) == (0, 1, "")

    _run(story())


def test_groups_whose_node_has_the_features_come_first() -> None:
    async def story() -> None:
        hub = Hub()
        for name, node in (("g0", "cold"), ("g1", "warm"), ("g2", "warm")):
            await hub.enlist(name, 0, None, node)
            await hub.hello(name, {})
        first = {"group": "g2", "incarnation": 1}
        hub._groups["g0"].lease = hub._groups["g1"].lease = "others"
        assert await hub.acquire(OWNER, 0.1) == first
        asked = asyncio.create_task(hub.call("g2", 1, OWNER, _command()))
        await asyncio.sleep(0)
        await hub.answer("g2", 1, 1, {"epoch": 1})
        await asked
        await hub.free_all()
        assert (await hub.acquire("b", 0.1) or {})["group"] == "g1", "g0 would have to build its node's cache"

    _run(story())


def test_those_that_are_let_go_free_whole_nodes() -> None:
    async def story() -> None:
        hub = Hub()
        for name, node in (("g0", "x"), ("g1", "x"), ("g2", "y"), ("g3", "y")):
            await hub.enlist(name, 0, None, node)
            await hub.hello(name, {})
        hub._groups["waiting"] = Group()
        hub._groups["g2"].lease = "a trial"
        groups = hub._groups
        assert surplus(groups, 5) == []
        assert surplus(groups, 4) == ["waiting"], "what has no place yet costs nothing to give up"
        assert surplus(groups, 2) == ["waiting", "g0", "g1"], "the idle one beside a trial would keep its node anyway"
        assert surplus(groups, 0) == ["waiting", "g0", "g1", "g3"], "never one that trains"

    _run(story())


def test_a_retiring_group_is_sent_home_and_gets_no_lease() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        pulling = asyncio.create_task(hub.next("g0", incarnation, 1, 30.0))
        await asyncio.sleep(0)
        async with hub._changed:
            hub._groups["g0"].retiring = True
            hub._changed.notify_all()
        assert await pulling == {"op": "exit"}
        assert await hub.acquire("a", 0.1) is None
        assert (await hub.standing())["slots"] == 0

    _run(story())


def test_incidents_are_told_once() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.incident({"trial": "t0001"})
        assert (await hub.standing(0))["incidents"] == [{"trial": "t0001"}]
        assert (await hub.standing(1))["incidents"] == []

    _run(story())


def test_a_lease_that_nobody_uses_is_given_to_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune keeps a proxy for a later trial, or it died: neither gives back."""
    monkeypatch.setattr("search.hub._IDLE_S", 0.3)

    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        assert await hub.acquire("kept", 0.1)
        assert await hub.acquire("waits", 0.1) is None, "it may send its next command any moment"
        assert (await hub.acquire("waits", 5.0) or {})["group"] == "g0"
        assert (await hub.call("g0", incarnation, "kept", _command()))["kind"] == "lease"
        asked = asyncio.create_task(hub.call("g0", incarnation, "waits", _command()))
        await asyncio.sleep(0.5)
        assert await hub.acquire("third", 0.1) is None, "it works"
        await hub.answer("g0", incarnation, 1, {"epoch": 1})
        assert await asked == {"epoch": 1}

    _run(story())


def test_those_who_waited_when_all_leases_were_taken_back_get_none() -> None:
    async def story() -> None:
        hub = Hub()
        await hub.hello("g0", {})
        assert await hub.acquire("working", 0.1)
        ghost = asyncio.create_task(hub.acquire("killed while it waited", 30.0))
        await asyncio.sleep(0)
        await hub.free_all()
        assert (await ghost or {})["kind"] == "ending"
        assert (await hub.acquire("evaluation", 0.1) or {})["group"] == "g0"

    _run(story())


def test_groups_that_never_came_to_work_are_the_end_even_while_one_waits_for_a_place() -> None:
    async def story() -> None:
        hub = Hub()
        hub._groups["pending"] = Group()
        for number in range(3):
            assert await _dead(hub) == ""
            await hub.down(f"g{number}", "no such module")
        assert await _dead(hub) == "no such module"
        await hub.hello("pending", {})
        assert await _dead(hub) == "", "one came up after all"

    _run(story())
