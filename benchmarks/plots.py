"""The pictures of docs/performance.md, as SVG."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from .values import Json

__all__ = ["draw"]

OURS, OURS_PALE, OTHERS, OTHERS_PALE = "#1f6f8b", "#a9cdd8", "#8a95a1", "#d8dde3"


def draw(results: Json, folder: Path) -> None:
    """Write all pictures into a folder."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({
        "svg.hashsalt": "workflow-store",  # the same figures give the same file
        "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    _writes(results, folder / "writes.svg")
    _tasks(results, folder / "tasks.svg")
    _reads(results, folder / "reads.svg")


def _colour(results: Json, name: str) -> str:
    durable = results["subjects"][name]["survives"] == "loss of power"
    if name.startswith("workflow-store"):
        return OURS if durable else OURS_PALE
    return OTHERS if durable else OTHERS_PALE


def _plain_writes(results: Json) -> dict[str, dict[int, float]]:
    by_name: dict[str, dict[int, float]] = {}
    for cell in results["cells"].values():
        if cell["operation"] == "write" and cell["size"] == 1_000 and not cell["one_run"]:
            rates = by_name.setdefault(cell["subject"], {})
            rates[cell["tasks"]] = median(cell["rates"])
    return by_name


def _writes(results: Json, file: Path) -> None:
    best = {  # everyone at the number of tasks that suits it best
        name: max(by_tasks.items(), key=lambda item: item[1])
        for name, by_tasks in _plain_writes(results).items()
    }
    tasks = {name: count for name, (count, _) in best.items()}
    rates = {name: rate for name, (_, rate) in best.items()}
    names = sorted(rates, key=lambda name: rates[name])
    labels = [f"{name} ({tasks[name]} task{'s' * (tasks[name] > 1)})" for name in names]
    _bars(
        file, labels, [rates[name] for name in names], [_colour(results, name) for name in names],
        label="writes of 1 KB a second; pale: the last ones may be lost with the power",
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
    label = "ms to read a run of 1,000 steps; less is better"
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
        for name, by_tasks in _plain_writes(results).items():
            subject = results["subjects"][name]
            if subject["database"] != database or subject["survives"] != "loss of power":
                continue
            ours = name.startswith("workflow-store")
            axes.plot(
                list(by_tasks), list(by_tasks.values()), label=name, marker="o",
                linewidth=2.5 if ours else 1, color=OURS if ours else None,
            )  # fmt: skip
        axes.set(title=database, xscale="log", yscale="log", xlabel="tasks")
        axes.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
        axes.minorticks_off()
        axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    pair[0].set_ylabel("writes of 1 KB a second, durable")
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
