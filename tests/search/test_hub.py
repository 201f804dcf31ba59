"""The hub on its own: an ordinary object in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from search.hub import Hub


def _run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 20))


def _command(**more: Any) -> dict[str, Any]:
    return {"op": "epoch", "trial": "t0001", "deadline": 5.0, **more}


def test_a_command_goes_to_the_group_and_its_answer_comes_back() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {"device": "cpu"})
        lease = await hub.acquire("proxy", 1.0)
        assert lease == {"group": "g0", "incarnation": incarnation}
        asked = asyncio.create_task(hub.call("g0", incarnation, _command()))
        command = await hub.next("g0", incarnation, 1, 1.0)
        assert command is not None and command["trial"] == "t0001"
        await hub.answer("g0", incarnation, 1, {"epoch": 1})
        assert await asked == {"epoch": 1}
        assert await hub.facts() == {"g0": {"device": "cpu"}}

    _run(story())


def test_every_worker_of_a_group_gets_every_command_once_and_in_order() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        calls = [asyncio.create_task(hub.call("g0", incarnation, _command(n=n))) for n in range(3)]
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
        assert await hub.acquire("proxy", 1.0)
        asked = asyncio.create_task(hub.call("g0", first, _command()))
        await asyncio.sleep(0)
        second = await hub.hello("g0", {})
        assert "restarted" in (await asked)["lost"]
        await hub.answer("g0", first, 1, {"epoch": 1})
        assert (await hub.next("g0", first, 1, 1.0)) == {"op": "exit"}, "a zombie of the old set is sent away"
        assert "lost" in await hub.call("g0", first, _command())
        assert await hub.acquire("another", 1.0) == {"group": "g0", "incarnation": second}

    _run(story())


def test_a_group_that_refuses_ends_everything_with_its_reason() -> None:
    async def story() -> None:
        hub = Hub()
        first = await hub.hello("g0", {})
        assert await hub.acquire("proxy", 1.0)
        asked = asyncio.create_task(hub.call("g0", first, _command()))
        waiting = asyncio.create_task(hub.acquire("another", 5.0))
        await asyncio.sleep(0)
        assert await hub.dead() == ""
        await hub.refuse("g1", "that cannot be had")
        assert await hub.dead() == "that cannot be had"
        assert await waiting == {"lost": "that cannot be had"}
        assert not asked.done()  # a group that works is not disturbed
        await hub.down("g0", "gone")
        assert await asked == {"lost": "gone"}
        assert await hub.dead() == "that cannot be had"

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
        await hub.acquire("dead", 0.1)
        asyncio.create_task(hub.call("g0", incarnation, _command(trial="t0007")))  # noqa: RUF006
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
        asked = asyncio.create_task(hub.call("g0", incarnation, _command(deadline=-14.8)))
        assert await hub.next("g0", incarnation, 1, 1.0)
        assert "gave no answer" in (await asked)["lost"]
        assert await hub.acquire("next", 0.1) is None
        await hub.hello("g0", {})
        assert await hub.acquire("next", 0.1) is not None, "a new set of workers is as good as any"

    _run(story())


def test_a_command_no_worker_has_begun_does_not_condemn_the_group() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        assert "gave no answer" in (await hub.call("g0", incarnation, _command(deadline=-14.9)))["lost"]
        assert await hub.acquire("next", 0.1) is not None

    _run(story())


def test_an_error_of_one_of_several_workers_takes_the_group_out_until_it_is_back() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {"workers": 2})
        asked = asyncio.create_task(hub.call("g0", incarnation, _command()))
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
        assert await hub.dead() == ""
        await hub.down("g1", "no such module")
        assert await hub.dead() == "no such module"
        assert await hub.acquire("proxy", 5.0) == {"lost": "no such module"}

    _run(story())


def test_closing_sends_workers_home_and_lets_waiters_go() -> None:
    async def story() -> None:
        hub = Hub()
        incarnation = await hub.hello("g0", {})
        asked = asyncio.create_task(hub.call("g0", incarnation, _command()))
        pulling = asyncio.create_task(hub.next("g0", incarnation, 2, 30.0))
        await asyncio.sleep(0)
        await hub.close()
        assert "ending" in (await asked)["lost"]
        assert await pulling == {"op": "exit"}
        assert await hub.acquire("late", 1.0) == {"lost": "the search is ending"}

    _run(story())
