"""The registry of attempts that may still take effect."""

from __future__ import annotations

import asyncio

import pytest

from support.waiting import PATIENCE_S, until
from workflow_store import StoreUnavailableError
from workflow_store.sql.dialects import UnknownOutcomeError
from workflow_store.sql.unsettled import Unsettled


class Sessions:
    """Sessions that end when the test says so."""

    def __init__(self) -> None:
        self.ended = False
        self.looked = 0

    async def end(self, _: object) -> bool:
        self.looked += 1
        if self.looked == 1:
            raise ConnectionError
        return self.ended


async def test_the_runs_of_two_cancelled_calls_in_one_batch_wait_for_it() -> None:
    unsettled = Unsettled(Sessions().end)
    batch = asyncio.get_running_loop().create_future()
    unsettled.add(batch, ["a"])
    unsettled.add(batch, ["b"])
    await unsettled.wait(["c"], PATIENCE_S)
    waiting = [asyncio.ensure_future(unsettled.wait([run], PATIENCE_S)) for run in "ab"]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    batch.set_result(None)
    await asyncio.gather(*waiting)
    assert not unsettled.attempts


async def test_an_attempt_on_any_run_stops_all_calls() -> None:
    unsettled = Unsettled(Sessions().end)
    batch = asyncio.get_running_loop().create_future()
    unsettled.add(batch, ["a"])
    unsettled.add(batch, None)
    for runs in (["b"], None):
        with pytest.raises(StoreUnavailableError):
            await unsettled.wait(runs, 0.001)
    batch.set_result(None)
    await unsettled.wait(None, PATIENCE_S)


async def test_a_doubtful_attempt_blocks_its_runs_until_its_session_has_ended() -> None:
    """The database is asked again and again, even if it cannot be reached."""
    sessions = Sessions()
    unsettled = Unsettled(sessions.end)
    over = unsettled.doubt(UnknownOutcomeError("session"), ["a"])
    await until(lambda: sessions.looked > 2)
    blocked = unsettled.blocked(["a", "b"])
    assert [*blocked] == ["a"]
    assert "stopped processes" in str(blocked["a"])
    sessions.ended = True
    await over
    await unsettled.wait(["a"], PATIENCE_S)
    assert unsettled.blocked(["a"]) == {}


async def test_closing_ends_the_search_for_a_session_that_stays() -> None:
    unsettled = Unsettled(Sessions().end)
    doubt = UnknownOutcomeError("session")
    over = unsettled.doubt(doubt, ["a"])
    assert await unsettled.close(0.001) == [(doubt, {"a"})]
    await asyncio.wait([over])
    assert over.cancelled()
