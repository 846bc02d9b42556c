"""Arguments whose types lie: their code never runs, and what they hide is found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Any

import pytest
from pydantic import ValidationError

from workflow_store import (
    InvalidStateError,
    ResumableWorkflowStore,
    TaskStatus,
    WorkflowStepState,
)
from workflow_store.testing import a_run, a_step

LIMIT = datetime(2000, 1, 1, tzinfo=UTC)


class CodeRanError(BaseException):
    """A method of an argument was called."""


def _ran(*_: object, **__: object) -> Any:
    raise CodeRanError


METHODS = (
    "__add__", "__bool__", "__contains__", "__eq__", "__float__", "__format__", "__ge__",
    "__getattribute__", "__getitem__", "__gt__", "__hash__", "__index__", "__int__", "__iter__",
    "__le__", "__len__", "__lt__", "__neg__", "__repr__", "__str__", "encode", "items", "keys",
)  # fmt: skip


def hostile(base: type, *arguments: Any) -> Any:
    """Return an instance of a subclass, each method of which fails the test."""
    return type(base.__name__.title(), (base,), dict.fromkeys(METHODS, _ran))(*arguments)


class Actor:
    """An object that says that it is a string."""

    __class__ = property(lambda _: str)


class BrokenZone(tzinfo):
    """A time zone that implements nothing."""


def _deep(kind: Callable[[Any], Any]) -> Any:
    value: Any = kind(None)
    for _ in range(100_000):
        value = kind(value)
    return value


BAD: dict[str, Any] = {
    "a string that hides NUL": hostile(str, "a\0b"),
    "a string that hides a surrogate": hostile(str, "\ud800"),
    "a list": hostile(list, [1]),
    "a tuple": hostile(tuple, (1,)),
    "a dict": hostile(dict, {"a": 1}),
    "an int": hostile(int, 0),
    "a float": hostile(float, -1.0),
    "an object": hostile(object),
    "an actor": Actor(),
    "deep lists": _deep(lambda value: [value]),
    "deep dicts": _deep(lambda value: {"a": value}),
    "deep tuples": _deep(lambda value: (value,)),
    "an integer of a megabyte": 1 << 8_000_000,
    "a time in a broken zone": datetime(2026, 1, 1, tzinfo=BrokenZone()),  # type: ignore[abstract]
}
"""Values that no argument of a method accepts."""

Call = Callable[[ResumableWorkflowStore, Any], Awaitable[object]]
FILTERS = ("agent_id", "thread_id", "user_id", "workspace_id", "step_status", "created_after",
           "created_before", "limit", "cursor")  # fmt: skip


def _list_runs(name: str) -> Call:
    return lambda store, bad: store.list_runs(**{name: bad})


async def _fenced(store: ResumableWorkflowStore, bad: Any) -> None:
    store.fenced(bad)


CALLS: dict[str, Call] = {
    "create_run": lambda store, bad: store.create_run(bad),
    "create_run, a changed id": lambda store, bad: store.create_run(
        a_run().model_copy(update={"agent_id": bad})
    ),
    "get_run": lambda store, bad: store.get_run(bad),
    "update_context": lambda store, bad: store.update_context(bad, {}),
    "delete_run": lambda store, bad: store.delete_run(bad),
    "upsert_step": lambda store, bad: store.upsert_step("run", bad),
    "upsert_step, the run": lambda store, bad: store.upsert_step(bad, a_step()),
    "upsert_step, a changed status": lambda store, bad: store.upsert_step(
        "run", a_step().model_copy(update={"status": bad})
    ),
    "get_step": lambda store, bad: store.get_step("run", bad),
    "list_steps": lambda store, bad: store.list_steps(bad),
    "load_run": lambda store, bad: store.load_run(bad),
    "commit_step": lambda store, bad: store.commit_step("run", bad, {}),
    "commit_step, the run": lambda store, bad: store.commit_step(bad, a_step(), {}),
    "find_waiting_step": lambda store, bad: store.find_waiting_step(bad),
    "purge_runs": lambda store, bad: store.purge_runs(created_before=bad),
    "purge_runs, only_terminal": lambda store, bad: store.purge_runs(
        created_before=LIMIT, only_terminal=bad
    ),
    "purge_runs, batch_size": lambda store, bad: store.purge_runs(
        created_before=LIMIT, batch_size=bad
    ),
    "claim_run": lambda store, bad: store.claim_run(bad, owner="me"),
    "claim_run, owner": lambda store, bad: store.claim_run("run", owner=bad),
    "claim_run, lease_s": lambda store, bad: store.claim_run("run", owner="me", lease_s=bad),
    "claim_abandoned_runs": lambda store, bad: store.claim_abandoned_runs(owner=bad),
    "claim_abandoned_runs, limit": lambda store, bad: store.claim_abandoned_runs(
        owner="me", limit=bad
    ),
    "renew_claim": lambda store, bad: store.renew_claim(bad),
    "release_claim": lambda store, bad: store.release_claim(bad),
    "fenced": _fenced,
    **{f"list_runs, {name}": _list_runs(name) for name in FILTERS},
}


@pytest.mark.parametrize("call", CALLS)
async def test_a_bad_argument_is_refused_and_its_code_never_runs(
    store: ResumableWorkflowStore, call: str
) -> None:
    await store.create_run(a_run())
    for bad in BAD.values():
        with pytest.raises(InvalidStateError):
            await CALLS[call](store, bad)
    assert await store.list_steps("run") == []


@pytest.mark.parametrize(
    "field", ["run_task_id", "agent_id", "workspace_id", "created_at", "updated_at"]
)
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_field_of_a_run_is_a_validation_error(field: str, bad: str) -> None:
    with pytest.raises(ValidationError):
        a_run(**{"run_task_id": "run", field: BAD[bad]})


@pytest.mark.parametrize("field", ["step_id", "status", "started_at", "wait_task_id"])
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_field_of_a_step_is_a_validation_error(field: str, bad: str) -> None:
    with pytest.raises(ValidationError):
        a_step(**{"step_id": "step", field: BAD[bad]})


@pytest.mark.parametrize("bad", [name for name in BAD if not name.startswith("a string")])
def test_what_is_no_text_is_a_validation_error_as_an_error_and_as_json(bad: str) -> None:
    with pytest.raises(ValidationError):
        a_step(error=BAD[bad])
    with pytest.raises(ValidationError):
        WorkflowStepState.model_validate_json(BAD[bad])


async def test_subclasses_of_json_types_are_stored_as_what_they_extend(
    store: ResumableWorkflowStore,
) -> None:
    """Read by the methods of the type that they extend, whatever their own do."""

    class Key(str):  # a dict calls `__hash__`
        __slots__ = ()
        encode = __str__ = __len__ = _ran

    value = hostile(
        dict,
        {
            Key("key"): hostile(str, "a\0b"),
            "list": hostile(list, [hostile(int, 7), hostile(float, 0.5)]),
            "tuple": hostile(tuple, (hostile(int, 2**70), hostile(str, "\ud800"))),
        },
    )
    plain = {"key": "a\0b", "list": [7, 0.5], "tuple": [2**70, "\ud800"]}
    await store.create_run(a_run(definition=value, input=value, context=value))
    run = await store.get_run("run")
    assert run is not None
    assert [run.definition, run.input, run.context] == [plain] * 3
    await store.upsert_step("run", a_step(result=value, error=hostile(str, "a\0\ud800")))
    step = await store.get_step("run", "step")
    assert step is not None
    assert (step.result, step.error) == (plain, "a\0\ud800")


@pytest.mark.parametrize("name", ["list", "tuple", "dict"])
async def test_an_endless_subclass_does_not_hang(store: ResumableWorkflowStore, name: str) -> None:
    class EndlessList(list[Any]):
        def __iter__(self) -> Any:
            while True:
                yield 1

    class EndlessTuple(tuple[Any, ...]):
        __slots__ = ()
        __iter__ = EndlessList.__iter__

    class EndlessDict(dict[str, Any]):
        __iter__ = items = EndlessList.__iter__

    values = {"list": EndlessList([1]), "tuple": EndlessTuple([1]), "dict": EndlessDict(a=1)}
    await store.create_run(a_run(context=values[name]))
    run = await store.get_run("run")
    assert run is not None
    assert run.context == ({"a": 1} if name == "dict" else [1])


async def test_subclasses_of_str_are_identifiers_and_statuses_by_their_text(
    store: ResumableWorkflowStore,
) -> None:
    class Mine(StrEnum):
        FAILED = "failed"

    await store.create_run(a_run(hostile(str, "one"), agent_id=hostile(str, "two")))
    run = await store.get_run(hostile(str, "one"))
    assert run is not None
    assert (type(run.run_task_id), run.run_task_id, run.agent_id) == (str, "one", "two")
    statuses: list[Any] = [hostile(str, "failed"), Mine.FAILED, TaskStatus.FAILED]
    for status in statuses:
        await store.upsert_step("one", a_step(status=status))
        step = await store.get_step("one", "step")
        assert step is not None
        assert step.status is TaskStatus.FAILED
        page = await store.list_runs(agent_id=hostile(str, "two"), step_status=status)
        assert [run.run_task_id for run in page.runs] == ["one"]
