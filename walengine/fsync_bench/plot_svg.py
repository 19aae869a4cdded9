"""Plots as inline SVG: text and shapes, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from walengine.fsync_bench.plot_data import Line, Span

WIDTH = 760
LABEL_WIDTH = 230
RIGHT = 70
ROW_HEIGHT = 24
CURVE_HEIGHT = 320
TOP = 14
BOTTOM = 40
LEFT = 70
LEGEND_ROW = 18
DECADE = 10.0

Scale = Callable[[float], float]


def span_plot(spans: Sequence[Span]) -> str:
    """Return bars from p50 to p99 with a mark at p90, on a logarithmic axis."""
    values = [value for span in spans for value in (span.p50_us, span.p99_us) if value]
    if not values:
        return ""
    x, ticks = _logarithmic(values, LABEL_WIDTH, WIDTH - RIGHT)
    height = TOP + len(spans) * ROW_HEIGHT + BOTTOM
    parts = [_grid_line(x(tick), TOP, height - BOTTOM) for tick in ticks]
    parts += [_text(x(tick), height - BOTTOM + 16, _us(tick), "middle") for tick in ticks]
    for number, span in enumerate(spans):
        y = TOP + number * ROW_HEIGHT + ROW_HEIGHT / 2
        parts.append(_text(LABEL_WIDTH - 8, y + 4, span.label, "end"))
        parts += _span(span, x, y)
    parts.append(_text((LABEL_WIDTH + WIDTH - RIGHT) / 2, height - 6, "bar: p50 to p99, mark: p90",
                       "middle"))  # fmt: skip
    return _svg(height, parts, "latency of one writer's commits")


def _span(span: Span, x: Scale, y: float) -> list[str]:
    end = span.p99_us or span.p90_us or span.p50_us
    begin_x, end_x = x(span.p50_us), x(end)
    shape = (
        f'<rect class="c0" x="{begin_x:.1f}" y="{y - 6:.1f}" '
        f'width="{max(end_x - begin_x, 2):.1f}" height="12" rx="2"/>'
    )
    parts = [shape]
    if span.p90_us:
        mark = x(span.p90_us)
        parts.append(f'<line class="mark" x1="{mark:.1f}" x2="{mark:.1f}" '
                     f'y1="{y - 6:.1f}" y2="{y + 6:.1f}"/>')  # fmt: skip
    parts.append(_text(end_x + 5, y + 4, _us(span.p50_us), "start"))
    return parts


def bar_plot(bars: Sequence[tuple[str, float]], unit: str) -> str:
    """Return horizontal bars from zero."""
    if not bars:
        return ""
    most = max(value for _, value in bars)
    height = TOP + len(bars) * ROW_HEIGHT + TOP
    parts = []
    for number, (label, value) in enumerate(bars):
        y = TOP + number * ROW_HEIGHT + ROW_HEIGHT / 2
        width = (WIDTH - LABEL_WIDTH - RIGHT - 20) * value / most
        parts.append(_text(LABEL_WIDTH - 8, y + 4, label, "end"))
        parts.append(f'<rect class="c0" x="{LABEL_WIDTH}" y="{y - 7:.1f}" width="{width:.1f}" '
                     'height="14" rx="2"/>')  # fmt: skip
        parts.append(_text(LABEL_WIDTH + width + 5, y + 4, f"{value:,.0f} {unit}", "start"))
    return _svg(height, parts, f"bulk, {unit}")


def line_plot(lines: Sequence[Line], x_title: str, y_title: str, y_text: Callable[[float], str],
              x_ticks: Sequence[float] | None = None) -> str:  # fmt: skip
    """Return curves on two logarithmic axes, with a legend below."""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    if not xs:
        return ""
    x, found = _logarithmic([*xs, *(x_ticks or ())], LEFT, WIDTH - RIGHT)
    y, y_ticks = _logarithmic(ys, CURVE_HEIGHT - BOTTOM, TOP)
    parts = []
    for tick in y_ticks:
        parts.append(_level_line(y(tick)))
        parts.append(_text(LEFT - 6, y(tick) + 4, y_text(tick), "end"))
    for tick in x_ticks or found:
        parts.append(_grid_line(x(tick), TOP, CURVE_HEIGHT - BOTTOM))
        label = f"{tick:g}" if x_ticks else _us(tick)
        parts.append(_text(x(tick), CURVE_HEIGHT - BOTTOM + 16, label, "middle"))
    for number, line in enumerate(lines):
        parts += _curve(line, number, x, y, with_dots=x_ticks is not None)
        parts += _legend(line.label, number)
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, CURVE_HEIGHT - 6, x_title, "middle"))
    parts.append(_text(LEFT, TOP - 2, y_title, "start"))
    height = CURVE_HEIGHT + LEGEND_ROW * math.ceil(len(lines) / 2) + TOP
    return _svg(height, parts, f"{y_title} over {x_title}")


def _curve(line: Line, number: int, x: Scale, y: Scale, *, with_dots: bool) -> list[str]:
    places = [(x(a), y(b)) for a, b in line.points]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    parts = [f'<polyline class="s{number}" points="{points}"/>']
    if with_dots:
        parts += [f'<circle class="c{number}" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>'
                  for a, b in places]  # fmt: skip
    return parts


def _legend(label: str, number: int) -> list[str]:
    left = LEFT + (number % 2) * (WIDTH - LEFT) / 2
    y = CURVE_HEIGHT + TOP + LEGEND_ROW * (number // 2)
    return [
        f'<line class="s{number}" x1="{left}" x2="{left + 22}" y1="{y - 4}" y2="{y - 4}"/>',
        _text(left + 28, y, label, "start"),
    ]


# ---- axes and shapes -----------------------------------------------------------------------------


def _logarithmic(values: Sequence[float], begin: float, end: float) -> tuple[Scale, list[float]]:
    """Return a scale from the first power below the values to the first above, and its ticks."""
    low = math.floor(math.log10(min(values)))
    high = math.ceil(math.log10(max(values)))
    if low == high:
        high += 1

    def scale(value: float) -> float:
        return begin + (math.log10(value) - low) / (high - low) * (end - begin)

    return scale, [DECADE**power for power in range(low, high + 1)]


def _us(value: float) -> str:
    for size, unit in ((1e6, "s"), (1e3, "ms")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} µs"


def _grid_line(x: float, top: float, bottom: float) -> str:
    return f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'


def _level_line(y: float) -> str:
    return f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
