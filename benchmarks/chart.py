"""README's picture of loaders: images per second and core, drawn from the newest committed JSON.

python -m benchmarks.chart     draw docs/images/loader_throughput.png
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.loaders import quartiles, ratio
from benchmarks.machine import REPOSITORY
from benchmarks.tables import newest_result
from ffvit.charts import PALETTE, STYLE
from ffvit.errors import one_line_errors

PICTURE = REPOSITORY / "docs" / "images" / "loader_throughput.png"
BASELINE = "stock, old"
RESOLUTION = 224
# Contender: label. In the order of their speed they are drawn; ours in colour.
LABELS = {
    "ffvit in FFCV, ours": "ffvit in FFCV's Loader, its own beton",
    "ffvit in FFCV, old": "ffvit in FFCV's Loader, stock's beton",
    "stock, raw": "FFCV 1.0.2, raw pixels (9 times the bytes)",
    BASELINE: "FFCV 1.0.2, JPEG beton",
    "DALI CPU, JPEGs": "NVIDIA DALI on CPU",
    "torchvision decode_jpeg, JPEGs": "torchvision decode_jpeg + v2",
    "webdataset, JPEGs": "webdataset + decode_jpeg + v2",
    "timm, JPEGs": "timm create_loader",
    "torchvision PIL, JPEGs": "torchvision, Pillow",
}
_GREY, _TEXT = "#a8b4bd", "#404040"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw one bar per loader, quartiles as whiskers, with the ratio to stock FFCV."""
    loaders = result["loaders"]
    spreads = {
        name: quartiles(loaders["images_per_s"][name][str(RESOLUTION)])
        for name in LABELS
        if name in loaders["images_per_s"]
    }
    names = sorted(spreads, key=lambda name: spreads[name]["median"])
    medians = [spreads[name]["median"] for name in names]
    below = [spreads[name]["median"] - spreads[name]["q1"] for name in names]
    above = [spreads[name]["q3"] - spreads[name]["median"] for name in names]
    with mpl.rc_context(STYLE | {"axes.grid.axis": "x", "axes.spines.left": False}):
        figure = Figure(figsize=(8.6, 0.42 * len(names) + 1.5), layout="constrained")
        axes = figure.subplots()
        axes.barh(
            range(len(names)),
            medians,
            height=0.66,
            color=[PALETTE[0] if name.startswith("ffvit") else _GREY for name in names],
            xerr=(below, above),
            error_kw={"ecolor": _TEXT, "elinewidth": 1, "capsize": 2},
        )
        right = max(spread["q3"] for spread in spreads.values())
        for row, name in enumerate(names):
            axes.text(
                spreads[name]["q3"] + 0.015 * right,
                row,
                f"{spreads[name]['median']:,.0f}   {_ratio_text(loaders, name)}",
                va="center",
                color=_TEXT,
                fontweight="bold" if name.startswith("ffvit") else "normal",
            )
        axes.set_yticks(range(len(names)), [LABELS[name] for name in names])
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.22 * right)
        axes.set_xlabel("images per second on one core: 224 px random-resized crop and flip, uint8")
        axes.set_title("Loading ImageNet images (longer side 500 px, JPEG quality 90)")
        figure.supxlabel(_caption(result), fontsize=7.5, color="#707070", x=0.01, ha="left")
        figure.savefig(path, dpi=160, facecolor="white")


def _ratio_text(loaders: Mapping[str, Any], name: str) -> str:
    values = ratio(loaders, name, BASELINE, RESOLUTION)
    return f"{quartiles(values)['median']:.2f}x" if values else ""


def _caption(result: Mapping[str, Any]) -> str:
    machine, loaders = result["machine"], result["loaders"]
    status = "Preliminary run. " if result["is_preliminary"] else ""
    return (
        f"{status}{machine['cpu']}, shared machine, {result['date']}; {loaders['num_rounds']} "
        f"interleaved rounds of {loaders['images_per_round']} images.\nBars: medians, whiskers: "
        "quartiles, x: median of each round's ratio to FFCV 1.0.2 on a JPEG beton of its own."
    )


def main() -> None:
    """Draw the newest result."""
    draw(newest_result(), PICTURE)
    sys.stdout.write(f"{PICTURE.relative_to(REPOSITORY)}\n")


if __name__ == "__main__":
    with one_line_errors():
        main()
