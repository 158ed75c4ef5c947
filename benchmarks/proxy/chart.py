"""The picture of experiment b: what a budget of time buys, by model and schedule."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.proxy import costs
from benchmarks.proxy.experiments import Experiment
from benchmarks.proxy.results import of_arm
from ffvit.charts import PALETTE, STYLE

_CAPTION = (
    "Means and standard deviations over seeds; every third image of Imagenette, models of two "
    "blocks (ResNet: four).\nCosts are processor time of one core, loader included."
)


def draw(
    experiment: Experiment,
    results: list[dict[str, Any]],
    measurement: Mapping[str, Any],
    path: Path,
) -> None:
    """Draw top-1 against cost, a line for each title of the experiment's rows.

    Args:
        experiment: The ladder; its titles stand in the legend.
        results: All runs.
        measurement: The costs.
        path: PNG to write.
    """
    lines: dict[str, list[tuple[float, float, float]]] = {}
    for row in experiment.rows:
        values = [100 * run["top_1"] for run in of_arm(results, row.arm).values()]
        if len(values) > 1:
            cost = costs.cost_of(measurement, row.arm)
            point = (cost, statistics.mean(values), statistics.stdev(values))
            lines.setdefault(row.title, []).append(point)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        for (title, points), color, marker in zip(lines.items(), PALETTE, "osD^v", strict=False):
            look: dict[str, Any] = {
                "color": color,
                "marker": marker,
                "capsize": 2,
                "linewidth": 1.6,
            }
            at, mean, deviation = zip(*points, strict=True)
            axes.errorbar(at, mean, deviation, label=title, **look)
        ticks = sorted({round(points[0]) for points in next(iter(lines.values()), [])})
        axes.set_xscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("cost of the training, epochs of the FF model at 80 px")
        axes.set_ylabel("top-1, %")
        axes.legend(frameon=False)
        axes.set_title("What a budget buys")
        figure.supxlabel(_CAPTION, fontsize=7.5, color="#707070", x=0.01, ha="left")
        figure.savefig(path, dpi=160, facecolor="white")
