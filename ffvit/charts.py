"""Charts of runs: small multiples with directly labelled lines, drawn without a display.

What was measured at the end of epoch e, counted from 1, is drawn at e; means over it at e - 0.5.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ffvit.anchors import ANCHORS
from ffvit.runlog import Run

# Told apart by people with any colour vision. Source: Okabe & Ito, Color Universal Design, 2008.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PANEL_WIDTH_IN, PANEL_HEIGHT_IN = 3.6, 2.7
LABEL_SIZE_PT = 8.5
LABEL_LENGTH = 30
GREY = "#666666"
STYLE: Any = {
    "text.parse_math": False,  # a run's name may have a $ in it
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#808080",
    "axes.labelcolor": "#404040",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": "#808080",
    "ytick.color": "#808080",
    "xtick.labelcolor": "#404040",
    "ytick.labelcolor": "#404040",
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart; points whose y is None are left out."""

    x: Sequence[float]
    y: Sequence[float | None]
    color: str
    label: str = ""
    style: str = "-"
    width: float = 1.8
    alpha: float = 1.0
    is_stepped: bool = False


def overview(run: Run, title: str, path: Path) -> None:
    """Draw one run's loss, accuracy and resolution by epoch."""
    figure, (loss, accuracy_, resolution) = _panels(3, title)
    ends = [epoch["epoch"] for epoch in run.validated]
    first, second, third = PALETTE[:3]
    _draw(
        loss,
        "Loss, cross-entropy",
        "epoch",
        [
            Line(
                [step["step"] / _steps_per_epoch(run) for step in run.steps],
                [step["loss"] for step in run.steps],
                first,
                width=0.8,
                alpha=0.35,
            ),
            _mean_by_epoch(run, "train_loss", first, "training"),
            Line(ends, [epoch["loss"] for epoch in run.validated], second, "validation"),
        ],
    )
    _draw(
        accuracy_,
        "Validation accuracy, %",
        "epoch",
        [
            _accuracy_line(ends, run, "top_5", third, "top-5"),
            _accuracy_line(ends, run, "top_1", first, "top-1"),
            _accuracy_line(ends, run, "ema_top_1", first, "top-1 of EMA", style=":"),
        ],
    )
    _draw(resolution, "Training resolution, px", "epoch", [_resolution_line(run, first)])
    resolution.set_yticks(sorted({epoch["resolution"] for epoch in run.epochs}))
    _save(figure, path)


def accuracy(runs: Sequence[Run], path: Path) -> None:
    """Draw top-1 against epochs, images seen, and GPU-hours or, with a CPU run, wall time."""
    figure, panels = _panels(3, "Validation top-1, %" + _ema_note(runs))
    hours_label, hours = _cost_axis(runs)
    axes_of_x: list[tuple[str, Callable[[dict[str, Any]], float]]] = [
        ("epochs", lambda epoch: float(epoch["epoch"])),
        ("images seen", lambda epoch: float(epoch["images_seen"])),
        (hours_label, hours),
    ]
    for axes, (x_label, x_of) in zip(panels, axes_of_x, strict=True):
        is_last = axes is panels[-1]
        lines = []
        for run, color in _colored(runs):
            x = [x_of(epoch) for epoch in run.validated]
            lines.append(_accuracy_line(x, run, "ema_top_1", color, "", style=":"))
            lines.append(_accuracy_line(x, run, "top_1", color, run.name if is_last else ""))
        _draw(axes, "", x_label, lines)
    panels[1].xaxis.set_major_formatter(FuncFormatter(_short_count))
    _save(figure, path)


def training(runs: Sequence[Run], path: Path) -> None:
    """Draw training and validation loss, learning rate and resolution by epoch."""
    figure, panels = _panels(4, "Training", num_columns=2)
    rate, loss, resolution, validation_loss = panels
    lines: dict[Axes, list[Line]] = {axes: [] for axes in panels}
    for run, color in _colored(runs):
        records, per_epoch, key = run.steps, _steps_per_epoch(run), "step"
        if not records:
            records, per_epoch, key = run.epochs, 1.0, "epoch"
        lines[rate].append(
            Line(
                [record[key] / per_epoch for record in records],
                [record["learning_rate"] for record in records],
                color,
            )
        )
        lines[loss].append(_mean_by_epoch(run, "train_loss", color, run.name))
        lines[resolution].append(_resolution_line(run, color))
        ends = [epoch["epoch"] for epoch in run.validated]
        lines[validation_loss].append(Line(ends, [epoch["loss"] for epoch in run.validated], color))
    titles = ("Learning rate", "Training loss", "Resolution, px", "Validation loss")
    for (axes, drawn), title in zip(lines.items(), titles, strict=True):
        _draw(axes, title, "epoch", drawn, least_top=0 if axes is rate else None)
    rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    resolution.set_yticks(sorted({epoch["resolution"] for run in runs for epoch in run.epochs}))
    _save(figure, path)


def throughput(runs: Sequence[Run], path: Path) -> None:
    """Draw images per second and the share of time spent waiting for data by epoch."""
    figure, (speed, wait) = _panels(2, "Throughput of training")
    colored = _colored(runs)
    _draw(
        speed,
        "Images per second",
        "epoch",
        [_mean_by_epoch(run, "images_per_s", color) for run, color in colored],
        least_top=0,
    )
    speed.yaxis.set_major_formatter(FuncFormatter(_short_count))
    _draw(
        wait,
        "Waiting for data, % of the time",
        "epoch",
        [
            _mean_by_epoch(run, "data_wait_fraction", color, run.name, factor=100)
            for run, color in colored
        ],
        least_top=10,
    )
    _save(figure, path)


def against_published(runs: Sequence[Run], path: Path) -> None:
    """Draw top-1 of runs against their GPU-hours, in colour, beside published results, in grey."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 4.6), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
        axes = figure.subplots()
        names = dict.fromkeys(anchor.name for anchor in ANCHORS if anchor.hours)
        for name, marker in zip(names, "s^Dvph", strict=False):
            found = [anchor for anchor in ANCHORS if anchor.name == name and anchor.hours]
            x, y = [anchor.hours or 0.0 for anchor in found], [anchor.top_1 for anchor in found]
            line = "-" if len(found) > 2 else "none"
            axes.plot(x, y, linestyle=line, marker=marker, color=GREY, linewidth=1, markersize=4)
            label = f"{name}, {found[0].publisher}\n"
            label += f"{found[0].epochs} to {found[-1].epochs} epochs, {found[0].device}-h"
            _write_beside(axes, (x[0], y[0]), (-7, 0), label, GREY, ha="right")
        for run, color in _colored(runs):
            x = [epoch["gpu_hours"] for epoch in run.validated]
            y = [100 * epoch["top_1"] for epoch in run.validated]
            axes.plot(x, y, color=color, linewidth=1, alpha=0.6)
            axes.plot(x[-1:], y[-1:], "o", color=color, markersize=7)
            _write_beside(axes, (x[-1], y[-1]), (9, -8), f"{y[-1]:.1f} {run.name}", color)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylim(bottom=55)
        axes.set_xlim(left=min([0.06, *(run.epochs[-1]["gpu_hours"] / 2 for run in runs)]))
        right = axes.get_xlim()[1]
        for anchor in ANCHORS:
            if anchor.hours is None:
                axes.axhline(anchor.top_1, color=GREY, linewidth=1, linestyle=":")
                label = f"{anchor.top_1} {anchor.name}, {anchor.publisher}\n"
                label += f"{anchor.epochs} epochs, cost not published"
                _write_beside(axes, (right, anchor.top_1), (5, 0), label, GREY)
        axes.set_xlabel("hours of the device used, training and validation")
        axes.set_title("ImageNet top-1, %: these runs in colour, published by others in grey")
    _save(figure, path)


def _write_beside(
    axes: Axes,
    point: tuple[float, float],
    offset: tuple[float, float],
    text: str,
    color: str,
    ha: Literal["left", "right"] = "left",
) -> None:
    """Write a text beside a point of the data, so many points of the page away."""
    axes.annotate(
        text,
        point,
        xytext=offset,
        textcoords="offset points",
        ha=ha,
        va="center",
        color=color,
        fontsize=LABEL_SIZE_PT - 1,
    )


def _cost_axis(runs: Sequence[Run]) -> tuple[str, Callable[[dict[str, Any]], float]]:
    """Choose what a run costs: GPU-hours, or wall time where a run was on a CPU."""
    if all(run.is_on_gpu for run in runs):
        return "GPU-hours", lambda epoch: float(epoch["gpu_hours"])
    place = "some runs on CPUs" if any(run.is_on_gpu for run in runs) else "on CPUs"
    longest_s = max(run.epochs[-1]["elapsed_s"] for run in runs)
    unit, unit_s = ("hours", 3600) if longest_s >= 3600 else ("minutes", 60)
    return f"{unit} of wall time ({place})", lambda epoch: epoch["elapsed_s"] / unit_s


def _steps_per_epoch(run: Run) -> float:
    last = run.epochs[-1]
    return float(last["step"] / last["epoch"])


def _colored(runs: Sequence[Run]) -> list[tuple[Run, str]]:
    return [(run, PALETTE[index % len(PALETTE)]) for index, run in enumerate(runs)]


def _ema_note(runs: Sequence[Run]) -> str:
    has_ema = any("ema_top_1" in epoch for run in runs for epoch in run.epochs)
    return " (dotted: averaged weights, EMA)" if has_ema else ""


def _accuracy_line(
    x: Sequence[float], run: Run, key: str, color: str, label: str, style: str = "-"
) -> Line:
    """Draw one accuracy in percent; a label is led by the last value."""
    values = [epoch.get(key) for epoch in run.validated]
    percent = [None if value is None else 100 * value for value in values]
    if label and percent and percent[-1] is not None:
        label = f"{percent[-1]:.1f} {label}"
    return Line(x, percent, color, label, style)


def _mean_by_epoch(run: Run, key: str, color: str, label: str = "", factor: float = 1) -> Line:
    """Draw a mean over each epoch in the epoch's middle."""
    values = [epoch[key] for epoch in run.epochs]
    return Line(
        [epoch["epoch"] - 0.5 for epoch in run.epochs],
        [None if value is None else factor * value for value in values],
        color,
        label,
    )


def _resolution_line(run: Run, color: str) -> Line:
    """Draw each epoch's resolution from its start to its end."""
    values = [epoch["resolution"] for epoch in run.epochs]
    ends = [epoch["epoch"] for epoch in run.epochs]
    return Line([ends[0] - 1, *ends], [*values, values[-1]], color, is_stepped=True)


def _panels(count: int, title: str, num_columns: int = 3) -> tuple[Figure, list[Axes]]:
    """Create a figure with so many panels under one title."""
    num_columns = min(count, num_columns)
    num_rows = -(-count // num_columns)
    with mpl.rc_context(STYLE):
        figure = Figure(
            figsize=(PANEL_WIDTH_IN * num_columns + 0.6, PANEL_HEIGHT_IN * num_rows + 0.4),
            layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08),
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        axes = figure.subplots(num_rows, num_columns, squeeze=False)
    return figure, list(axes.flat)


def _draw(
    axes: Axes,
    title: str,
    x_label: str,
    lines: Sequence[Line],
    least_top: float | None = None,
) -> None:
    """Draw lines into one panel and write each label beside its line's end.

    With `least_top`, y runs from 0 to at least that.
    """
    with mpl.rc_context(STYLE):
        ends = []
        for line in lines:
            points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None]
            if not points:
                continue
            axes.plot(
                *zip(*points, strict=True),
                line.style,
                color=line.color,
                linewidth=line.width,
                alpha=line.alpha,
                drawstyle="steps-post" if line.is_stepped else "default",
                # A run of one epoch is one point, which no line would show.
                marker="o" if len(points) == 1 else "",
                markersize=4,
                clip_on=False,
            )
            if line.label:
                ends.append((points[-1][1], line))
        axes.set_title(title)
        axes.set_xlabel(x_label)
        is_by_epoch = x_label.startswith("epoch")
        right = max((max(line.x) for line in lines if len(line.x)), default=0) or 1
        axes.set_xlim(0, math.ceil(right) if is_by_epoch else right)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=is_by_epoch))
        if least_top is not None:
            axes.set_ylim(0, max(least_top, axes.get_ylim()[1]))
        if not axes.lines:
            axes.text(
                0.5, 0.5, "nothing yet", transform=axes.transAxes, ha="center", color="#808080"
            )
        _write_labels(axes, ends)


def _write_labels(axes: Axes, ends: list[tuple[float, Line]]) -> None:
    """Write labels right of the panel at the heights of the line ends, moved apart if need be."""
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[0])
    heights = [(y - low) / (high - low) for y, _ in ends]
    gap = 1.3 * LABEL_SIZE_PT / (72 * PANEL_HEIGHT_IN * 0.7)
    for index in range(1, len(heights)):
        heights[index] = max(heights[index], heights[index - 1] + gap)
    excess = max(0.0, heights[-1] - 1) if heights else 0.0
    for (_, line), height in zip(ends, heights, strict=True):
        label = line.label
        if len(label) > LABEL_LENGTH:
            label = label[: LABEL_LENGTH - 1] + "…"
        axes.text(
            1.02,
            height - excess,
            label,
            transform=axes.transAxes,
            color=line.color,
            fontsize=LABEL_SIZE_PT,
            va="center",
        )


def _short_count(value: float, _position: int | None = None) -> str:
    """Write a large number as 300, 1.5k or 1.28M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:g}"


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=160, facecolor="white")
