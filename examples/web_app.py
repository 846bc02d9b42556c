"""A web application that shows the runs of a store, and accepts answers to waiting steps.

It opens the store at start-up and closes it at shutdown. If the database is not at the required
revision, it does not start, and its error contains the command that fixes it.

    pip install 'workflow-store[cli]' fastapi uvicorn
    WORKFLOW_STORE_URL=sqlite:///runs.db uvicorn --factory --app-dir examples web_app:make_app

| request | answer |
|---|---|
| `GET /runs?agent_id=…&limit=…&cursor=…` | a page of runs, newest first, and `next_cursor` |
| `GET /run?id=…`, `GET /run/steps?id=…` | a run; its steps |
| `GET /run/page?id=…` | the run as an HTML page |
| `POST /answer?to=…` | completes the step that waits under this id; the body is its result |

Ids are parameters and not parts of the path, since they may contain slashes and line breaks. The
application has no authentication: everyone who can reach it can read all runs.
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
    """Return the application for a database, by default that of the environment."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_store(url, **options) as store:
            app.state.store = store
            yield

    app = FastAPI(title="Runs", lifespan=lifespan)
    app.include_router(router)
    app.add_exception_handler(RunNotFoundError, not_found)
    app.add_exception_handler(InvalidStateError, rejected)
    app.add_exception_handler(StoreUnavailableError, unavailable)
    return app


def the_store(request: Request) -> ResumableWorkflowStore:
    """Return the store, which all requests share."""
    store: ResumableWorkflowStore = request.app.state.store
    return store


Store = Annotated[ResumableWorkflowStore, Depends(the_store)]
Id = Annotated[str, Query(alias="id")]


class Filters(BaseModel):
    """The filters of `list_runs`, as parameters of a request."""

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
    """Return a response with JSON as the models write it, without loss."""
    return Response(text, media_type="application/json")


@router.get("/runs")
async def list_runs(store: Store, filters: Annotated[Filters, Query()]) -> Response:
    listing = await store.list_runs(**dict(filters))
    runs = ",".join(run.model_dump_json() for run in listing.runs)
    return as_json(f'{{"runs":[{runs}],"next_cursor":{json.dumps(listing.next_cursor)}}}')


@router.get("/run")
async def get_run(store: Store, run_task_id: Id) -> Response:
    run = await store.get_run(run_task_id)
    if run is None:
        raise RunNotFoundError(run_task_id)
    return as_json(run.model_dump_json())


@router.get("/run/steps")
async def list_steps(store: Store, run_task_id: Id) -> Response:
    snapshot = await store.load_run(run_task_id)  # list_steps would return [] for a missing run
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
        return JSONResponse({"detail": "No step waits for this id."}, 404)
    waiting.step.status = TaskStatus.COMPLETED
    waiting.step.result = result
    waiting.step.completed_at = datetime.now(UTC)
    await store.upsert_step(waiting.run_task_id, waiting.step)
    return as_json(waiting.step.model_dump_json())


async def not_found(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 404)


async def rejected(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 422)


async def unavailable(request: Request, error: Exception) -> Response:
    log.error("%s", error)  # names the server, so it is not sent to the client
    # If the answer was stored after all, a repeated request is answered with 404.
    text = "The store is unavailable. The request may have been applied. Try again."
    return JSONResponse({"detail": text}, 503, headers={"Retry-After": "5"})
