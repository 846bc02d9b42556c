"""Calls of every kind, with canaries in every value that must not be reported."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import make_url

from support.failures import PASSWORD, PAYLOAD, run, step
from workflow_store import (
    ClaimLostError,
    InvalidStateError,
    ResumableWorkflowStore,
    RunNotFoundError,
    SqlWorkflowStore,
)

CANARY = "S3CR3T"
"""A part of the payload and of the password."""

METHODS = {
    "create_run", "get_run", "update_context", "delete_run", "upsert_step", "get_step",
    "list_steps", "load_run", "commit_step", "list_runs", "find_waiting_step", "purge_runs",
    "claim_run", "claim_abandoned_runs", "renew_claim", "release_claim",
}  # fmt: skip


def with_password(url: str) -> str:
    """Return a URL with a password, which a server with trust authentication ignores."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" or parsed.password:
        return url
    return parsed.set(password=PASSWORD).render_as_string(hide_password=False)


async def call_everything(store: ResumableWorkflowStore) -> None:
    """Call each method once."""
    await store.create_run(run(context=PAYLOAD, input=[PAYLOAD]))
    await store.get_run("r")
    await store.update_context("r", {PAYLOAD: PAYLOAD})
    await store.upsert_step("r", step(wait_task_id="w"))
    await store.get_step("r", "s")
    await store.list_steps("r")
    await store.load_run("r")
    await store.commit_step("r", step("t"), {PAYLOAD: PAYLOAD})
    await store.list_runs()
    await store.find_waiting_step("w")
    claim = await store.claim_run("r", owner="o")
    assert claim is not None
    await store.release_claim(await store.renew_claim(claim))
    await store.claim_abandoned_runs(owner="o")
    await store.purge_runs(created_before=datetime.now(UTC) - timedelta(days=365))
    await store.delete_run("r")


async def fail_everywhere(store: ResumableWorkflowStore) -> None:
    """Make calls that fail, each in a way of its own."""
    misplaced: Any = {PAYLOAD: PAYLOAD}
    with pytest.raises(InvalidStateError, match=CANARY):  # the path names a key of the payload
        await store.update_context("r", {PAYLOAD: [float("nan")]})
    with pytest.raises(InvalidStateError):
        await store.upsert_step(misplaced, step())
    with pytest.raises(InvalidStateError):
        await store.list_runs(cursor=PAYLOAD)
    with pytest.raises(RunNotFoundError):
        await store.commit_step("gone", step(), PAYLOAD)
    await store.create_run(run("claimed"))
    claim = await store.claim_run("claimed", owner="late")
    assert claim is not None
    await store.release_claim(claim)
    with pytest.raises(ClaimLostError):
        await store.fenced(claim).commit_step("claimed", step(), PAYLOAD)
    with pytest.raises(ClaimLostError):
        await store.renew_claim(claim)


async def all_at_once(*calls: Callable[[], Awaitable[object]]) -> list[object]:
    """Make calls at once; give what each of them gave or raised."""
    return await asyncio.gather(*(_begun(call) for call in calls), return_exceptions=True)


async def _begun(call: Callable[[], Awaitable[object]]) -> object:
    return await call()


def is_observed(store: SqlWorkflowStore) -> bool:
    """Return whether any method is not that of the class."""
    return not METHODS.isdisjoint(vars(store))
