"""Interleaved rounds of training loops in this process.

Time is the device's: CUDA events on a GPU; on a CPU the processor time of all threads of this
process, which other programs on the machine disturb less than wall time.
"""

import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.step.cases import Case
from benchmarks.step.loading import LOADERS
from benchmarks.step.loops import LOOPS, Loop, Repeated, Setting

NUM_UNTIMED = 2
# On a GPU a round is as many updates as take this long, so that the launch of the first is nothing.
GPU_ROUND_S = 0.4
# Of a round with a loader.
GPU_BATCHES, CPU_BATCHES = 12, 2

Rates = list[float]


def measure_case(
    case: Case, device: torch.device, num_rounds: int, deadline: float
) -> dict[str, Any]:
    """Measure all programs of a case on synthetic batches.

    Args:
        case: The model, its resolution and who trains it.
        device: Where.
        num_rounds: Of each program; every second one in reverse order.
        deadline: `time.monotonic()` after which no further program is started.

    Returns:
        model, resolution, batch_size; images/s of each program by round; why others are missing.
    """
    batch_size = case.batch_size(device.type)
    batches = Repeated(batch_size, case.resolution, device)
    loops, start_s, failures = _start(case, batches, device, deadline)
    if loops:
        batches.num_batches = _updates_per_round(next(iter(loops.values())), batches, device)
    rates: dict[str, Rates] = {name: [] for name in loops}
    for name in interleaved(loops, num_rounds):
        seconds = timed(partial(loops[name], batches), device)
        rates[name].append(round(len(batches) * batch_size / seconds, 3))
    result = {
        "model": case.model,
        "resolution": case.resolution,
        "batch_size": batch_size,
        "updates_per_round": len(batches),
        "images_per_s": rates,
        "start_s": start_s,
        "not_measured": failures,
    }
    say(f"{case.model} {case.resolution} px: {_summary(rates, failures)}")
    loops.clear()
    release(device)
    return result


def measure_end_to_end(
    case: Case, device: torch.device, num_rounds: int, deadline: float
) -> dict[str, Any]:
    """Measure the programs of a case with the loaders of their users, and without.

    Returns:
        As `measure_case`; in `images_per_s` each program has a second row, "NAME, synthetic".
    """
    batch_size = case.batch_size(device.type)
    synthetic = Repeated(batch_size, case.resolution, device)
    loops, start_s, failures = _start(case, synthetic, device, deadline)
    num_batches = GPU_BATCHES if device.type == "cuda" else CPU_BATCHES
    synthetic.num_batches = num_batches
    rows: dict[str, Callable[[], object]] = {}
    for name, loop in loops.items():
        load = LOADERS[name.partition(", ")[0]]
        try:
            loading = load(case.resolution, batch_size, num_batches, device)
            loop(loading)  # a loader compiles in its first epoch
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its result
            failures[name] = _reason(error)
        else:
            rows[name] = partial(loop, loading)
            rows[f"{name}, synthetic"] = partial(loop, synthetic)
    rates: dict[str, Rates] = {name: [] for name in rows}
    for name in interleaved(rows, num_rounds):
        seconds = timed(rows[name], device)
        rates[name].append(round(num_batches * batch_size / seconds, 3))
    result = {
        "model": case.model,
        "resolution": case.resolution,
        "batch_size": batch_size,
        "updates_per_round": num_batches,
        "images_per_s": rates,
        "start_s": start_s,
        "not_measured": failures,
    }
    say(f"end to end, {case.model} {case.resolution} px: {_summary(rates, failures)}")
    loops.clear()
    rows.clear()
    release(device)
    return result


def interleaved(names: Iterable[str], num_rounds: int) -> Iterator[str]:
    """Give all names once a round, in every second one from the last to the first."""
    order = list(names)
    for number in range(num_rounds):
        yield from order if number % 2 == 0 else reversed(order)


def _start(
    case: Case, batches: Repeated, device: torch.device, deadline: float
) -> tuple[dict[str, Loop], dict[str, float], dict[str, str]]:
    """Make and warm up the programs of a case; those that fail are named with the reason."""
    loops: dict[str, Loop] = {}
    start_s: dict[str, float] = {}
    failures: dict[str, str] = {}
    batches.num_batches = NUM_UNTIMED
    for name in case.programs_on(device.type):
        if time.monotonic() > deadline:
            failures[name] = "out of time"
            continue
        begin = time.monotonic()
        base, _, way = name.partition(", ")
        try:
            torch.manual_seed(0)
            batch_size = case.batch_size(device.type)
            setting = Setting(case.model, case.resolution, batch_size, device, way == "compiled")
            loop = LOOPS[base](setting)
            loop(batches)
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its result
            failures[name] = _reason(error)
        else:
            loops[name] = loop
            start_s[name] = round(time.monotonic() - begin, 1)
    return loops, start_s, failures


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Do some work; return the seconds that it took the device."""
    if device.type != "cuda":
        begin = time.process_time()
        work()
        return time.process_time() - begin
    first, last = (torch.Event(device, enable_timing=True) for _ in range(2))
    first.record()
    work()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def release(device: torch.device) -> None:
    """Give back the memory of networks that are not used any more, and of their graphs."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def say(text: str) -> None:
    """Tell on stderr how far the run is."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _reason(error: Exception) -> str:
    """Say in one line what went wrong; the rest goes to stderr."""
    traceback.print_exception(error)
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _updates_per_round(loop: Loop, batches: Repeated, device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    batches.num_batches = 3
    return max(1, round(GPU_ROUND_S / timed(partial(loop, batches), device) * len(batches)))


def _summary(rates: dict[str, Rates], failures: dict[str, str]) -> str:
    middle = {name: f"{sorted(values)[len(values) // 2]:,.1f}" for name, values in rates.items()}
    return ", ".join(f"{name} {value}" for name, value in (middle | failures).items())
