"""Draw what ``make bench-buffer`` came to: one picture beside its JSON file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from plots import NINES, OURS, finish, rows_of, short, tidy

STORES = {"local": OURS, "seaweedfs": "#2b8a6e", "memory": "#777777"}
DASHES = {"produce to durable": "-", "produce to consumed": (0, (4, 2))}

Results = dict[str, Any]


def draw(source: Path) -> list[Path]:
    """Draw the results of a file; return the pictures."""
    results = json.loads(source.read_text(encoding="utf-8"))
    panels = [panel for group, panel in PANELS.items() if rows_of(results, group)]
    if not panels:
        return []
    figure = _figure(results, panels)
    path = source.with_name(f"{source.stem}-path.png")
    finish(figure, results, path)
    return [path]


def _figure(results: Results, panels: list[Any]) -> Figure:
    figure, all_axes = plt.subplots(1, len(panels), figsize=(6.4 * len(panels), 5), squeeze=False)
    for axes, panel in zip(all_axes[0], panels, strict=True):
        panel(axes, results)
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.17, top=0.91, wspace=0.28)
    return figure


def throughput(axes: Axes, results: Results) -> None:
    """Entries a second, beside what the disk allows."""
    rows = rows_of(results, "throughput")[::-1]
    names = [f"{row['store']}\n{row['contender'].split(', ')[-1]}" for row in rows]
    values = [row["median"] for row in rows]
    errors = [[row["median"] - row["min"] for row in rows],
              [row["max"] - row["median"] for row in rows]]  # fmt: skip
    names = [
        "disk alone\nfiles of 8 MiB" if "files" in row["contender"] else name
        for row, name in zip(rows, names, strict=True)
    ]
    colours = ["#777777" if "files" in row["contender"] else STORES[row["store"]] for row in rows]
    axes.barh(names, values, color=colours)
    axes.errorbar(values, names, xerr=errors, fmt="none", ecolor="#333333", elinewidth=0.8)
    for row, name in zip(rows, names, strict=True):
        text = f"  {row['median'] / 1e3:,.0f} k/s, {row['mb_s']['median']:,.0f} MB/s"
        axes.text(row["max"], name, text, va="center", fontsize=8)
    axes.set_xlim(0, max(row["max"] for row in rows) * 1.5)
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    axes.tick_params(axis="y", labelsize=7.5)
    tidy(axes, "Entries of 1 KiB through the queue", "entries per second (longer is better)", "")


def latency(axes: Axes, results: Results) -> None:
    """How long a call takes until it is durable, and until it is consumed."""
    for row in rows_of(results, "latency"):
        if not row["cdf_us"]:
            continue
        width = 2.4 if row["flush_interval_ms"] == 100 else 1.2
        axes.plot(
            [us / 1000 for _, us in row["cdf_us"]],
            [1 - share for share, _ in row["cdf_us"]],
            color=STORES[row["store"]],
            linestyle=DASHES[row["contender"]],
            linewidth=width,
            label=f"{row['store']}, {row['flush_interval_ms']} ms, to "
            f"{row['contender'].split()[-1]}: p50 {row['latency_us']['p50'] / 1000:.0f} ms",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_yaxis()
    axes.yaxis.set_major_locator(FixedLocator([1 - nine / 100 for nine in NINES]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * (1 - value):g} %"))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(left=axes.get_xlim()[0] / 20)  # room for the legend
    axes.legend(fontsize=6.5, loc="upper left", framealpha=0.95)
    tidy(
        axes, "How long a call takes, by flush_interval", "ms (further left is better)",
        "share of the calls that took no longer",
    )  # fmt: skip


def swaps(axes: Axes, results: Results) -> None:
    """Appends a second over producers, and the share that is lost to others."""
    rows = rows_of(results, "swaps")
    for store in dict.fromkeys(row["store"] for row in rows):
        mine = [row for row in rows if row["store"] == store]
        counts = [row["producers"] for row in mine]
        axes.plot(counts, [row["median"] for row in mine], marker="o", color=STORES[store],
                  label=f"{store}: swaps")  # fmt: skip
        axes.plot(counts, [row["batches_s"]["median"] for row in mine], marker=".",
                  linestyle=":", color=STORES[store], label=f"{store}: batches")  # fmt: skip
        for row in mine:
            axes.annotate(f"{row['conflict_percent']['median']:.0f} %",
                          (row["producers"], row["median"]), fontsize=7.5,
                          textcoords="offset points", xytext=(4, 5))  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(FixedLocator(sorted({row["producers"] for row in rows})))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(short))
    axes.legend(fontsize=7.5)
    tidy(axes, "One manifest, several producers (percent: conflicts)", "producers", "per second")


PANELS = {"throughput": throughput, "latency": latency, "swaps": swaps}


def main() -> int:
    """Draw for each file that is named."""
    for word in sys.argv[1:]:
        print("\n".join(map(str, draw(Path(word)))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
