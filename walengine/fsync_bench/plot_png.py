"""The plots of a run as one PNG; matplotlib is imported only here (extra: plot)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from walengine.errors import WalError
from walengine.fsync_bench import plot_data
from walengine.fsync_bench.results import Run

SIZE_INCHES = (13, 9)
DOTS_PER_INCH = 110


def check_matplotlib() -> None:
    """See that there is matplotlib, before anything is measured for it.

    Raises:
        WalError: There is none; the message says how to get it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise WalError("--png draws with matplotlib: pip install 'walengine[plot]'.")


def write_png(run: Run, path: Path) -> None:
    """Write the file.

    Raises:
        OSError: It cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 (an extra)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    _spans(axes[0][0], run)
    _rates(axes[0][1], run)
    _tails(axes[1][0], run)
    _bulk(axes[1][1], run)
    place = run.place
    title = f"walengine bench fsync: {place.get('directory')} ({place.get('filesystem')})"
    # A directory's name is no formula, and may hold bytes that are no text.
    shown = title.encode(errors="backslashreplace").decode()
    figure.suptitle(shown, parse_math=False)
    figure.savefig(path, format="png", dpi=DOTS_PER_INCH)


def _spans(axis: Any, run: Run) -> None:
    spans = list(reversed(plot_data.spans(run)))
    labels = [span.label for span in spans]
    ends = [span.p99_us or span.p90_us or span.p50_us for span in spans]
    widths = [end - span.p50_us for end, span in zip(ends, spans, strict=True)]
    axis.barh(labels, widths, left=[span.p50_us for span in spans], height=0.6)
    axis.plot([span.p50_us for span in spans], labels, "k|")
    axis.set(title="one writer: p50 to p99", xlabel="µs", xscale="log")
    _plain_ticks(axis)


def _plain_ticks(axis: Any) -> None:
    """Give a log scale that spans little a few round numbers: its own labels would overlap."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # noqa: PLC0415

    axis.use_sticky_edges = False  # or the shortest bar begins in the frame
    axis.autoscale_view()
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _rates(axis: Any, run: Run) -> None:
    for line in plot_data.rates(run):
        axis.plot(*zip(*line.points, strict=True), marker="o", label=line.label)
    axis.set(title="commits/s (4 KiB, zero-filled)", xlabel="at once", xscale="log", yscale="log")
    axis.set_xticks(plot_data.AT_ONCE, [str(count) for count in plot_data.AT_ONCE])
    _legend(axis)


def _tails(axis: Any, run: Run) -> None:
    for line in plot_data.tails(run):
        axis.plot(*zip(*line.points, strict=True), label=line.label)
    axis.set(title="share of commits that took longer (one writer, zero-filled)", xlabel="µs",
             xscale="log", yscale="log")  # fmt: skip
    _legend(axis)


def _bulk(axis: Any, run: Run) -> None:
    bars = list(reversed(plot_data.bulk(run)))
    axis.barh([label for label, _ in bars], [value for _, value in bars], height=0.6)
    axis.set(title="bulk, durable", xlabel="MB/s")


def _legend(axis: Any) -> None:
    if axis.get_legend_handles_labels()[1]:
        axis.legend(fontsize="small")
