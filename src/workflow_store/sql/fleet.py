"""The methods that look at many runs, clean them up, and share them among owners."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from datetime import datetime
from typing import Unpack

from sqlalchemy.ext.asyncio import AsyncConnection

from ..pagination import PageRequest, Position, RunFilters
from ..state import TERMINAL
from ..store import ResumableWorkflowStore, RunClaim, RunPage, WaitingStep
from ..validation import (
    MAX_BATCH,
    MAX_LIMIT,
    validated_claim,
    validated_identifier,
    validated_lease,
    validated_number,
    validated_time,
)
from . import rows
from .database import Database
from .methods import StoreMethods
from .queries import claims
from .queries.listing import list_runs
from .queries.purge import Purged, purge_batch

__all__ = ["ResumableMethods"]

_LOG = logging.getLogger(__name__)

_PAUSE_S = 0.01
"""Between two batches of a purge, for the writers that wait."""


class ResumableMethods(StoreMethods, ResumableWorkflowStore):
    """What a `ResumableWorkflowStore` has beyond what concerns one run."""

    @abstractmethod
    def _opened_database(self) -> Database:
        """Give the database.

        Raises:
            StoreClosedError: the store is not open.
        """

    # -- look ---------------------------------------------------------------------------

    async def list_runs(self, **filters: Unpack[RunFilters]) -> RunPage:
        database = self._opened_database()
        listing = PageRequest.validate(**filters)
        return await database.transaction(
            lambda connection: list_runs(connection, listing), "a listing", writes=False
        )

    async def find_waiting_step(self, wait_task_id: str) -> WaitingStep | None:
        database = self._opened_database()
        wait_task_id = validated_identifier(wait_task_id, name="wait_task_id")
        found = await database.read(
            database.statements.find_waiting_step, (wait_task_id, *TERMINAL), what="waiting step"
        )
        if not found:
            return None
        run_task_id, *step = found[0]
        return WaitingStep(run_task_id, rows.step_from_row(run_task_id, step, database.dialect))

    # -- clean up -----------------------------------------------------------------------

    async def purge_runs(
        self, *, created_before: datetime, only_terminal: bool = True, batch_size: int = 500
    ) -> int:
        database = self._opened_database()
        created_before = validated_time(created_before, name="created_before")
        batch_size = validated_number(batch_size, name="batch_size", most=MAX_BATCH)
        count = 0
        after: Position | None = None

        async def purge(connection: AsyncConnection) -> Purged:
            return await purge_batch(
                connection,
                database.dialect,
                created_before=created_before,
                only_terminal=only_terminal,
                batch_size=batch_size,
                after=after,
            )

        try:
            while True:
                purged = await self._opened_database().transaction(purge, "a purge")
                count += purged.runs
                after = purged.last
                if after is None:
                    return count
                await asyncio.sleep(_PAUSE_S)
        finally:  # stopped half-way, it says so by an error, and how far it came only here
            _LOG.info(
                "a purge deleted %d runs created before %s", count, created_before.isoformat()
            )

    # -- share --------------------------------------------------------------------------

    async def claim_run(
        self, run_task_id: str, *, owner: str, lease_s: float = 30.0
    ) -> RunClaim | None:
        database = self._opened_database()
        run_task_id = validated_identifier(run_task_id, name="run_task_id")
        owner = validated_identifier(owner, name="owner")
        lease_s = validated_lease(lease_s)
        return await database.transaction(
            lambda connection: claims.claim_run(
                connection, database.dialect, run_task_id, owner, lease_s
            ),
            f"run {run_task_id!r}",
        )

    async def claim_abandoned_runs(
        self, *, owner: str, lease_s: float = 30.0, limit: int = 10
    ) -> list[RunClaim]:
        database = self._opened_database()
        owner = validated_identifier(owner, name="owner")
        lease_s = validated_lease(lease_s)
        limit = validated_number(limit, name="limit", most=MAX_LIMIT)
        taken = await database.transaction(
            lambda connection: claims.claim_abandoned_runs(
                connection, database.dialect, owner, lease_s, limit
            ),
            "abandoned runs",
        )
        for claim in taken:
            _LOG.info("%r took over run %r, which was abandoned", owner, claim.run_task_id)
        return taken

    async def renew_claim(self, claim: RunClaim) -> RunClaim:
        database = self._opened_database()
        claim = validated_claim(claim)
        statements = database.statements
        renewed = await database.write(
            statements.renew_claim, rows.renewal_row, claim
        ) or await database.write(statements.renew_locked_claim, rows.renewal_row, claim)
        if not renewed:
            raise claims.lost(claim)
        return claim._replace(expires_at=database.dialect.decode_datetime(renewed[-1]))

    async def release_claim(self, claim: RunClaim) -> None:
        database = self._opened_database()
        claim = validated_claim(claim)
        await database.transaction(
            lambda connection: claims.release_claim(connection, claim),
            f"run {claim.run_task_id!r}",
        )
