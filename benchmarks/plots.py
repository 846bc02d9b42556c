"""The plots of docs/performance.md, as SVG."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from .subject import POWER_LOSS
from .values import KILOBYTE, Json

__all__ = ["draw", "plain_writes"]

OURS, OURS_PALE, OTHERS, OTHERS_PALE = "#1f6f8b", "#a9cdd8", "#8a95a1", "#d8dde3"


def draw(results: Json, folder: Path) -> None:
    """Write all plots to a folder."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({
        "svg.hashsalt": "workflow-store",  # reproducible files
        "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    _writes(results, folder / "writes.svg")
    _tasks(results, folder / "tasks.svg")
    _reads(results, folder / "reads.svg")


def _colour(results: Json, name: str) -> str:
    durable = results["subjects"][name]["survives"] == POWER_LOSS
    if name.startswith("workflow-store"):
        return OURS if durable else OURS_PALE
    return OTHERS if durable else OTHERS_PALE


def plain_writes(results: Json) -> dict[str, dict[int, Json]]:
    """Return the cells of writes of 1 KB to a run per task, by subject and number of tasks."""
    by_name: dict[str, dict[int, Json]] = {}
    for cell in results["cells"].values():
        if cell["operation"] == "write" and cell["size"] == KILOBYTE and not cell["one_run"]:
            by_name.setdefault(cell["subject"], {})[cell["tasks"]] = cell
    return by_name


def _writes(results: Json, file: Path) -> None:
    best = {  # every subject at the number of tasks that suits it best
        name: max((median(cell["rates"]), tasks) for tasks, cell in cells.items())
        for name, cells in plain_writes(results).items()
    }
    names = sorted(best, key=lambda name: best[name])
    tasks = {name: count for name, (_, count) in best.items()}
    labels = [f"{name} ({tasks[name]} task{'s' * (tasks[name] > 1)})" for name in names]
    _bars(
        file, labels, [best[name][0] for name in names], [_colour(results, name) for name in names],
        label="writes of 1 KB per second (pale: the last ones may be lost on power failure)",
        form="{:,.0f}",
    )  # fmt: skip


def _reads(results: Json, file: Path) -> None:
    ms = {
        read["subject"]: median(read["ms"])
        for read in results["reads"].values()
        if read["steps"] == 1_000
    }
    names = sorted(ms, key=lambda name: -ms[name])
    colours = [OURS if name.startswith("workflow-store") else OTHERS for name in names]
    label = "ms to read a run of 1,000 steps (less is better)"
    _bars(file, names, [ms[name] for name in names], colours, label=label, form="{:.1f}")


def _bars(
    file: Path, names: list[str], values: list[float], colours: list[str], *, label: str, form: str
) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.32 * len(names) + 0.8), layout="constrained")
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, [form.format(value) for value in values], padding=3)
    axes.set_xlabel(label)
    axes.margins(x=0.15)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _tasks(results: Json, file: Path) -> None:
    from matplotlib import pyplot as plt

    figure, pair = plt.subplots(1, 2, figsize=(8, 4.6), layout="constrained", sharey=True)
    for axes, database in zip(pair, ("SQLite", "PostgreSQL"), strict=True):
        for name, cells in plain_writes(results).items():
            subject = results["subjects"][name]
            if subject["database"] != database or subject["survives"] != POWER_LOSS:
                continue
            ours = name.startswith("workflow-store")
            rates = [median(cell["rates"]) for cell in cells.values()]
            axes.plot(
                list(cells), rates, label=name, marker="o",
                linewidth=2.5 if ours else 1, color=OURS if ours else None,
            )  # fmt: skip
        axes.set(title=database, xscale="log", yscale="log", xlabel="tasks")
        axes.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
        axes.minorticks_off()
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    pair[0].set_ylabel("durable writes of 1 KB per second")
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
