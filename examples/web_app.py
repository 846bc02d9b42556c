"""A web application that shows the runs of a store, and takes the answers that steps wait for.

It opens the store when it starts and closes it when it ends. Where the database is not at the
revision that is needed, it does not start, and says the command that mends it.

    pip install 'workflow-store[cli]' fastapi uvicorn
    WORKFLOW_STORE_URL=sqlite:///runs.db uvicorn --factory --app-dir examples web_app:make_app

| request | answer |
|---|---|
| `GET /runs?agent_id=…&limit=…&cursor=…` | a page of runs, newest first, and `next_cursor` |
| `GET /run?id=…`, `GET /run/steps?id=…` | a run; its steps |
| `GET /run/page?id=…` | the run as an HTML page |
| `POST /answer?to=…` | completes the step that waits under this id; the result is the body |

An id may hold a slash, or a line break: it is a parameter, and no part of the path. Whoever
can reach the application can read all runs: put your own login before it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Unpack

from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict

from workflow_store import (
    EngineOptions,
    InvalidStateError,
    ResumableWorkflowStore,
    RunNotFoundError,
    StoreUnavailableError,
    TaskStatus,
    open_store,
)
from workflow_store.rendering.html import page

log = logging.getLogger(__name__)
router = APIRouter()


def make_app(url: str | None = None, **options: Unpack[EngineOptions]) -> FastAPI:
    """Make the application for a database, by default the environment's."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_store(url, **options) as store:
            app.state.store = store
            yield

    app = FastAPI(title="Runs", lifespan=lifespan)
    app.include_router(router)
    app.add_exception_handler(RunNotFoundError, not_found)
    app.add_exception_handler(InvalidStateError, refused)
    app.add_exception_handler(StoreUnavailableError, unavailable)
    return app


def the_store(request: Request) -> ResumableWorkflowStore:
    """Give the store that was opened at the start: one for all requests."""
    store: ResumableWorkflowStore = request.app.state.store
    return store


Store = Annotated[ResumableWorkflowStore, Depends(the_store)]
Id = Annotated[str, Query(alias="id")]


class Filters(BaseModel):
    """What `list_runs` takes, as parameters of a request."""

    model_config = ConfigDict(extra="forbid")

    agent_id: str | None = None
    thread_id: str | None = None
    user_id: str | None = None
    workspace_id: str | None = None
    step_status: TaskStatus | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    limit: int = 50
    cursor: str | None = None


def as_json(text: str) -> Response:
    """Send JSON as the store's own models write it, which loses nothing."""
    return Response(text, media_type="application/json")


@router.get("/runs")
async def list_runs(store: Store, filters: Annotated[Filters, Query()]) -> Response:
    found = await store.list_runs(**dict(filters))
    runs = ",".join(run.model_dump_json() for run in found.runs)
    return as_json(f'{{"runs":[{runs}],"next_cursor":{json.dumps(found.next_cursor)}}}')


@router.get("/run")
async def get_run(store: Store, run_task_id: Id) -> Response:
    run = await store.get_run(run_task_id)
    if run is None:
        raise RunNotFoundError(run_task_id)
    return as_json(run.model_dump_json())


@router.get("/run/steps")
async def list_steps(store: Store, run_task_id: Id) -> Response:
    snapshot = await store.load_run(run_task_id)  # tells no run from no steps
    if snapshot is None:
        raise RunNotFoundError(run_task_id)
    return as_json(f"[{','.join(step.model_dump_json() for step in snapshot.steps)}]")


@router.get("/run/page")
async def show_run(store: Store, run_task_id: Id) -> Response:
    snapshot = await store.load_run(run_task_id)
    if snapshot is None:
        raise RunNotFoundError(run_task_id)
    return HTMLResponse(page(snapshot, datetime.now(UTC)))


@router.post("/answer")
async def answer(
    store: Store, wait_task_id: Annotated[str, Query(alias="to")], result: Annotated[Any, Body()]
) -> Response:
    waiting = await store.find_waiting_step(wait_task_id)
    if waiting is None:
        return JSONResponse({"detail": "No step waits for this, or no longer."}, 404)
    waiting.step.status = TaskStatus.COMPLETED
    waiting.step.result = result
    waiting.step.completed_at = datetime.now(UTC)
    await store.upsert_step(waiting.run_task_id, waiting.step)
    return as_json(waiting.step.model_dump_json())


async def not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 404)


async def refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 422)


async def unavailable(request: Request, error: Exception) -> Response:
    log.error("%s", error)  # names the server, which is no business of the client's
    # An answer that was taken all the same finds no step that waits, the next time.
    text = "The store is not available, and what was sent may have been taken. Try again."
    return JSONResponse({"detail": text}, 503, headers={"Retry-After": "5"})
