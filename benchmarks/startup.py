"""What a loader costs before and besides its images: first batch, new resolution, memory.

Each figure comes from fresh processes on one core, stock and ours in turn. Memory is measured with
our decoder in FFCV's Loader, which repeats the 500 images to fill batches of 512; the buffers of
our own Loader are the same.
"""

import gc
import threading
from time import perf_counter
from typing import Any

from benchmarks.betons import OLD, OURS, beton_path
from benchmarks.processes import Contender, ProcessError, run_apart
from ffvit.memory import anonymous_bytes

# ruff: noqa: PLC0415 - imports are no part of what is timed, but of the processes that time

# The beton that each reads: what its users have.
LOADERS = {"stock": ("stock_ffcv", OLD), "ffvit": ("ffvit_loader", OURS)}
RESOLUTION_CHANGES = (192, 224, 160, 224, 128, 224)
MEMORY_BATCH_SIZE = 512
MEMORY_RESOLUTION = 224
NUM_MEMORY_EPOCHS = 3
SAMPLING_INTERVAL_S = 0.02


def measure(num_runs: int) -> dict[str, Any]:
    """Measure stock and ours, `num_runs` processes each for the times and one for the memory.

    Returns:
        For each loader seconds to the first batch by run, seconds to the first batch of an epoch
        at a new and at the old resolution, and anonymous memory; or why it was not measured.
    """
    results: dict[str, dict[str, Any]] = {
        name: {"first_batch_s": [], "new_resolution_s": [], "same_resolution_s": []}
        for name in LOADERS
    }
    for _ in range(num_runs):
        for name, (loader, beton) in LOADERS.items():
            contender = Contender(name, loader, str(beton_path(beton)))
            try:
                run = run_apart(time_first_batches, contender)
            except ProcessError as error:
                results[name]["not_measured"] = str(error)
                continue
            results[name]["first_batch_s"].append(run["first_batch_s"])
            results[name]["new_resolution_s"] += run["new_resolution_s"]
            results[name]["same_resolution_s"] += run["same_resolution_s"]
    for name, loader in (("stock", "stock_ffcv"), ("ffvit", "ffvit_in_ffcv")):
        contender = Contender(name, loader, str(beton_path(LOADERS[name][1])))
        try:
            results[name] |= run_apart(measure_memory, contender)
        except ProcessError as error:
            results[name]["not_measured"] = str(error)
    return results | {"memory_batch_size": MEMORY_BATCH_SIZE}


def time_first_batches(contender: Contender) -> dict[str, Any]:
    """Time the loader's construction up to its first batch, then the first batches of epochs."""
    peers = _import_all()
    num_images = 5 * peers.BATCH_SIZE
    begin = perf_counter()
    epoch = getattr(peers, contender.loader)(contender, num_images)
    batches = iter(epoch(contender.resolutions[0]))
    next(batches)
    first_batch_s = perf_counter() - begin
    _exhaust(batches)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    last = contender.resolutions[0]
    for resolution in RESOLUTION_CHANGES:
        # The same one again first: half of the epochs change the resolution, half do not.
        for next_resolution in (last, resolution):
            begin = perf_counter()
            batches = iter(epoch(next_resolution))
            next(batches)
            seconds[next_resolution != last].append(perf_counter() - begin)
            _exhaust(batches)
            last = next_resolution
    return {
        "first_batch_s": round(first_batch_s, 3),
        "new_resolution_s": [round(value, 4) for value in seconds[True]],
        "same_resolution_s": [round(value, 4) for value in seconds[False]],
    }


def measure_memory(contender: Contender) -> dict[str, Any]:
    """Measure anonymous memory of epochs of large batches, above that after the imports."""
    peers = _import_all()
    peers.BATCH_SIZE = MEMORY_BATCH_SIZE
    idle = anonymous_bytes()
    # Enough to fill all buffers that the loader has.
    epoch = getattr(peers, contender.loader)(contender, 6 * MEMORY_BATCH_SIZE)
    with _PeakMemory() as peak:
        used_by_epoch = []
        for _ in range(NUM_MEMORY_EPOCHS):
            used_by_epoch.append(max(anonymous_bytes() for _ in epoch(MEMORY_RESOLUTION)))
            # Compiling leaves cycles that hold the first epoch's buffers until Python looks for
            # them: stock's would then count twice, for how long is chance.
            gc.collect()
    above_idle = [round((used - idle) / 1e9, 3) for used in used_by_epoch]
    return {
        "anonymous_gb": max(above_idle),
        "anonymous_gb_by_epoch": above_idle,
        "anonymous_peak_gb": round((peak.bytes - idle) / 1e9, 3),
        "anonymous_idle_gb": round(idle / 1e9, 3),
    }


class _PeakMemory:
    """Watches the anonymous memory from a thread, as the system keeps no peak of it."""

    def __init__(self) -> None:
        self.bytes = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_PeakMemory":  # noqa: PYI034 - Self needs Python 3.11
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(SAMPLING_INTERVAL_S):
            self.bytes = max(self.bytes, anonymous_bytes())


def _import_all() -> Any:
    """Import what both loaders use, so that imports are neither timed nor counted."""
    import ffcv.fields
    import ffcv.loader
    import ffcv.transforms  # noqa: F401

    import ffvit.data.loader  # noqa: F401
    from benchmarks import peers

    return peers


def _exhaust(batches: Any) -> None:
    for _ in batches:
        pass
