"""Results as Markdown tables: printed after a run, and kept in docs/benchmarks.md.

python -m benchmarks.tables    write the tables of the newest committed JSON into docs/benchmarks.md
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import targets
from benchmarks.loaders import quartiles, ratio
from benchmarks.machine import REPOSITORY
from ffvit.errors import ConfigError, one_line_errors

RESULTS = REPOSITORY / "benchmarks" / "results"
SUBJECT = "loaders"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
_BEGIN, _END = "<!-- generated: {} -->", "<!-- end -->"

# What one GPU takes at most, images/s: model, GPU, resolution (px), rate, whence. None is measured
# here. FF: a roofline's middle. ResNets: 1,281,167 images x epochs / published time / GPUs, with
# validation in the time and 160 to 192 px in training, so the real need is a little higher.
GPU_NEEDS = (
    ("FF-tiny", "H200", 224, 37_500, "forecast, roofline"),
    ("FF-tiny", "H200", 128, 65_000, "forecast, roofline"),
    ("FF-base", "H200", 224, 5_900, "forecast, roofline"),
    ("FF-base", "H200", 128, 12_100, "forecast, roofline"),
    ("FF-large", "H200", 224, 7_400, "forecast, roofline"),
    ("FF-base", "A100", 224, 2_050, "forecast, roofline"),
    ("FF-base", "A100", 128, 4_550, "forecast, roofline"),
    ("ResNet-18", "A100", 192, 9_800, "arithmetic, ffcv-imagenet: 16 epochs in 35.0 min"),
    ("ResNet-50", "A100", 192, 2_900, "arithmetic, ffcv-imagenet: 16 epochs in 14.9 min on 8"),
)
_FEEDING_BETONS = ("ours", "side400_q90", "short256_q90", "short256_q80")


def newest_result(subject: str = SUBJECT) -> dict[str, Any]:
    """Read the newest committed result of a subject.

    Raises:
        ConfigError: There is none.
    """
    results = [json.loads(path.read_text()) for path in RESULTS.glob(f"{subject}_*.json")]
    if not results:
        raise ConfigError(f"benchmarks/results: expected {subject}_*.json, found none; make one.")
    newest: dict[str, Any] = max(results, key=lambda result: str(result["date"]))
    return newest


def all_tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Make every table, by name; what a run has left out is left out."""
    tables = {
        "run": run_line(result),
        "targets": targets_table(result),
        "loaders": loaders_table(result),
        "startup": startup_table(result),
        "quality": quality_table(result),
    }
    if result.get("betons"):
        tables |= {"betons": betons_table(result), "feeding": feeding_table(result)}
    if result.get("stages"):
        tables["stages"] = stages_table(result)
    return tables


def run_line(result: Mapping[str, Any]) -> str:
    """Say in one paragraph where the figures come from."""
    machine, loaders = result["machine"], result["loaders"]
    changed = ", with uncommitted changes" if machine["has_uncommitted_changes"] else ""
    status = "Preliminary: " if result["is_preliminary"] else ""
    return (
        f"{status}{result['date']}, {machine['cpu']}, {machine['num_cpu_cores']} cores (shared), "
        f"commit {machine['git_commit'][:7]}{changed}; {loaders['num_rounds']} interleaved rounds "
        f"of {loaders['images_per_round']} images, batches of {result['batch_size']}. Figures are "
        "medians with quartiles; ratios are taken within a round."
    )


def targets_table(result: Mapping[str, Any]) -> str:
    """Compare with the aims."""
    rows = [
        [
            row["row"],
            row["target"],
            spread_text(row["measured"]),
            spread_text(row["same_beton"]),
            row["verdict"],
        ]
        for row in targets.as_dicts(result)
    ]
    return markdown_table(("what", "target", "measured", "to stock on the same beton", ""), rows)


def loaders_table(result: Mapping[str, Any]) -> str:
    """List all loaders with their rates and ratios to stock on its own beton."""
    loaders = result["loaders"]
    rows = []
    for name, by_resolution in loaders["images_per_s"].items():
        baseline = "stock, old, centre" if "centre" in name else "stock, old"
        for resolution, rates in by_resolution.items():
            spread = quartiles(rates)
            values = ratio(loaders, name, baseline, int(resolution))
            rows.append(
                [
                    name,
                    resolution,
                    rate_text(spread),
                    f"{spread['min']:,.0f} to {spread['max']:,.0f}",
                    spread_text(quartiles(values)) if values else "",
                ]
            )
    rows += [
        [name, "", "not measured", reason, ""] for name, reason in loaders["not_measured"].items()
    ]
    return markdown_table(
        ("loader, what it reads", "px", "images/s", "lowest, highest", "x stock, old"), rows
    )


def startup_table(result: Mapping[str, Any]) -> str:
    """Compare what comes before and besides the images."""
    startup = result["startup"]
    rows = []
    for key, title in (
        ("first_batch_s", "first batch, compilation included, s"),
        ("new_resolution_s", "first batch of an epoch at a new resolution, s"),
        ("same_resolution_s", "first batch of an epoch at the same resolution, s"),
    ):
        cells = [
            f"{spread_text(quartiles(startup[name][key]), 3)}, n={len(startup[name][key])}"
            if startup[name][key]
            else "not measured"
            for name in ("stock", "ffvit")
        ]
        rows.append([title, *cells])
    for key, title in (
        (
            "anonymous_gb_by_epoch",
            f"anonymous memory above idle, batch {startup['memory_batch_size']}, by epoch, GB",
        ),
        ("anonymous_peak_gb", "the same, highest in between, GB"),
    ):
        cells = [str(startup[name].get(key, "not measured")) for name in ("stock", "ffvit")]
        rows.append([title, *cells])
    return markdown_table(("", "stock", "ffvit"), rows)


def quality_table(result: Mapping[str, Any]) -> str:
    """Compare crops with the reference and with Pillow's."""
    rows = []
    for resolution, by_target in result["quality"].items():
        if resolution == "num_images":
            continue
        for against, decoders in by_target.items():
            for name, summary in decoders.items():
                for kind, figures in summary.items():
                    if kind == "worst":
                        continue
                    keys = ("num_crops", "psnr_db_mean", "psnr_db_1st_percentile", "psnr_db_min")
                    cells = [str(figures[key]) for key in (*keys, "mean_abs")]
                    rows.append([resolution, against, name, kind, *cells])
    head = ("px", "against", "decoder", "crops", "n", "PSNR mean, dB", "1st percentile", "lowest")
    return markdown_table((*head, "mean abs. difference"), rows)


def betons_table(result: Mapping[str, Any]) -> str:
    """Compare sizes of stored images: bytes, and speed of both readers on the same beton."""
    measured, titles = result["betons"], result["image_set"]["titles"]
    rows = []
    for name, title in titles.items():
        facts = result["image_set"]["betons"][name]
        ours, stock = f"ffvit in FFCV, {name}", f"stock, {name}"
        cells = []
        for resolution in (224, 192, 160, 128):
            rates = measured["images_per_s"].get(ours, {}).get(str(resolution))
            same = ratio(measured, ours, stock, resolution)
            ratio_text = f" ({quartiles(same)['median']:.1f}x)" if same else ""
            cells.append(
                f"{quartiles(rates)['median']:,.0f}{ratio_text}" if rates else "not measured"
            )
        stock_rates = measured["images_per_s"].get(stock, {}).get("224")
        cells.append(rate_text(quartiles(stock_rates)) if stock_rates else "not measured")
        rows.append([title, f"{facts['kb_per_image']:.1f}", f"{facts['imagenet_gb']:.0f}", *cells])
    head = ("beton", "KB an image", "ImageNet, GB", "224 px", "192", "160", "128", "stock, 224 px")
    return markdown_table(head, rows)


def feeding_table(result: Mapping[str, Any]) -> str:
    """Divide what a GPU takes by what a core gives, for some betons."""
    measured, titles = result["betons"]["images_per_s"], result["image_set"]["titles"]
    rows = []
    for model, gpu, resolution, need, origin in GPU_NEEDS:
        cells = []
        for name in _FEEDING_BETONS:
            rates = measured.get(f"ffvit in FFCV, {name}", {}).get(str(resolution))
            cells.append(f"{need / quartiles(rates)['median']:.1f}" if rates else "not measured")
        rows.append([f"{model}, {gpu}", str(resolution), f"{need:,}", *cells, origin])
    head = ("model, GPU", "px", "images/s a GPU", *(titles[name] for name in _FEEDING_BETONS))
    return markdown_table((*head, "origin of the need"), rows)


def stages_table(result: Mapping[str, Any]) -> str:
    """List the kernel's stages, microseconds per image, as stages.py gives them: name -> figure."""
    rows = [[name, f"{value:g}"] for name, value in result["stages"].items()]
    return markdown_table(("stage", "us per image"), rows)


def fill_page(page: str, tables: Mapping[str, str]) -> str:
    """Put tables between the marks that bear their names."""
    for name, table in tables.items():
        begin = _BEGIN.format(name)
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(_END), re.DOTALL)
        page = pattern.sub(lambda _, text=f"{begin}\n{table}\n{_END}": text, page)  # type: ignore[misc]
    return page


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out cells as a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rate_text(spread: Mapping[str, float]) -> str:
    """Write images/s: median and quartiles."""
    return f"{spread['median']:,.0f} [{spread['q1']:,.0f} .. {spread['q3']:,.0f}]"


def spread_text(spread: Mapping[str, float] | None, digits: int = 2) -> str:
    """Write a median and its quartiles; nothing for what was not measured."""
    if spread is None:
        return ""
    return " ".join(
        (
            f"{spread['median']:.{digits}f}",
            f"[{spread['q1']:.{digits}f} .. {spread['q3']:.{digits}f}]",
        )
    )


def main() -> None:
    """Write the newest result's tables into the page."""
    page = Path(PAGE)
    page.write_text(fill_page(page.read_text(), all_tables(newest_result())))
    sys.stdout.write(f"{page.relative_to(REPOSITORY)}\n")


if __name__ == "__main__":
    with one_line_errors():
        main()
