"""Throughput of whole loaders: images per second and core, measured in interleaved rounds.

A figure alone says little on a machine that drifts; ratios are taken within each round.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.betons import OLD, OURS, RAW, SMALL, beton_path, jpeg_folder
from benchmarks.processes import Contender, ContenderProcess, ProcessError

RESOLUTIONS = (224, 192, 160, 128)
NUM_START_CORES = 2

Rates = list[float]
# Contender -> resolution (a text, as JSON wants it) -> images/s of each round.
Measured = dict[str, dict[str, Rates]]


def main_contenders() -> list[Contender]:
    """List the loaders of the main table. Names: what, what it reads[, centre | threads]."""
    old, ours, raw = (str(beton_path(name)) for name in (OLD, OURS, RAW))
    old_jpegs, jpegs = str(jpeg_folder(OLD)), str(jpeg_folder(OURS))
    return [
        Contender("stock, old", "stock_ffcv", old, resolutions=RESOLUTIONS),
        Contender("ffvit in FFCV, old", "ffvit_in_ffcv", old, resolutions=RESOLUTIONS),
        Contender("ffvit in FFCV, ours", "ffvit_in_ffcv", ours, resolutions=RESOLUTIONS),
        Contender("stock, ours", "stock_ffcv", ours, resolutions=RESOLUTIONS),
        Contender("ffvit Loader, ours", "ffvit_loader", ours),
        Contender("ffvit Loader, ours, 2 threads", "ffvit_loader", ours, num_threads=2),
        Contender("stock, raw", "stock_ffcv", raw),
        Contender("ffvit in FFCV, raw", "ffvit_in_ffcv", raw),
        Contender("DALI CPU, JPEGs", "dali_cpu", jpegs),
        Contender("torchvision decode_jpeg, JPEGs", "torchvision_decode_jpeg", jpegs),
        Contender("DALI CPU, old JPEGs", "dali_cpu", old_jpegs),
        Contender("torchvision decode_jpeg, old JPEGs", "torchvision_decode_jpeg", old_jpegs),
        Contender("torchvision PIL, JPEGs", "torchvision_pil", jpegs),
        Contender("timm, JPEGs", "timm_loader", jpegs),
        Contender("webdataset, JPEGs", "webdataset_decode_jpeg", f"{jpegs}.tar"),
        Contender("stock, old, centre", "stock_ffcv", old, crop="center"),
        Contender("ffvit in FFCV, old, centre", "ffvit_in_ffcv", old, crop="center"),
        Contender("ffvit in FFCV, ours, centre", "ffvit_in_ffcv", ours, crop="center"),
        Contender("stock, ours, centre", "stock_ffcv", ours, crop="center"),
    ]


def small_contenders() -> list[Contender]:
    """List the loaders of the table of betons: ours and stock's on each of our betons."""
    return [
        Contender(f"{kind}, {name}", loader, str(beton_path(name)), resolutions=RESOLUTIONS)
        for name in (OURS, *SMALL)
        for kind, loader in (("stock", "stock_ffcv"), ("ffvit in FFCV", "ffvit_in_ffcv"))
    ]


def measure(contenders: Sequence[Contender], num_rounds: int, num_images: int) -> dict[str, Any]:
    """Measure all contenders in interleaved rounds, every second one in reverse order.

    Args:
        contenders: The loaders.
        num_rounds: Rounds of each.
        num_images: Of a round.

    Returns:
        rounds, images per round, each contender's images/s by resolution and round, and why those
        that are missing are.
    """
    rates: Measured = {}
    failures: dict[str, str] = {}
    processes: list[ContenderProcess] = []
    try:
        processes = _start(contenders, num_images, failures)
        for process in processes:
            # Not counted: the first round after the move to another core is slow.
            _measure_one(process, process.contender.resolutions[0], failures)
        for number in range(num_rounds):
            _say(f"round {number + 1} of {num_rounds}")
            for process in processes if number % 2 == 0 else processes[::-1]:
                by_resolution = rates.setdefault(process.contender.name, {})
                for resolution in process.contender.resolutions:
                    rate = _measure_one(process, resolution, failures)
                    if rate is not None:
                        by_resolution.setdefault(str(resolution), []).append(rate)
    finally:
        for process in processes:
            process.end()
    complete = {name: rates[name] for name in rates if name not in failures}
    return {
        "num_rounds": num_rounds,
        "images_per_round": num_images,
        "images_per_s": {c.name: complete[c.name] for c in contenders if c.name in complete},
        "not_measured": failures,
    }


def ratio(measured: Mapping[str, Any], numerator: str, denominator: str, resolution: int) -> Rates:
    """Divide two contenders round by round; empty if one of them was not measured."""
    rates = measured["images_per_s"]
    key = str(resolution)
    if any(key not in rates.get(name, {}) for name in (numerator, denominator)):
        return []
    return [a / b for a, b in zip(rates[numerator][key], rates[denominator][key], strict=True)]


def quartiles(values: Iterable[float]) -> dict[str, float]:
    """Summarise rounds: min, q1, median, q3, max."""
    numbers = np.percentile(list(values), [0, 25, 50, 75, 100])
    return dict(zip(("min", "q1", "median", "q3", "max"), map(float, numbers), strict=True))


def _start(
    contenders: Sequence[Contender], num_images: int, failures: dict[str, str]
) -> list[ContenderProcess]:
    """Start all, two at a time, each on a core of its own; leave out those that do not start."""
    started = []
    for begin in range(0, len(contenders), NUM_START_CORES):
        group = [
            ContenderProcess(contender, num_images, core)
            for core, contender in enumerate(contenders[begin : begin + NUM_START_CORES])
        ]
        for process in group:
            name = process.contender.name
            try:
                process.wait_until_ready()
            except ProcessError as error:
                _say(f"{name}: not measured: {error}")
                failures[name] = str(error)
                process.end()
            else:
                _say(f"{name}: ready")
                started.append(process)
    return started


def _measure_one(
    process: ContenderProcess, resolution: int, failures: dict[str, str]
) -> float | None:
    """Measure a round; end and leave out a contender that fails, None from then on."""
    name = process.contender.name
    if name in failures:
        return None
    try:
        return round(process.measure_round(resolution), 1)
    except ProcessError as error:
        failures[name] = str(error)
        process.end()
        return None


def _say(line: str) -> None:
    sys.stderr.write(f"bench: {line}\n")
    sys.stderr.flush()
