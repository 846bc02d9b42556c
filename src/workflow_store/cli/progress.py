"""Output with Rich: tables and timelines, and progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .common import require_stdout

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Advance", "draw", "progress"]

Advance = Callable[[int], None]

_PIPE_WIDTH = 120


def draw(renderable: RenderableType) -> None:
    """Print on standard output; to a pipe, 120 columns wide and without colours."""
    from rich.console import Console

    require_stdout()
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    console.print(renderable)


@contextmanager
def progress(task: str, *, total: int | None = None, hidden: bool = False) -> Iterator[Advance]:
    """Show a progress bar on standard error, if that is a terminal.

    Args:
        task: the text beside the bar.
        total: the number of items, if known.
        hidden: show nothing, because data is printed on the same terminal.

    Yields:
        A function to call with the number of items that were completed.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if hidden or not console.is_terminal:
        yield lambda _: None
        return
    from rich import progress as bars

    with bars.Progress(
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as shown:
        task_id = shown.add_task(task, total=total)
        yield lambda count: shown.advance(task_id, count)
