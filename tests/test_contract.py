"""The contract kit, whole, on each of our stores, and on one that somebody else wrote."""

from __future__ import annotations

from workflow_store.testing import WorkflowStoreContract


class TestOurStores(WorkflowStoreContract):
    """Memory, a SQLite file, SQLite in memory and PostgreSQL, through the `store` fixture."""
