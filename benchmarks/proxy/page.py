"""The experiments' results: docs/proxy.md with its tables and picture, and how far the runs are."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.machine import REPOSITORY
from benchmarks.proxy import chart, costs
from benchmarks.proxy.arms import Arm, run_lengths
from benchmarks.proxy.experiments import EXPERIMENTS, Experiment
from benchmarks.proxy.paired import Difference, paired_difference
from benchmarks.proxy.results import NEW_RESULTS, RESULTS, keep_new_results, of_arm, read_results
from benchmarks.tables import fill_page, markdown_table

PAGE = REPOSITORY / "docs" / "proxy.md"
PICTURE = REPOSITORY / "docs" / "images" / "proxy_budgets.png"
Results = list[dict[str, Any]]


def all_tables(results: Results, measurement: Mapping[str, Any]) -> dict[str, str]:
    """Make every table, by name."""
    tables = {"costs": costs_table(measurement), "averaged": averaged_table(results)}
    for name, experiment in EXPERIMENTS.items():
        tables[name] = experiment_table(experiment, results, measurement)
    tables["switches"] = switches_table(results)
    return tables


def experiment_table(
    experiment: Experiment, results: Results, measurement: Mapping[str, Any]
) -> str:
    """Compare an experiment's arms."""
    rows = []
    for row in experiment.rows:
        values = top_1(results, row.arm)
        cells = [
            row.arm.name,
            row.title,
            schedule(row.arm),
            cost_cell(measurement, row.arm),
            summary(values, experiment.num_seeds),
        ]
        if row.against is None:
            rows.append([*cells, "", "", "", ""])
            continue
        difference = paired_difference(values, top_1(results, row.against))
        rows.append([*cells, row.against.name, row.at_equal, *difference_cells(difference)])
    difference_head = ("against", "at equal", "difference, points", "reading")
    head = ("arm", "", "px x epochs", "cost", "top-1, %", *difference_head)
    return markdown_table(head, rows)


def cost_cell(measurement: Mapping[str, Any], arm: Arm) -> str:
    """Write what an arm costs, where that was measured."""
    is_measured = {*costs.cost_names(arm)} <= measurement["ms_per_update"].keys()
    if is_measured and not arm.is_timm:
        return f"{costs.cost_of(measurement, arm):.2f}"
    return "not measured"


def costs_table(measurement: Mapping[str, Any]) -> str:
    """List what an update costs."""
    rows = [
        [
            name,
            f"{min(milliseconds):.1f} to {max(milliseconds):.1f}",
            f"{costs.relative_cost(measurement, name):.3f}",
        ]
        for name, milliseconds in measurement["ms_per_update"].items()
    ]
    return markdown_table(("model, width x depth, px", "ms per update", "cost"), rows)


def switches_table(results: Results) -> str:
    """Show top-1 just before and just after each change of resolution, no update in between."""
    shown: list[tuple[Arm, list[list[dict[str, Any]]]]] = []
    for arm in {a.name: a for e in EXPERIMENTS.values() for a in e.arms}.values():
        runs = [run["switches"] for run in of_arm(results, arm).values()]
        if arm.shows_switches and runs:
            shown.append((arm, runs))
    places = [(s["from"], s["to"]) for s in shown[0][1][0]] if shown else []
    rows = [
        [arm.name, str(len(runs)), *(_switch_cell(runs, index) for index in range(len(places)))]
        for arm, runs in shown
    ]
    return markdown_table(("arm", "n", *(f"{a} to {b} px" for a, b in places)), rows)


def _switch_cell(runs: list[list[dict[str, Any]]], index: int) -> str:
    before, after = (
        statistics.mean(100 * switches[index][key] for switches in runs)
        for key in ("before", "after")
    )
    return f"{before:.1f} to {after:.1f}"


def averaged_table(results: Results) -> str:
    """Compare averaged weights with the raw ones of the same runs."""
    rows = []
    for arm in {a.name: a for e in EXPERIMENTS.values() for a in e.arms}.values():
        runs = of_arm(results, arm)
        averaged = {seed: run["ema_top_1"] for seed, run in runs.items() if "ema_top_1" in run}
        difference = paired_difference(averaged, top_1(results, arm))
        if difference is not None:
            raw = summary(top_1(results, arm), len(runs))
            rows.append([arm.name, raw, *difference_cells(difference)])
    return markdown_table(("arm", "raw, %", "averaged less raw, points", "reading"), rows)


def top_1(results: Results, arm: Arm) -> dict[int, float]:
    """Return the top-1 of an arm's runs by seed, 0..1."""
    return {seed: run["top_1"] for seed, run in of_arm(results, arm).items()}


def schedule(arm: Arm) -> str:
    """Write the resolutions of a run in short."""
    return ", ".join(f"{side} x {epochs}" for side, epochs in run_lengths(arm.resolutions))


def summary(values: Mapping[int, float], num_seeds: int) -> str:
    """Write mean and standard deviation of top-1 in percent."""
    if not values:
        return "not run"
    percent = [100 * value for value in values.values()]
    mark = f" of {num_seeds}" if len(percent) < num_seeds else ""
    spread = f" ± {statistics.stdev(percent):.2f}" if len(percent) > 1 else ""
    return f"{statistics.mean(percent):.2f}{spread} (n={len(percent)}{mark})"


def difference_cells(difference: Difference | None) -> tuple[str, str]:
    """Write a difference with its interval, and what it supports."""
    if difference is None:
        return "", "not run"
    interval = f" [{difference.low:+.2f} .. {difference.high:+.2f}]"
    return (
        f"{difference.mean:+.2f}{interval if difference.num_pairs > 1 else ''}",
        difference.verdict,
    )


def progress() -> str:
    """Say how many runs of each experiment are done, and what each arm costs."""
    results, measurement = read_results(RESULTS, NEW_RESULTS), costs.read()
    return "\n".join(_progress_lines(results, measurement))


def _progress_lines(results: Results, measurement: Mapping[str, Any]) -> Iterable[str]:
    for name, experiment in EXPERIMENTS.items():
        yield f"{name}: {experiment.question}"
        for arm in experiment.arms:
            num_done = len(of_arm(results, arm))
            cost = cost_cell(measurement, arm)
            yield f"  {arm.name:20} {num_done} of {experiment.num_seeds} runs, cost {cost} each"


def write() -> str:
    """Keep new results, and write the tables of all that are kept; says so in a line."""
    num_new = keep_new_results()
    results, measurement = read_results(), costs.read()
    PAGE.write_text(fill_page(PAGE.read_text(), all_tables(results, measurement)))
    chart.draw(EXPERIMENTS["b"], results, measurement, PICTURE)
    return f"{PAGE.relative_to(REPOSITORY)}: {num_new} new runs"
