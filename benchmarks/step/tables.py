"""Results of `python -m benchmarks.step` as the tables of docs/step.md.

python -m benchmarks.step.tables    write the tables of the newest committed JSON into the page
"""

import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.loaders import quartiles
from benchmarks.machine import REPOSITORY
from benchmarks.tables import fill_page, markdown_table, newest_result, rate_text, spread_text
from ffvit.errors import one_line_errors

SUBJECT = "step"
PAGE = REPOSITORY / "docs" / "step.md"
PEERS = ("definition", "timm", "ffcv-imagenet")
# What, most, of which rows of the result; goals for one core.
MAX_TO_DEFINITION, MAX_LOW_TO_FULL, MAX_OVERHEAD = 0.95, 0.37, 1.02

Rates = list[float]


def all_tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Make every table, by name."""
    return {
        "run": run_line(result),
        "targets": targets_table(result),
        "model": cases_table(result["model_only"], result),
        "end to end": end_to_end_table(result),
    }


def run_line(result: Mapping[str, Any]) -> str:
    """Say in one paragraph where the figures come from."""
    machine = result["machine"]
    changed = ", with uncommitted changes" if machine["has_uncommitted_changes"] else ""
    status = "Preliminary: " if result["is_preliminary"] else ""
    where = result["device"] if result["device"] != "cpu" else f"one core of {machine['cpu']}"
    return (
        f"{status}{result['date']}, {where}, torch {machine['versions']['torch']}, timm "
        f"{machine['versions']['timm']}, commit {machine['git_commit'][:7]}{changed}; "
        f"{result['num_rounds']} interleaved rounds in {result['duration_min']} minutes, load "
        f"average {result['load_average']} when it began. Figures are medians with quartiles; "
        "ratios are taken within a round."
    )


def targets_table(result: Mapping[str, Any]) -> str:
    """Compare with the goals for one core."""
    passes = result["passes"]
    seconds = passes["seconds"]
    ours, low = seconds["ffvit, 224 px"], seconds["ffvit, 128 px"]
    rows = [
        (
            f"FF-tiny, 224 px, batch {passes['batch_size']}, forward + backward: ours / definition",
            MAX_TO_DEFINITION,
            _ratios(ours, seconds["definition, 224 px"]),
        ),
        ("the same, ours: at 128 px / at 224 px", MAX_LOW_TO_FULL, _ratios(low, ours)),
    ]
    rates = _find(result["model_only"], "ff_tiny_patch16_224", 224)
    if {"bare", "ffvit"} <= rates.keys():
        rows.append(
            (
                "FF-tiny, 224 px, an update: our loop / forward, backward and optimizer alone",
                MAX_OVERHEAD,
                _ratios(rates["bare"], rates["ffvit"]),
            )
        )
    cells = []
    for what, most, values in rows:
        spread = quartiles(values)
        verdict = "ok" if spread["median"] <= most else "missed"
        measured = f"{spread_text(spread, 3)}, n={len(values)}"
        cells.append([what, f"<= {most}", measured, verdict])
    return markdown_table(("time of", "goal", "measured", ""), cells)


def cases_table(cases: list[dict[str, Any]], result: Mapping[str, Any]) -> str:
    """List images/s of all programs, and the ratio to the peer that is not compiled."""
    rows = []
    for case in cases:
        rates, cost = case["images_per_s"], case["training_gflop"]
        peer = next((name for name in PEERS if name in rates), None)
        for name, values in rates.items():
            spread = quartiles(values)
            ratio = spread_text(quartiles(_ratios(values, rates[peer])) if peer else None)
            achieved = spread["median"] * cost / 1e3
            peak = result["peak_tflops"]
            share = f"{achieved:.2f}" + (f" ({achieved / peak:.0%})" if peak else "")
            where = [_title(case["model"]), str(case["resolution"]), str(case["batch_size"])]
            rows.append([*where, name, rate_text_fine(spread), ratio, share])
        rows += [
            [_title(case["model"]), str(case["resolution"]), "", name, "not measured", reason, ""]
            for name, reason in case["not_measured"].items()
        ]
    head = ("model", "px", "batch", "who", "images/s", "x peer, eager", "TFLOP/s (MFU)")
    return markdown_table(head, rows)


def end_to_end_table(result: Mapping[str, Any]) -> str:
    """List images/s with a loader, and their share of those without."""
    rows = []
    for case in result["end_to_end"]:
        rates = case["images_per_s"]
        for name, values in rates.items():
            if f"{name}, synthetic" in rates:
                share = quartiles(_ratios(values, rates[f"{name}, synthetic"]))
                where = [_title(case["model"]), str(case["resolution"]), str(case["batch_size"])]
                rows.append([*where, name, rate_text_fine(quartiles(values)), spread_text(share)])
        rows += [
            [_title(case["model"]), str(case["resolution"]), "", name, "not measured", reason]
            for name, reason in case["not_measured"].items()
        ]
    if not rows:
        return f"Not measured: {result['end_to_end_reason']}."
    head = ("model", "px", "batch", "who", "images/s", "of model-only")
    return markdown_table(head, rows)


def rate_text_fine(spread: Mapping[str, float]) -> str:
    """Write images/s, with decimals where they are few."""
    if spread["median"] >= 100:
        return rate_text(spread)
    return spread_text(spread)


def _find(cases: list[dict[str, Any]], model: str, resolution: int) -> dict[str, Rates]:
    for case in cases:
        if (case["model"], case["resolution"]) == (model, resolution):
            rates: dict[str, Rates] = case["images_per_s"]
            return rates
    return {}


def _ratios(numerators: Rates, denominators: Rates) -> Rates:
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def _title(model: str) -> str:
    return model.replace("_patch16_224", "").replace("_patch32_224", "").replace("_224", "")


def main() -> None:
    """Write the newest result's tables into the page."""
    PAGE.write_text(fill_page(PAGE.read_text(), all_tables(newest_result(SUBJECT))))
    sys.stdout.write(f"{PAGE.relative_to(REPOSITORY)}\n")


if __name__ == "__main__":
    with one_line_errors():
        main()
