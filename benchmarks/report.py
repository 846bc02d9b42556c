"""Renders the figures of a run into docs/performance.md, its plots and benchmarks/GOALS.md.

`python -m benchmarks.report` does so again from benchmarks/results/latest.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

from . import plots
from .claims import BATCHES
from .goals import OURS, goals, waiting_mib
from .runner import COMMIT_TASKS, COMMITS
from .servers import DATABASES
from .subject import Cell
from .timing import ratio
from .values import KILOBYTE, Json

__all__ = ["LATEST", "figures", "goals_table", "table", "write"]

ROOT = Path(__file__).parents[1]
LATEST = ROOT / "benchmarks/results/latest.json"
NONE = "–"
SUMMARIZED = ("cells", "reads", "growth", "memory", "listing", "claims")


def write(results: Json) -> None:
    """Write the generated parts of both pages, and the plots."""
    page = ROOT / "docs/performance.md"
    _replace(page, "summary", _summary(results))
    _replace(page, "figures", figures(results))
    _replace(ROOT / "benchmarks/GOALS.md", "goals", goals_table(results))
    plots.draw(results, ROOT / "docs/images")


def _replace(path: Path, name: str, text: str) -> None:
    """Replace what is between two markers of a page."""
    begin, end = f"<!-- {name}: written by `make bench` -->", f"<!-- end of {name} -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{path.name} does not have the markers {begin!r} and {end!r}")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Return a table in Markdown, with the columns in `right` aligned to the right."""
    to_the_right = set(right)
    rule = ["---:" if column in to_the_right else "---" for column in range(len(head))]
    lines = [head, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def goals_table(results: Json) -> str:
    """Return the goals that a run measured, with their verdicts."""
    rows = []
    for goal in goals(results):
        sign = "≥" if goal.at_least else "≤"
        measured = NONE if goal.measured is None else f"{goal.measured:.2f}{goal.unit}"
        verdict = {True: "met", False: "not met", None: "not measured"}[goal.met]
        rows.append((goal.what, f"{sign} {goal.bound:g}{goal.unit}", measured, verdict))
    return f"{_machine(results)}\n\n" + table(("ratio", "goal", "measured", ""), rows, right=(1, 2))


def figures(results: Json) -> str:
    """Return all tables of the performance page but the summary."""
    sections = (_writes, _commits, _others, _reads, _listing, _claims, _growth, _memory, _codec,
                _failures)  # fmt: skip
    parts = [section(results) for section in sections]
    versions = results["machine"]["packages"].items()
    packages = ", ".join(f"{name} {version}" for name, version in versions)
    rounds = f"{results['rounds']} rounds of {results['seconds']:g} s per subject, with {packages}."
    return "\n\n".join([*filter(None, parts), rounds])


def _machine(results: Json) -> str:
    m = results["machine"]
    server = m["postgresql"]
    quick = " This was a quick run: the figures are rough." if results["quick"] else ""
    return (
        f"Measured on {results['date']} on {m['cores']} cores with {m['memory_gib']} GiB of memory "
        f"and {m['file_system']} on a local disk; {m['kernel']}, Python {m['python']}, SQLite "
        f"{m['sqlite']}, PostgreSQL {server['server_version']} (`fsync` {server['fsync']}, "
        f"`synchronous_commit` {server['synchronous_commit']}, `shared_buffers` "
        f"{server['shared_buffers']}).{quick}"
    )


# -- the summary -----------------------------------------------------------------------


def _summary(results: Json) -> str:
    """Return the figures that users ask for first."""
    if missing := [part for part in SUMMARIZED if not results[part]]:
        raise ValueError(f"no summary without results of: {', '.join(missing)}")
    columns = [_main_figures(results, database) for database in DATABASES]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
    return f"{table(('', *DATABASES), rows, right=(1, 2))}\n\n{_machine(results)}"


def _main_figures(results: Json, database: str) -> dict[str, str]:
    def entries(part: str) -> list[Json]:
        return [entry for entry in results[part] if entry["database"] == database]

    def read_ms(steps: int) -> str:
        return f"{median(results['reads'][f'{OURS[database]} | {steps}']['ms']):.2f} ms"

    one, many = (results["cells"][f"{OURS[database]} @ {tasks}"] for tasks in COMMIT_TASKS)
    largest = max(entries("growth"), key=lambda entry: entry["steps"])
    runs = max(page["runs"] for page in entries("listing"))
    page_ms = {
        (page["filter"], page["page"]): median(page["p50_ms"])
        for page in entries("listing")
        if page["runs"] == runs
    }
    (claims,) = (entry for entry in entries("claims") if entry["way"] == BATCHES)
    callers = entries("memory")[0]["callers"]
    return {
        "writes per second, 1 task": _rate(one),
        f"writes per second, {many['tasks']} tasks": _rate(many),
        "latency of a write, 1 task, p50 / p99": f"{_latency(one)} ms",
        f"latency of a write, {many['tasks']} tasks, p50 / p99": f"{_latency(many)} ms",
        f"latency of a write among {largest['steps']:,} steps, 1 task, p50":
            f"{median(largest['p50_ms']):.2f} ms",
        "reading a run of 100 steps": read_ms(100),
        "reading a run of 1,000 steps": read_ms(1_000),
        f"listing 50 of {runs:,} runs, newest first": f"{page_ms['none', 'first']:.2f} ms",
        f"listing 50 of {runs:,} runs, slowest filter": f"{max(page_ms.values()):.2f} ms",
        f"renewing {claims['claims']:,} claims every {claims['period_s']:g} s":
            f"{median(claims['percent']):.1f} % of a core",
        f"memory for {callers:,} waiting writes": f"{waiting_mib(results, database):.0f} MiB",
        "disk space per step": f"{largest['bytes_per_step'] / 1000:.1f} KB",
    }  # fmt: skip


# -- the sections ----------------------------------------------------------------------


def _writes(results: Json) -> str:
    by_name = plots.plain_writes(results)
    if not by_name:
        return ""
    counts = sorted({tasks for cells in by_name.values() for tasks in cells})
    rows = [
        (name, results["subjects"][name]["survives"],
         *(_rate(cells[tasks]) if tasks in cells else NONE for tasks in counts),
         _latency(cells[max(cells)]))
        for name, cells in by_name.items()
    ]  # fmt: skip
    head = ("", "a write survives", *(f"{n} task{'s' * (n > 1)}" for n in counts), "p50 / p99, ms")
    return (
        "### Writes per second\n\n"
        "![Writes per second over the number of tasks](images/tasks.svg)\n\n"
        "Results of 1 KB. The latencies are those at the highest number of tasks.\n\n"
        + table(head, rows, right=range(2, 3 + len(counts)))
    )


def _commits(results: Json) -> str:
    cells = results["cells"]
    rows = []
    for name in results["subjects"]:
        for tasks in COMMIT_TASKS:
            keys = [Cell(name, tasks, operation).key for operation in ("write", *COMMITS)]
            if not all(key in cells for key in keys):
                continue
            plain = cells[keys[0]]["rates"]
            ratios = [ratio(cells[key]["rates"], plain) or 0.0 for key in keys[1:]]
            rates = (_rate(cells[key]) for key in keys)
            rows.append((name, str(tasks), *rates, *(f"{value:.2f}" for value in ratios)))
    head = ("", "tasks", "upsert_step", "commit_step", "upsert_step, fenced",
            "commit ÷ upsert", "fenced ÷ plain")  # fmt: skip
    text = (
        "Calls per second. A commit writes a result and a context of 1 KB each. Every task holds "
        "a claim on its run."
    )
    return _section("Commits and fences", text, head, rows)


def _others(results: Json) -> str:
    rows = [
        (cell["subject"], _label(cell), str(cell["tasks"]), _rate(cell), _latency(cell))
        for cell in results["cells"].values()
        if cell["operation"] not in {"write", *COMMITS}
        or cell["size"] != KILOBYTE
        or cell["one_run"]
    ]
    text = _section("Other calls", "", ("", "call", "tasks", "per second", "p50 / p99, ms"), rows)
    if results["huge"]:
        ms = [(name, f"{median(ms):.0f}") for name, ms in results["huge"].items()]
        text += "\n\nWriting one result of 5 MB:\n\n" + table(("", "ms"), ms, right=(1,))
    return text


def _label(cell: Json) -> str:
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
    rows = [(name, *(f"{median(ms[size]):.2f}" for size in sizes)) for name, ms in by_name.items()]
    stalls = [(name, f"{ms:.1f}") for name, ms in results["stalls"].items()]
    return (
        "### Reading a whole run, ms\n\n![Reading a whole run](images/reads.svg)\n\n"
        + table(("", *(f"{steps:,} steps" for steps in sizes)), rows, right=range(1, 4))
        + "\n\nHow long the event loop was blocked while 1,000 steps were read: the longest gap "
        "seen by a task that wakes up every 0.5 ms.\n\n" + table(("", "ms"), stalls, right=(1,))
    )


def _listing(results: Json) -> str:
    pages: dict[tuple[str, str], dict[tuple[str, int], Json]] = {}
    for page in results["listing"]:
        by_table = pages.setdefault((page["filter"], page["page"]), {})
        by_table[page["database"], page["runs"]] = page
    sizes = sorted({page["runs"] for page in results["listing"]})
    rows = []
    for (name, _), by_table in pages.items():
        skipped = by_table[DATABASES[0], sizes[-1]]["skipped"]
        row = [name, f"after {skipped:,} runs" if skipped else "first"]
        for database in DATABASES:
            p50_ms = [by_table[database, runs]["p50_ms"] for runs in sizes]
            row += [*(f"{median(ms):.2f}" for ms in p50_ms), f"{ratio(p50_ms[-1], p50_ms[0]):.2f}"]
        rows.append(row)
    head = ["filter", "page"]
    for database in DATABASES if sizes else ():
        head += [f"{database}, {sizes[0]:,} runs", f"{sizes[-1]:,} runs", "ratio"]
    text = "The median latency of a page of 50 runs, in ms, in a small and in a large table."
    return _section("Listing", text, head, rows)


def _claims(results: Json) -> str:
    rows = [
        (c["database"], f"{c['claims']:,}", f"{c['period_s']:g} s", c["way"],
         f"{median(c['percent']):.1f} %",
         f"{median(c['server_percent']):.1f} %" if c["server_percent"] else NONE)
        for c in results["claims"]
    ]  # fmt: skip
    head = ("", "claims", "renewed every", "how", "of one core", "of one core, in the server")
    return _section("Claims", "The processor time of renewing them.", head, rows, left=(0, 3))


def _growth(results: Json) -> str:
    tables = sorted(results["growth"], key=lambda g: (g["database"], g["steps"]))
    rows = [
        (g["database"], f"{g['steps']:,}", f"{median(g['p50_ms']):.3f}",
         f"{g['bytes_per_step']:,.0f}")
        for g in tables
    ]  # fmt: skip
    head = ("", "steps in the table", "p50 of a write, ms", "bytes on disk per step")
    return _section("Growth", "", head, rows, left=(0,))


def _memory(results: Json) -> str:
    rows = [
        (m["database"], m["mode"], f"{m['callers']:,}", f"{m['idle_mib']:.0f}",
         f"{m['over_idle_mib']:.0f}")
        for m in results["memory"]
    ]  # fmt: skip
    text = (
        "Each line is a process of its own. The tasks that only wait hold the same states; the "
        "difference is what the store needs."
    )
    head = ("", "", "tasks", "idle, MiB", "peak over idle, MiB")
    return _section("Memory of waiting writes", text, head, rows)


def _codec(results: Json) -> str:
    rows = [
        (c["what"], f"{c['size'] // 1000} KB", f"{median(c['us']):.1f}") for c in results["codec"]
    ]
    return _section("JSON codec", "", ("", "value", "µs"), rows, left=(0,))


def _failures(results: Json) -> str:
    return _section("Failures", "", ("", "error"), results["failures"].items(), left=(0, 1))


def _section(
    title: str,
    text: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Iterable[int] = (0, 1),
) -> str:
    """Return a heading, a text and a table, or nothing if there are no rows."""
    rows = list(rows)
    if not rows:
        return ""
    right = set(range(len(head))) - set(left)
    return "\n\n".join(filter(None, (f"### {title}", text, table(head, rows, right=right))))


def _rate(cell: Json) -> str:
    return f"{median(cell['rates']):,.0f}"


def _latency(cell: Json) -> str:
    if not cell["p50_ms"]:
        return NONE
    return f"{median(cell['p50_ms']):.2f} / {median(cell['p99_ms']):.2f}"


if __name__ == "__main__":
    write(json.loads(LATEST.read_text(encoding="utf-8")))
