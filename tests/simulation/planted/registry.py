"""The bugs by name, and how to plant one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias
from unittest.mock import patch

__all__ = ["BUGS", "Replace", "bug", "planted"]

Replace: TypeAlias = Callable[[Any, str, Any], Any]
"""Replaces an attribute while the bug is planted, and returns what it was."""

BUGS: dict[str, Callable[[Replace], None]] = {}
"""The bugs by name; the docstring of each says what is wrong."""


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Plant a bug while the block runs; None plants nothing."""
    with ExitStack() as patches:

        def replace(owner: Any, attribute: str, new: Any) -> Any:
            old = getattr(owner, attribute)
            patches.enter_context(patch.object(owner, attribute, new))
            return old

        if name is not None:
            BUGS[name](replace)
        yield


def bug(plant: Callable[[Replace], None]) -> Callable[[Replace], None]:
    """Add a bug, by the name of the function that plants it."""
    BUGS[plant.__name__] = plant
    return plant
