"""Draw what a run came to: ``python bench/plots.py [FILE.json ...]``, a picture beside each file.

The pictures are made to be understood without the text around them: what is shown, in which unit,
which way is better, on which machine.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

HERE = Path(__file__).resolve().parent
OURS = "#0b5fa5"
COLOURS = {
    "walengine": OURS,
    "walengine direct_io": "#3f9bdc",
    "walengine asyncio": OURS,
    "walengine uvloop": "#3f9bdc",
    "walengine asyncio direct_io": "#0b8f9c",
    "walengine uvloop direct_io": "#4fbfc9",
    "C limit": "#111111",
    "fio": "#777777",
    "SQLite": "#8a6d3b",
    "LMDB": "#7a3fa0",
    "LevelDB": "#c4342d",
    "LevelDB, 32 threads": "#c4342d",
    "LevelDB in an executor": "#e08a86",
    "RocksDB": "#d98200",
    "persist-queue": "#6f7f2e",
    "os.write + fdatasync": "#777777",
    "okaywal": "#2b8a6e",
    "raft-engine": "#8a6d3b",
    "rivven-core": "#d98200",
    "etcd wal": "#2b8a6e",
    "tidwall/wal": "#8a6d3b",
    "raft-wal": "#d98200",
}
LABELS = {"C limit": "C loop, no engine", "fio": "fio, direct, 8 x 1 MiB"}
LABEL_GAP = 0.045  # of the axes' height: labels at the ends of lines keep that distance
LETTERS_PER_INCH = 19  # of the line at the bottom
NINES = (50, 90, 99, 99.9, 99.99)

Row = dict[str, Any]


def rows_of(results: dict[str, Any], group: str, **more: Any) -> list[Row]:
    """Return the rows of a group."""
    return [
        row
        for row in results["rows"]
        if row["group"] == group and all(row.get(key) == value for key, value in more.items())
    ]


def style(name: str) -> dict[str, Any]:
    """Return how a contender's line looks: ours is thick, a limit is dashed."""
    colour = COLOURS.get(name, "#555555")
    if name in ("C limit", "fio"):
        return {"color": colour, "linewidth": 1.4, "linestyle": (0, (4, 2))}
    return {"color": colour, "linewidth": 2.6 if name.startswith("walengine") else 1.4}


def label(row: Row) -> str:
    """Return what a row is called in a picture."""
    name: str = row["contender"]
    return LABELS.get(name, name)


def short(value: float, _position: object = None) -> str:
    """Return a number as an axis shows it."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def label_ends(axes: Axes, ends: list[tuple[str, float, float]]) -> None:
    """Write each line's name behind its end, moved apart where they would touch."""
    axes.get_xlim(), axes.get_ylim()  # settles them
    to_axes = axes.transData + axes.transAxes.inverted()
    placed = [(to_axes.transform((x, y)).tolist(), name) for name, x, y in ends]
    placed.sort(key=lambda each: each[0][1])
    height = -1.0
    total = len(placed)
    for number, ((x, y), name) in enumerate(placed):
        ceiling = 1.0 - LABEL_GAP * (total - 1 - number)
        height = min(max(y, height + LABEL_GAP), max(ceiling, height + LABEL_GAP))
        axes.annotate(
            LABELS.get(name, name),
            xy=(x, y),
            xytext=(x + 0.03, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            color=COLOURS.get(name, "#555555"),
            fontweight="bold" if name.startswith("walengine") else "normal",
            arrowprops={"arrowstyle": "-", "color": "#cccccc", "linewidth": 0.6, "shrinkB": 2},
            annotation_clip=False,
        )


def finish(figure: Figure, results: dict[str, Any], path: Path) -> None:
    """Add the line that says where this was measured; write the file."""
    setting = results["setting"]
    text = (
        f"{setting['machine']}; {setting['filesystem']}; {setting['kernel']}; "
        f"Python {setting['python'].split()[-1]}; walengine {setting['walengine']}, "
        f"commit {setting['commit']}; {setting['taken_at']}"
    )
    lines = textwrap.fill(text, int(figure.get_figwidth() * LETTERS_PER_INCH))
    figure.text(0.01, 0.01, lines, fontsize=6.5, color="#666666")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def tidy(axes: Axes, title: str, x_label: str, y_label: str) -> None:
    """Set what every plot has."""
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, which="major", color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def throughput(results: dict[str, Any]) -> Figure | None:
    """Durable puts in a second over how many ask at once."""
    kinds = [
        ("puts", "from threads", "threads that put at the same time"),
        ("tasks", "from asyncio tasks of one loop", "tasks that put at the same time"),
    ]
    shown = [kind for kind in kinds if rows_of(results, kind[0])]
    if not shown:
        return None
    figure, all_axes = plt.subplots(
        1, len(shown), figsize=(6.4 * len(shown) + 0.6, 5.2), sharey=True, squeeze=False
    )
    labels = []
    for axes, (group, title, x_label) in zip(all_axes[0], shown, strict=True):
        lines: dict[str, list[Row]] = {}
        for row in rows_of(results, group):
            lines.setdefault(row["contender"], []).append(row)
        ends = []
        for name, rows in lines.items():
            xs = [row["concurrency"] for row in rows]
            ys = [row["median"] for row in rows]
            low, high = [row["min"] for row in rows], [row["max"] for row in rows]
            axes.plot(xs, ys, marker="o", markersize=3.5, **style(name))
            axes.fill_between(xs, low, high, color=style(name)["color"], alpha=0.10, linewidth=0)
            is_reference = group == "tasks" and name == "LevelDB"
            ends.append(("LevelDB, 32 threads" if is_reference else name, xs[-1], ys[-1]))
        axes.set_xscale("log")
        axes.set_yscale("log")
        levels = sorted({row["concurrency"] for row in rows_of(results, group)})
        axes.xaxis.set_major_locator(FixedLocator(levels))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(short))
        tidy(axes, f"Durable puts of 256 B, {title}", x_label, "")
        labels.append((axes, ends))
    for axes, ends in labels:  # now that the panels have agreed on their range
        label_ends(axes, ends)
    all_axes[0][0].set_ylabel("durable puts per second (higher is better)")
    left, right = (0.13, 0.74) if len(shown) == 1 else (0.07, 0.85)
    figure.subplots_adjust(left=left, right=right, bottom=0.15, top=0.92, wspace=0.42)
    return figure


def latency(results: dict[str, Any]) -> Figure | None:
    """How long one thread waits for one durable put: the whole distribution."""
    rows = [row for row in rows_of(results, "puts", concurrency=1) if row["cdf_us"]]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(8.2, 5.2))
    for row in sorted(rows, key=lambda row: float(row["latency_us"]["p50"])):
        shares = [1 - share for share, _ in row["cdf_us"]]
        samples = f"{row['samples']:,} samples"
        axes.plot(
            [us for _, us in row["cdf_us"]],
            shares,
            label=f"{label(row)}: p50 {row['latency_us']['p50']:.0f} µs, {samples}",
            **style(row["contender"]),
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_yaxis()
    axes.yaxis.set_major_locator(FixedLocator([1 - nine / 100 for nine in NINES]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * (1 - value):g} %"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    tidy(
        axes,
        "One thread, one durable put of 256 B at a time: how long it waits",
        "µs (further left is better)",
        "share of the puts that took no longer",
    )
    axes.legend(fontsize=8, loc="lower right", framealpha=0.95)
    figure.subplots_adjust(left=0.11, right=0.97, bottom=0.14, top=0.93)
    return figure


def growth(results: dict[str, Any]) -> Figure | None:
    """What a put costs, and how much memory is resident, over the size of the store."""
    rows = rows_of(results, "growth")
    if not rows:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(13.2, 4.8))
    panels: list[tuple[Axes, Callable[[Row], list[float]], str, str]] = [
        (left, lambda row: row["values"], "A durable put while the store grows", "p50, µs"),
        (
            right,
            lambda row: [size / 2**20 for size in row["memory_bytes"]],
            "Resident memory of the process, interpreter included",
            "MiB",
        ),
    ]
    for axes, values, title, unit in panels:
        ends = []
        for row in rows:
            sizes = [size / 1e9 for size in row["store_bytes"]]
            axes.plot(sizes, values(row), **style(row["contender"]))
            ends.append((row["contender"], sizes[-1], values(row)[-1]))
        if axes is left:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(short))
            axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
            axes.yaxis.set_minor_formatter(FuncFormatter(short))
            axes.tick_params(axis="y", which="minor", labelsize=7)
        else:
            axes.set_ylim(bottom=0)
        tidy(axes, title, "payload written so far, GB", f"{unit} (lower is better)")
        label_ends(axes, ends)
    figure.subplots_adjust(left=0.06, right=0.91, bottom=0.15, top=0.92, wspace=0.32)
    return figure


def bulk(results: dict[str, Any]) -> Figure | None:
    """Durable batches and scans, as bars."""
    panels = [
        ("batches", "Durable batches of 1,000 records of 256 B"),
        ("scan", "Reading records of 256 B into a Python loop"),
    ]
    shown = [panel for panel in panels if rows_of(results, panel[0])]
    if not shown:
        return None
    figure, all_axes = plt.subplots(1, len(shown), figsize=(6.6 * len(shown), 4.4), squeeze=False)
    for axes, (group, title) in zip(all_axes[0], shown, strict=True):
        rows = sorted(rows_of(results, group), key=lambda row: float(row["median"]))
        values = [row["median"] for row in rows]
        errors = [
            [row["median"] - row["min"] for row in rows],
            [row["max"] - row["median"] for row in rows],
        ]
        names = [label(row) for row in rows]
        axes.barh(names, values, color=[COLOURS.get(row["contender"], "#555") for row in rows])
        axes.errorbar(
            values, names, xerr=errors, fmt="none", ecolor="#333333", elinewidth=0.8, capsize=2
        )
        for row in rows:
            axes.text(
                row["max"],
                label(row),
                f"  {row['median'] / 1e6:.2f} M/s, {row['median'] * 256 / 1e6:,.0f} MB/s",
                va="center",
                fontsize=8,
            )
        axes.set_xlim(0, max(row["max"] for row in rows) * 1.45)
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        tidy(axes, title, "records per second (longer is better)", "")
        axes.grid(visible=False, axis="y")
    left = 0.24 if len(shown) == 1 else 0.12
    figure.subplots_adjust(left=left, right=0.98, bottom=0.17, top=0.91, wspace=0.42)
    return figure


PLOTS: dict[str, Callable[[dict[str, Any]], Figure | None]] = {
    "throughput": throughput,
    "latency": latency,
    "bulk": bulk,
    "growth": growth,
}


def draw(source: Path) -> list[Path]:
    """Draw every plot that a results file bears; return the pictures."""
    results = json.loads(source.read_text(encoding="utf-8"))
    written = []
    for name, plot in PLOTS.items():
        figure = plot(results)
        if figure is not None:
            path = source.with_name(f"{source.stem}-{name}.png")
            finish(figure, results, path)
            written.append(path)
    return written


def main() -> int:
    """Draw for each file that is named, or for all that are stored."""
    named = [Path(word) for word in sys.argv[1:]]
    sources = named or sorted((HERE / "results").glob("*.json"))
    for source in sources:
        if "ratios" in json.loads(source.read_text(encoding="utf-8")):
            print("\n".join(map(str, draw(source))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
