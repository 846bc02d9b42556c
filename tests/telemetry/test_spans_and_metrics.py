"""Spans and metrics of calls and commits."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import sampling

from support.canaries import (
    CANARY,
    METHODS,
    all_at_once,
    call_everything,
    fail_everywhere,
    with_password,
)
from support.failures import locked, refusing, sessions
from support.otel import Listener, attributes_of, id_of, linked, listening, the_only
from support.waiting import until
from workflow_store import (
    ResumableWorkflowStore,
    RunNotFoundError,
    SqlWorkflowStore,
    WorkflowStoreError,
    open_store,
)
from workflow_store.testing import a_run, a_step

# -- calls -----------------------------------------------------------------------------


async def test_each_method_has_a_span_and_is_counted(database_url: str, listener: Listener) -> None:
    """With the words that the semantic conventions have for databases."""
    async with open_store(database_url) as store:
        await call_everything(store)
    system = "sqlite" if "sqlite" in database_url else "postgresql"
    for name in METHODS:
        span = the_only(listener.named(name))
        told = attributes_of(span)
        assert (told["db.system.name"], told["db.operation.name"]) == (system, name)
        assert span.kind is trace.SpanKind.CLIENT
        assert span.status.is_unset
        (point,) = listener.points("db.client.operation.duration", db_operation_name=name)
        assert point.count == 1
        assert point.explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
        assert "error.type" not in {*told, *point.attributes}
    assert {span.name for span in listener.spans} == {
        f"workflow_store.{name}" for name in {*METHODS, "commit"}
    }


async def test_a_span_names_the_run_and_a_metric_does_not(
    sqlite_url: str, listener: Listener
) -> None:
    """Wherever the call has it: as an id, inside a run, inside a claim, by position or name."""
    hostile = "\x1b[31m\u202e"
    async with open_store(sqlite_url) as store:
        await store.create_run(a_run(hostile))
        await store.get_run(run_task_id=hostile)
        claim = await store.claim_run(hostile, owner="o")
        assert claim is not None
        await store.renew_claim(claim)
        await store.list_runs()
    ids = {
        span.name: attributes_of(span).get("workflow_store.run_task_id") for span in listener.spans
    }
    assert ids == {
        "workflow_store.create_run": hostile,
        "workflow_store.get_run": hostile,
        "workflow_store.claim_run": hostile,
        "workflow_store.renew_claim": hostile,
        "workflow_store.list_runs": None,
        "workflow_store.commit": None,
    }
    for point in listener.points("db.client.operation.duration"):
        assert "workflow_store.run_task_id" not in point.attributes


async def test_a_call_that_fails_tells_the_type_of_its_error_and_no_more(
    database_url: str, listener: Listener
) -> None:
    """The message may quote a key from inside a payload."""
    async with open_store(database_url) as store:
        with pytest.raises(RunNotFoundError):
            await store.upsert_step("gone", a_step())
    span = the_only(listener.named("upsert_step"))
    assert attributes_of(span)["error.type"] == "RunNotFoundError"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.status.description is None
    assert span.events == ()
    (point,) = listener.points("db.client.operation.duration", error_type="RunNotFoundError")
    assert (point.count, point.attributes["db.operation.name"]) == (1, "upsert_step")


async def test_no_payload_and_no_password_is_told(database_url: str, listener: Listener) -> None:
    """By no span and no metric, whether the call succeeds or fails, alone or in company."""
    async with open_store(with_password(database_url)) as store:
        assert isinstance(store, SqlWorkflowStore)
        await call_everything(store)
        await fail_everywhere(store)
        async with refusing(database_url):
            outcomes = await all_at_once(
                lambda: store.upsert_step("claimed", a_step("refused", result=CANARY)),
                lambda: store.upsert_step("claimed", a_step("taken", result=CANARY)),
            )
        assert [type(outcome) for outcome in outcomes] == [WorkflowStoreError, type(None)]
        async with store.engine.begin() as connection:
            await store.bind(connection).create_run(a_run(input=CANARY))
        told = listener.all_that_was_told()
    assert "ClaimLostError" in told
    assert CANARY not in told


async def test_a_cancelled_call_is_told_as_such(postgres_url: str, listener: Listener) -> None:
    """The write that it had begun continues, and ends with a commit of its own."""
    async with open_store(postgres_url) as store:
        await store.create_run(a_run())
        async with locked(postgres_url):
            writing = asyncio.ensure_future(store.upsert_step("run", a_step()))

            async def waits() -> bool:
                return bool(await sessions(postgres_url, that="wait_event_type = 'Lock'"))

            await until(waits)
            writing.cancel()
            await asyncio.wait([writing])
            assert attributes_of(the_only(listener.named("upsert_step")))["error.type"] == (
                "CancelledError"
            )

        async def written() -> bool:
            return await store.get_step("run", "step") is not None

        await until(written)
    assert [span.status.is_unset for span in listener.named("commit")] == [True, True]


async def test_views_are_observed_like_the_store(database_url: str, listener: Listener) -> None:
    """A fenced one, one made of that, and one inside the caller's transaction."""
    async with open_store(database_url) as store:
        assert isinstance(store, SqlWorkflowStore)
        await store.create_run(a_run())
        claim = await store.claim_run("run", owner="o")
        assert claim is not None
        await store.fenced(claim).upsert_step("run", a_step("1"))
        await store.fenced(claim).fenced(claim).upsert_step("run", a_step("2"))
        async with store.engine.begin() as connection:
            await store.bind(connection).upsert_step("run", a_step("3"))
    (point,) = listener.points("db.client.operation.duration", db_operation_name="upsert_step")
    assert point.count == len(listener.named("upsert_step")) == 3
    assert len(listener.named("commit")) == 3, "what is bound is committed by the caller"


# -- commits ---------------------------------------------------------------------------


async def test_a_write_alone_has_its_commit_in_its_own_trace(
    database_url: str, listener: Listener
) -> None:
    """The caller's own span is the root of both."""
    async with open_store(database_url) as store:
        with listener.tracers.get_tracer("host").start_as_current_span("request") as request:
            await store.create_run(a_run())
            assert trace.get_current_span() is request
    call, commit = the_only(listener.named("create_run")), the_only(listener.named("commit"))
    assert call.parent is not None
    assert call.parent.span_id == request.get_span_context().span_id
    assert commit.parent is not None
    assert commit.parent.span_id == id_of(call)
    assert "db.operation.batch.size" not in attributes_of(commit)


async def test_a_shared_commit_is_linked_with_all_of_its_calls(
    database_url: str, listener: Listener
) -> None:
    """In both directions, so that each call's trace leads to it."""
    async with open_store(database_url) as store:
        await store.create_run(a_run())
        await asyncio.gather(*(store.upsert_step("run", a_step(f"{n}")) for n in range(20)))
    calls = {id_of(span): span for span in listener.named("upsert_step")}
    _, *commits = sorted(listener.named("commit"), key=lambda span: span.start_time or 0)
    assert sum(len(linked(commit)) for commit in commits) == len(calls) == 20
    for commit in commits:
        assert commit.parent is not None
        assert commit.parent.span_id in linked(commit) <= calls.keys()
        for call in linked(commit):
            assert linked(calls[call]) == {id_of(commit)}
    shared = max(commits, key=lambda commit: len(linked(commit)))
    assert attributes_of(shared)["db.operation.batch.size"] == len(linked(shared)) > 1


async def test_commits_are_measured(database_url: str, listener: Listener) -> None:
    """How many, how long, how many writes in each, and how long the first of them waited."""
    async with open_store(database_url) as store:
        await store.create_run(a_run())
        await asyncio.gather(*(store.upsert_step("run", a_step(f"{n}")) for n in range(20)))
        (writes,) = listener.points("workflow_store.commit.writes")
        assert writes.sum == 21
        assert writes.max > 1
        for name in ("workflow_store.commit.duration", "workflow_store.queue.wait_time"):
            (point,) = listener.points(name)
            assert point.count == writes.count == len(listener.named("commit"))
            assert 0 <= point.min <= point.max < 60


async def test_a_commit_that_is_refused_is_told_and_so_are_those_of_its_writes(
    database_url: str, listener: Listener
) -> None:
    """Each is tried alone, in a transaction of its own."""
    async with open_store(database_url) as store:
        await store.create_run(a_run())
        async with refusing(database_url):
            await all_at_once(
                *(lambda n=n: store.upsert_step("run", a_step(n)) for n in ("a", "refused", "b"))
            )
    failed = [
        attributes_of(span).get("db.operation.batch.size", 1)
        for span in listener.named("commit")
        if attributes_of(span).get("error.type") == "WorkflowStoreError"
    ]
    assert failed[-1] == 1
    (point,) = listener.points("workflow_store.commit.duration", error_type="WorkflowStoreError")
    assert point.count == len(failed)


@pytest.mark.parametrize("sampled", [True, False])
async def test_a_commit_is_recorded_where_one_of_its_calls_is(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, sampled: bool
) -> None:
    """A sample of one in a thousand traces holds whole ones, and a metric holds all."""
    listener = Listener(sampling.ParentBased(sampling.ALWAYS_OFF))
    listening(monkeypatch, listener)
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
    parent = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True, trace_flags=flags))

    async def traced(store: ResumableWorkflowStore) -> None:
        with trace.use_span(parent):
            await store.upsert_step("run", a_step("traced"))

    async with open_store(sqlite_url) as store:
        await store.create_run(a_run())
        await asyncio.gather(
            *(store.upsert_step("run", a_step(f"{n}")) for n in range(5)),
            traced(store),
            *(store.upsert_step("run", a_step(f"{n}")) for n in range(5, 10)),
        )
    assert sorted(span.name for span in listener.spans) == (
        ["workflow_store.commit", "workflow_store.upsert_step"] if sampled else []
    )
    (point,) = listener.points("db.client.operation.duration", db_operation_name="upsert_step")
    assert point.count == 11
    listener.close()
