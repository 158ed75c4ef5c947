"""Line charts in HTML and SVG: lines stretch with the page, text keeps its size.

Without a library, since a page must be written within milliseconds and must not load anything. What
a line means is told by its dashes and its entry in the legend too, never by its colour alone.
"""

import dataclasses
import html
import json
import math
from collections.abc import Iterable, Sequence

MAX_POINTS = 400
NUM_TICKS = 5
# The side of the drawing, which is stretched to whatever room there is.
SIDE = 1000


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of a plot.

    Attributes:
        label: Its entry in the legend, which has its last value too.
        points: (x, y) in ascending x; those without y are left out.
        look: Which colour and which dashes, 0 to 3.
        is_faint: Drawn thin, behind the others.
        is_stepped: Keeps a value until the next.
    """

    label: str
    points: Iterable[tuple[float, float | None]]
    look: int = 0
    is_faint: bool = False
    is_stepped: bool = False


def plot(
    title: str,
    curves: Sequence[Curve],
    *,
    unit: str = "",
    right: float = 0.0,
    from_zero: bool = False,
    marks: Sequence[float] = (),
) -> str:
    """Draw curves over epochs.

    Args:
        title: Heading of the plot.
        curves: Those without points are left out; without any the plot says so.
        unit: Of y, written behind values.
        right: The last x that is shown, at least.
        from_zero: Whether y begins at 0; else it fits the values.
        marks: Where to draw lines across; empty: at round numbers.

    Returns:
        A `figure` element. Its data attribute has the drawn values for the script of the page.
    """
    drawn = [
        (curve, points)
        for curve in curves
        if (
            points := _thin([(x, y) for x, y in curve.points if y is not None and math.isfinite(y)])
        )
    ]
    heading = f"<h3>{html.escape(title)}</h3>"
    if not drawn:
        return f'<figure class="plot">{heading}<p class="quiet">nothing yet</p></figure>'
    values = [y for _, points in drawn for _, y in points]
    ticks = list(marks) or _ticks(0.0 if from_zero else min(values), max(values))
    low, high = min(ticks[0], *values), max(ticks[-1], *values)
    low, high = (low - 1, high + 1) if low == high else (low, high)
    width = max([right, *(x for _, points in drawn for x, _ in points)]) or 1.0

    def place(x: float, y: float) -> str:
        return f"{SIDE * x / width:.1f},{SIDE * (high - y) / (high - low):.1f}"

    lines = []
    for curve, points in drawn:
        corners = _stairs(points) if curve.is_stepped else points
        # A line of no length is a dot, by its round ends.
        corners = corners if len(corners) > 1 else corners * 2
        path = "M" + " ".join(place(x, y) for x, y in corners)
        dot = " dot" * (len(points) == 1)
        lines.append(f'<path class="{_look(curve)}{dot}" d="{path}"/>')
    grid = [f'<path class="grid" d="M{place(0, y)} {place(width, y)}"/>' for y in ticks]
    legend = [
        f'<li><svg class="key" viewBox="0 0 24 4" aria-hidden="true"><path class="{_look(curve)}"'
        f' d="M1,2 23,2"/></svg>{html.escape(curve.label)} '
        f"<b>{html.escape(number(points[-1][1], unit))}</b></li>"
        for curve, points in drawn
    ]
    summary = f"{title} up to epoch {number(width)}. " + " ".join(
        f"{curve.label}: {number(points[0][1], unit)} at first, {number(points[-1][1], unit)} at "
        f"last, between {number(min(y for _, y in points), unit)} and "
        f"{number(max(y for _, y in points), unit)}."
        for curve, points in drawn
    )
    data = {
        "width": width,
        "unit": unit,
        "curves": [
            {"label": curve.label, "points": [[_short(x), _short(y)] for x, y in points]}
            for curve, points in drawn
        ],
    }
    y_labels = [
        f'<span style="top:{100 * (high - y) / (high - low):.2f}%">{number(y)}</span>'
        for y in ticks
    ]
    x_labels = [
        f'<span style="left:{100 * x / width:.2f}%">{number(x)}</span>'
        for x in _ticks(0, width, whole=True)
        if x <= width
    ]
    return (
        f'<figure class="plot" tabindex="0" aria-label="{html.escape(summary)}" '
        f'data-plot="{html.escape(json.dumps(data, separators=(",", ":")))}">{heading}'
        f'<ul class="legend">{"".join(legend)}</ul>'
        f'<div class="frame" aria-hidden="true"><div class="y">{"".join(y_labels)}</div>'
        f'<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none">{"".join(grid + lines)}</svg>'
        f'<div class="x">{"".join(x_labels)}<span class="unit">epoch</span></div></div>'
        '<p class="readout" aria-live="polite"></p></figure>'
    )


def _look(curve: Curve) -> str:
    return f"look{curve.look}" + (" faint" if curve.is_faint else "")


def number(value: float, unit: str = "") -> str:
    """Write a number in up to four digits: 0.7134, 12.5 %, 1,234, 4.2e-05."""
    size = abs(value)
    if size >= 1000 or (value == int(value) and size < 1e15):
        text = f"{value:,.0f}"
    elif size >= 1e-3:
        text = f"{value:.{max(0, 3 - math.floor(math.log10(size)))}f}".rstrip("0").rstrip(".")
    else:
        text = f"{value:.2g}"
    return f"{text} {unit}" if unit else text


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average neighbours, so that no line has more points than anyone can see."""
    if len(points) <= MAX_POINTS:
        return points
    size = math.ceil(len(points) / MAX_POINTS)
    parts = [points[begin : begin + size] for begin in range(0, len(points), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def _stairs(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    corners = points[:1]
    for x, y in points[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return corners


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Choose round numbers that enclose a range, at least two."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / NUM_TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= NUM_TICKS)
    step = max(1.0, step) if whole else step
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(index * step, 12) for index in range(first, last + 1)]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
