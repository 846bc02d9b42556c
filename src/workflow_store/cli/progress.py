"""Drawing on the terminal: colours and progress only where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .common import make_sure_of_output

__all__ = ["Advance", "draw", "progress"]

Advance = Callable[[int], None]

_WIDTH_OF_PIPE = 120


def draw(picture: RenderableType) -> None:
    """Draw on standard output; into a pipe, as wide as a wide terminal and without colours."""
    make_sure_of_output()
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_OF_PIPE)
    console.print(picture)


@contextmanager
def progress(what: str, *, total: int | None = None, hidden: bool = False) -> Iterator[Advance]:
    """Show how far something is, on standard error where that is a terminal.

    Args:
        what: what goes on.
        total: how many there are, where it is known.
        hidden: show nothing, as where data goes to the same terminal.

    Yields:
        A function that is told how many more are done.
    """
    console = Console(stderr=True)
    if hidden or not console.is_terminal:
        yield lambda _: None
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as shown:
        task = shown.add_task(what, total=total)
        yield lambda done: shown.advance(task, done)
