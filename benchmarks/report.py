"""From raw figures to the page: everything between two markers in docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from .fleet_report import claims_section, commits_section, listing_section
from .goals import Goal
from .markdown import table
from .runner import COMMITS
from .values import Json

__all__ = ["goals_table", "page", "write_page"]

BEGIN, END = "<!-- figures begin: written by `make bench` -->", "<!-- figures end -->"


def write_page(path: Path, figures: str) -> None:
    """Put the figures between the markers of the page."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{path.name} has no markers for the figures")
    path.write_text(f"{before}{BEGIN}\n\n{figures}\n{END}{after}")


def page(results: Json, goals: Sequence[Goal]) -> str:
    """Give the part of the page that a run writes."""
    parts = [_machine(results), goals_table(goals), _writes(results), commits_section(results),
             _others(results), _reads(results), listing_section(results), claims_section(results),
             _growth(results), _memory(results), _codec(results), _failures(results)]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def goals_table(goals: Sequence[Goal]) -> str:
    rows = []
    for goal in goals:
        sign = "≥" if goal.at_least else "≤"
        measured = "not measured" if goal.measured is None else f"{goal.measured:.2f}{goal.unit}"
        verdict = {True: "met", False: "**not met**", None: "–"}[goal.met]
        rows.append((goal.what, f"{sign} {goal.bound:g}{goal.unit}", measured, verdict))
    return "### Goals\n\n" + table(("ratio", "goal", "measured", ""), rows, right=(1, 2))


def _machine(results: Json) -> str:
    m = results["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in m["packages"].items())
    server = m["postgresql"]
    postgresql = (
        f"PostgreSQL {server['server_version']} (fsync {server['fsync']}, synchronous_commit "
        f"{server['synchronous_commit']}, shared_buffers {server['shared_buffers']})"
        if server
        else "no PostgreSQL"
    )
    return (
        f"Measured on {results['date']}, {m['cores']} cores, {m['memory_gib']} GiB of memory, "
        f"{m['kernel']}, {m['file_system']} on a local disk; Python {m['python']}, SQLite "
        f"{m['sqlite']}, {postgresql}. {results['rounds']} rounds of {results['seconds']:g} s a "
        f"turn{', a quick run: the figures are rough' if results['quick'] else ''}. {packages}."
    )


def _writes(results: Json) -> str:
    rows = []
    by_name: dict[str, dict[int, Json]] = {}
    for cell in results["cells"].values():
        if cell["operation"] == "write" and cell["size"] == 1_000 and not cell["one_run"]:
            by_name.setdefault(cell["subject"], {})[cell["tasks"]] = cell
    counts = sorted({tasks for cells in by_name.values() for tasks in cells})
    for name, cells in by_name.items():
        rates = [_rate(cells[tasks]) if tasks in cells else "–" for tasks in counts]
        most = cells[max(cells)]
        rows.append((name, results["subjects"][name]["survives"], *rates, _latency(most)))
    rows += [
        (name, "–", *(["–"] * len(counts)), f"could not run: {why}")
        for name, why in results["failures"].items()
        if name in results["names"]
    ]
    if not rows:
        return ""
    head = ("", "a write survives", *(f"{n} task{'s' * (n > 1)}" for n in counts), "p50 / p99, ms")
    return (
        "### Writes a second, 1 KB\n\n"
        "![Writes a second, each at its best number of tasks](images/writes.svg)\n\n"
        "![Writes a second over the number of tasks](images/tasks.svg)\n\n"
        "The latencies are those at the highest number of tasks.\n\n"
        + table(head, rows, right=range(2, 3 + len(counts)))
    )


def _others(results: Json) -> str:
    rows = [
        (cell["subject"], _what(cell), str(cell["tasks"]), _rate(cell), _latency(cell))
        for cell in results["cells"].values()
        if cell["operation"] not in {"write", *COMMITS} or cell["size"] != 1_000 or cell["one_run"]
    ]
    if not rows:
        return ""
    head = ("", "call", "tasks", "a second", "p50 / p99, ms")
    text = "### Other calls\n\n" + table(head, rows, right=(2, 3, 4))
    huge = results.get("huge")
    if huge:
        took = [(name, f"{median(ms):.0f}") for name, ms in huge.items()]
        text += "\n\nOne result of 5 MB:\n\n" + table(("", "ms"), took, right=(1,))
    return text


def _what(cell: Json) -> str:
    if cell["operation"] == "context":
        return "update_context, 1 KB"
    if cell["operation"] == "get":
        return "get_step, 1 KB"
    size = f"write of {cell['size'] // 1000} KB"
    return f"{size}, all tasks in one run" if cell["one_run"] else size


def _reads(results: Json) -> str:
    by_name: dict[str, dict[int, list[float]]] = {}
    for read in results["reads"].values():
        by_name.setdefault(read["subject"], {})[read["steps"]] = read["ms"]
    if not by_name:
        return ""
    sizes = sorted({steps for reads in by_name.values() for steps in reads})
    rows = [
        (name, *(f"{median(reads[steps]):.2f}" for steps in sizes))
        for name, reads in by_name.items()
    ]
    text = "### Reading a whole run, ms\n\n![Reading a whole run](images/reads.svg)\n\n" + table(
        ("", *(f"{steps:,} steps" for steps in sizes)), rows, right=range(1, 4)
    )
    stalls = [(name, f"{ms:.1f}") for name, ms in results["stalls"].items()]
    return text + (
        "\n\nThe longest time that the event loop stood still while 1,000 steps were read, "
        "as a task saw it that woke up every 0.5 ms:\n\n" + table(("", "ms"), stalls, right=(1,))
    )


def _growth(results: Json) -> str:
    rows = [
        (
            g["database"],
            f"{g['steps']:,}",
            f"{median(g['p50_ms']):.3f}",
            f"{g['bytes_per_step']:,.0f}",
        )
        for g in sorted(results["growth"], key=lambda g: (g["database"], g["steps"]))
    ]
    head = ("", "steps in the table", "p50 of a write, ms", "bytes on disk a step")
    return "### Growth\n\n" + table(head, rows, right=(1, 2, 3)) if rows else ""


def _memory(results: Json) -> str:
    rows = [
        (m["database"], m["mode"], f"{m['callers']:,}", f"{m['idle_mib']:.0f}",
         f"{m['over_idle_mib']:.0f}")
        for m in results["memory"]
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("", "", "callers", "idle, MiB", "peak over idle, MiB")
    return (
        "### Memory while writes wait\n\nEach line is a process of its own. The callers alone make "
        "the same tasks and states and only wait; the difference to those that write is the "
        "store's.\n\n" + table(head, rows, right=(2, 3, 4))
    )


def _codec(results: Json) -> str:
    rows = [
        (c["what"], f"{c['size'] // 1000} KB", f"{median(c['us']):.1f}") for c in results["codec"]
    ]
    return "### The codec\n\n" + table(("", "value", "µs"), rows, right=(1, 2)) if rows else ""


def _failures(results: Json) -> str:
    rows = [(name, why) for name, why in results["failures"].items()]
    return "### What could not run\n\n" + table(("", "why"), rows) if rows else ""


def _rate(cell: Json) -> str:
    return f"{median(cell['rates']):,.0f}"


def _latency(cell: Json) -> str:
    if not cell["p50_ms"]:
        return "–"
    return f"{median(cell['p50_ms']):.2f} / {median(cell['p99_ms']):.2f}"
