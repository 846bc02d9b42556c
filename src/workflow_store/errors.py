"""Everything that can go wrong, as one tree.

* `WorkflowStoreError`: the root; raised itself where no branch below fits, such as a
  damaged file, a full disk or a missing right

  * `InvalidStateError`, also a `ValueError`: a value breaks a rule; nothing was written
  * `RunNotFoundError`, also a `LookupError`: a write names a run that is not there
  * `ClaimLostError`: the claim on a run is no longer the caller's; nothing was written
  * `SchemaMismatchError`: the database is at another revision than this version needs
  * `StoreUnavailableError`: the database cannot be reached, stays locked, or timed out
  * `StoreClosedError`: the store is not open

An error of the database's driver, of SQLAlchemy or of Alembic never leaves the package;
it is the `__cause__` of one of these. A message says what happened, to what, and what to
do. It never holds a password, a payload or a context value. All of them can be pickled.
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
    """The root of every error of this package."""


class InvalidStateError(WorkflowStoreError, ValueError):
    """A value breaks the rules of the contract; nothing was written.

    The message names the field and, inside a JSON value, the path of what is wrong.
    """


class RunNotFoundError(WorkflowStoreError, LookupError):
    """A write names a run that is not there: never created, or deleted since.

    Attributes:
        run_task_id: the id that was not found.
    """

    def __init__(self, run_task_id: str) -> None:
        super().__init__(run_task_id)
        self.run_task_id = run_task_id

    def __str__(self) -> str:
        return (
            f"There is no run {self.run_task_id!r}: it was never created, or it was deleted. "
            "Nothing was written."
        )


class ClaimLostError(WorkflowStoreError):
    """A claim was taken over, claimed anew, released, or deleted with its run.

    Whoever gets this no longer drives the run, and should stop: nothing was written.

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
            f"The claim {self.token} on run {self.run_task_id!r} is lost: the run was claimed "
            "again, released or deleted. Nothing was written; stop driving the run, or claim "
            "it anew and load it."
        )


class SchemaMismatchError(WorkflowStoreError):
    """The database is not at the revision that this version of the package needs.

    The message gives the command that mends it, and says so where the database is newer
    than the package.

    Attributes:
        found: the revision of the database; None where it has none.
        expected: the revision that this version needs.
    """

    def __init__(
        self, message: str, *, found: str | None = None, expected: str | None = None
    ) -> None:
        super().__init__(message)
        self.found = found
        self.expected = expected


class StoreUnavailableError(WorkflowStoreError):
    """The database cannot be reached, stays locked, or timed out, after bounded retries.

    A write that ends so was applied whole or not at all; which of the two is not known.
    Every method may be called again: repeating a call leaves the same state.
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
