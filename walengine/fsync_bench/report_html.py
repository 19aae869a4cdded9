"""A run as one HTML page that needs nothing else: style, tables and plots are in it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from walengine.fsync_bench import plot_data, plot_svg
from walengine.fsync_bench.report_table import (
    BEST,
    COLUMNS,
    NOTHING,
    TEXT_COLUMNS,
    TOO_FAST,
    cells,
    problems,
)
from walengine.fsync_bench.results import RowResult, Run
from walengine.fsync_bench.rows import SECTIONS
from walengine.fsync_bench.verdict import SETTLE_FIRST, Words

STYLE = """
:root { --ink: #1d2430; --dim: #5c6675; --paper: #fff; --line: #dde2e9; --card: #f6f8fa;
  --good: #0f7b3c; --bad: #b3261e; --c0: #2f6fde; --c1: #d9730d; --c2: #14866d; --c3: #9b4dca;
  --c4: #c2255c; --c5: #6b7280; --c6: #b08900; --c7: #5c940d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --dim: #9aa4b2; --paper: #14181f;
  --line: #2c3440; --card: #1b212b; --good: #4fc97d; --bad: #ff7b72; --c0: #6ea8fe; --c1: #ffa94d;
  --c2: #4fd1b1; --c3: #c792ea; --c4: #f783ac; --c5: #adb5bd; --c6: #ffd43b; --c7: #a9e34b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1060px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.place { color: var(--dim); margin-top: 0; }
table { border-collapse: collapse; width: 100%; font-size: .84rem; }
.scroll { overflow-x: auto; }
th, td { text-align: right; padding: .22rem .5rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th { color: var(--dim); font-weight: 600; }
th.text, td.text { text-align: left; }
tr.best td { color: var(--good); font-weight: 600; } tr.bad td { color: var(--bad); }
tr.off td { color: var(--dim); }
ul.bad li { color: var(--bad); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .8rem;
  overflow-x: auto; font-size: .84rem; }
svg { width: 100%; max-width: 820px; display: block; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .grid { stroke: var(--line); }
svg .mark { stroke: var(--paper); stroke-width: 2; }
svg polyline { fill: none; } svg polyline, svg line[class^=s] { stroke-width: 2; }
""" + "\n".join(
    f"svg .c{n} {{ fill: var(--c{n}); }} svg .s{n} {{ stroke: var(--c{n}); }}" for n in range(8)
)

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>walengine bench fsync</title>
<style>{style}</style></head>
<body>
<h1>What durability costs on this disk</h1>
<p class="place">{place}</p>
{body}
</body></html>
"""


def write_html(run: Run, words: Words, path: Path) -> None:
    """Write the page.

    Raises:
        OSError: It cannot be written.
    """
    # A directory's name may hold bytes that are no text.
    path.write_text(html_of(run, words), encoding="utf-8", errors="backslashreplace")


def html_of(run: Run, words: Words) -> str:
    """Return the page."""
    body = [
        _chapter("What this disk can do", _list(words.summary)),
        _chapter("Which configuration of walengine to use on it", _advice(words)),
        _chapter("Can its syncs be trusted?",
                 _list(words.trust, "bad" if words.suspicions else "")),
        _chapter("For comparison", _list([words.etcd, words.postgres])),
        *_plots(run),
        *(_section(run, words, section) for section in SECTIONS),
        _list(problems(run)),
        _chapter("Where this was measured", _facts(run)),
    ]  # fmt: skip
    return PAGE.format(style=STYLE, place=escape(_place(run.place)), body="\n".join(body))


def _place(place: dict[str, Any]) -> str:
    devices = ", ".join(device["name"] for device in place.get("devices", ()))
    on = f" on {devices}" if devices else ""
    return f"{place.get('directory')} · {place.get('filesystem')}{on} · {place.get('time')}"


def _plots(run: Run) -> list[str]:
    def share(value: float) -> str:
        return f"{value * 100:g} %"

    def rate(value: float) -> str:
        return f"{value:,.0f}"

    named = (
        ("Latency of a commit, one writer", plot_svg.span_plot(plot_data.spans(run))),
        ("Commits a second over how many at once (4 KiB, zero-filled)",
         plot_svg.line_plot(plot_data.rates(run), "at once", "commits/s", rate,
                            plot_data.AT_ONCE)),
        ("The tail: how many commits took longer (one writer, zero-filled)",
         plot_svg.line_plot(plot_data.tails(run), "latency", "took longer", share)),
        ("Bulk, durable", plot_svg.bar_plot(plot_data.bulk(run), "MB/s")),
    )  # fmt: skip
    return [_chapter(title, plot) for title, plot in named if plot]


def _section(run: Run, words: Words, section: str) -> str:
    results = [result for result in run.results if result.row.section == section]
    if not results:
        return ""
    head = "".join(f"<th{_text(n)}>{escape(name)}</th>" for n, name in enumerate(COLUMNS))
    body = "".join(_row(result, words.best) for result in results)
    table = f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
    return _chapter(f"{section[:1].upper()}{section[1:]} (µs)", table)


def _row(result: RowResult, best: list[str]) -> str:
    values = cells(result, best)
    kind = {BEST: "best", TOO_FAST: "bad"}.get(values[-1], "off" if result.problem else "")
    cells_html = "".join(f"<td{_text(n)}>{escape(value)}</td>" for n, value in enumerate(values))
    return f'<tr class="{kind}">{cells_html}</tr>'


def _text(column: int) -> str:
    return ' class="text"' if column < TEXT_COLUMNS else ""


def _advice(words: Words) -> str:
    if not words.choices:
        return "<p>Too little was measured to say.</p>"
    doubt = f"<p>{escape(SETTLE_FIRST)}</p>" if words.suspicions else ""
    return doubt + "".join(
        f"<p>For {escape(choice.need)}: <code>{escape(choice.config)}</code>. "
        f"{escape(choice.why)}</p><pre>{escape(choice.code)}</pre>"
        for choice in words.choices
    )


def _facts(run: Run) -> str:
    facts = {
        name: _fact(value)
        for name, value in run.place.items()
        if name not in {"has_io_uring", "in_memory"}
    }
    facts["seconds per row"] = f"{run.seconds_per_row:g}"
    rows = "".join(
        f'<tr><td class="text">{escape(name.replace("_", " "))}</td>'
        f'<td class="text">{escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f'<div class="scroll"><table>{rows}</table></div>'


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(_fact(each) for each in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_fact(each)}" for name, each in value.items())
    return NOTHING if value is None else str(value)


def _list(lines: Sequence[str], kind: str = "") -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>'


def _chapter(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}"
