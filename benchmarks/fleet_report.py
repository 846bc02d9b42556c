"""The sections of the page about what a fleet of runtimes needs: commits, listing, claims."""

from __future__ import annotations

from statistics import median

from .goals import ratio
from .markdown import table
from .runner import COMMIT_TASKS, COMMITS
from .subject import Cell
from .values import Json

__all__ = ["claims_section", "commits_section", "listing_section"]


def commits_section(results: Json) -> str:
    """Tell what a context beside a step, and a claim that must hold, add to a write."""
    cells = results["cells"]
    rows = []
    for name in results["subjects"]:
        for tasks in COMMIT_TASKS:
            keys = [Cell(name, tasks, operation).key for operation in ("write", *COMMITS)]
            if not all(key in cells for key in keys):
                continue
            plain, *others = (cells[key]["rates"] for key in keys)
            ratios = (ratio(other, plain) or 0.0 for other in others)
            rows.append(
                (name, str(tasks), *(f"{median(rates):,.0f}" for rates in (plain, *others)),
                 *(f"{each:.2f}" for each in ratios))
            )  # fmt: skip
    if not rows:
        return ""
    head = ("", "tasks", "upsert_step", "commit_step", "upsert_step, fenced",
            "commit ÷ upsert", "fenced ÷ plain")  # fmt: skip
    return (
        "### Commits and fences\n\nCalls a second. A commit writes a result and a context of 1 KB "
        "each; every task holds a claim on its run.\n\n" + table(head, rows, right=range(1, 7))
    )


def listing_section(results: Json) -> str:
    """Tell what a page costs in tables of two sizes."""
    pages: dict[tuple[str, str], dict[str, dict[int, Json]]] = {}
    for page in results["listing"]:
        of_database = pages.setdefault((page["filter"], page["page"]), {})
        of_database.setdefault(page["database"], {})[page["runs"]] = page
    if not pages:
        return ""
    sizes = sorted({page["runs"] for page in results["listing"]})
    databases = list(dict.fromkeys(page["database"] for page in results["listing"]))
    rows = []
    for (name, _), of_database in pages.items():
        skipped = of_database[databases[0]][sizes[-1]]["skipped"]
        row = [name, f"after {skipped:,} runs" if skipped else "first"]
        for database in databases:
            took = [of_database[database][runs]["p50_ms"] for runs in sizes]
            row += [*(f"{median(ms):.2f}" for ms in took), f"{ratio(took[-1], took[0]) or 0:.2f}"]
        rows.append(row)
    head = ["filter", "page"]
    for database in databases:
        head += [f"{database}, {sizes[0]:,} runs", f"{sizes[-1]:,} runs", "ratio"]
    return (
        "### Listing\n\nOne page of 50 runs, the median in ms, in a table of few runs and in one "
        "of many.\n\n" + table(head, rows, right=range(2, len(head)))
    )


def claims_section(results: Json) -> str:
    """Tell what renewing many claims costs."""
    rows = [
        (each["database"], f"{each['claims']:,}", f"{each['period_s']:g} s", each["way"],
         f"{median(each['percent']):.1f} %",
         f"{median(each['server_percent']):.1f} %" if each["server_percent"] else "–")
        for each in results["claims"]
    ]  # fmt: skip
    if not rows:
        return ""
    head = ("", "claims", "renewed every", "how", "of one core", "of one core, in the server")
    return "### Claims\n\n" + table(head, rows, right=(1, 2, 4, 5))
