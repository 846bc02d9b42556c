"""The errors of this package, as one tree.

* `WorkflowStoreError`: the root. Raised itself for anything that the database rejected and that
  no branch covers, such as a corrupt file, a full disk or a missing privilege

  * `InvalidStateError`, also a `ValueError`: a value breaks a rule; nothing was written
  * `RunNotFoundError`, also a `LookupError`: a write refers to a run that does not exist
  * `ClaimLostError`: the caller no longer holds the claim on a run; nothing was written
  * `SchemaMismatchError`: the database is not at the revision that this version requires
  * `StoreUnavailableError`: the database cannot be reached, stays locked or timed out
  * `StoreClosedError`: the store is not open

An exception of a database driver, SQLAlchemy or Alembic never leaves the package; it is the
`__cause__` of one of these. A message says what happened, to what, and what to do. It never
contains a password, a payload or a context value. All errors can be pickled.
"""

from __future__ import annotations

__all__ = [
    "ClaimLostError",
    "InvalidStateError",
    "RunNotFoundError",
    "SchemaMismatchError",
    "StoreClosedError",
    "StoreUnavailableError",
    "WorkflowStoreError",
]


class WorkflowStoreError(Exception):
    """The base class of all errors of this package."""


class InvalidStateError(WorkflowStoreError, ValueError):
    """A value breaks the rules of the contract. Nothing was written.

    The message names the field and, inside a JSON value, the path.
    """


class RunNotFoundError(WorkflowStoreError, LookupError):
    """A write refers to a run that does not exist. Nothing was written.

    Attributes:
        run_task_id: the id that was not found.
    """

    def __init__(self, run_task_id: str) -> None:
        super().__init__(run_task_id)
        self.run_task_id = run_task_id

    def __str__(self) -> str:
        return (
            f"Run {self.run_task_id!r} does not exist: it was never created, or it was deleted. "
            "Nothing was written."
        )


class ClaimLostError(WorkflowStoreError):
    """The run was claimed again, released or deleted. Nothing was written.

    The caller no longer holds the claim and must stop working on the run. In an
    `asyncio.TaskGroup` the error arrives inside an `ExceptionGroup`: catch it with `except*`.

    Attributes:
        run_task_id: the run that was claimed.
        token: the token of the claim that was lost.
    """

    def __init__(self, run_task_id: str, token: int) -> None:
        super().__init__(run_task_id, token)
        self.run_task_id = run_task_id
        self.token = token

    def __str__(self) -> str:
        return (
            f"Claim {self.token} on run {self.run_task_id!r} was lost: the run was claimed "
            "again, released or deleted. Nothing was written. Stop working on the run, or claim "
            "and load it again."
        )


class SchemaMismatchError(WorkflowStoreError):
    """The database is not at the revision that this version of the package requires.

    The message contains the command that fixes it, or says that the database is newer than the
    package.

    Attributes:
        found: the revision of the database, or None if it has none.
        expected: the required revision.
    """

    def __init__(
        self, message: str, *, found: str | None = None, expected: str | None = None
    ) -> None:
        super().__init__(message)
        self.found = found
        self.expected = expected


class StoreUnavailableError(WorkflowStoreError):
    """The database cannot be reached, stays locked, or timed out, after bounded retries.

    A write was applied completely or not at all, and which of the two is unknown. A later read
    of the run through the same store object shows it: until the write can no longer take effect,
    such a read waits, or raises this error, too. Repeating the call leaves the same state, unless
    another process has written since.
    """


class StoreClosedError(WorkflowStoreError):
    """The store was used before it was opened or after it was closed."""

    def __init__(
        self,
        message: str = (
            "The store is not open: use it inside 'async with store:', or await store.open() first."
        ),
    ) -> None:
        super().__init__(message)
