"""Clocks of the training loop; none of them waits for a device."""

import itertools
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class Stopwatch:
    """Splits wall time into waiting for data and the rest.

    Attributes:
        waited_s: Part of the time that was spent waiting.
    """

    def __init__(self, elapsed_s: float = 0.0, waited_s: float = 0.0) -> None:
        """Take over what was measured before; does not run yet."""
        self.waited_s = waited_s
        self._before_s = elapsed_s
        self._begin: float | None = None

    def start(self) -> None:
        """Let the time run on from now."""
        self._begin = time.perf_counter()

    def stop(self) -> None:
        """Keep the time as it is."""
        self._before_s, self._begin = self.elapsed_s(), None

    def elapsed_s(self) -> float:
        """Return the time measured until now."""
        running = 0.0 if self._begin is None else time.perf_counter() - self._begin
        return self._before_s + running

    def rates(self, num_images: int) -> dict[str, float]:
        """Return images_per_s and data_wait_fraction of so many images."""
        elapsed_s = self.elapsed_s()
        return {
            "images_per_s": num_images / elapsed_s,
            "data_wait_fraction": self.waited_s / elapsed_s,
        }

    def state_dict(self) -> dict[str, float]:
        """Return the arguments of a stopwatch that goes on from here."""
        return {"elapsed_s": self.elapsed_s(), "waited_s": self.waited_s}


class DeviceClock:
    """Marks moments: on a GPU events in its stream, which the host does not wait for.

    Args:
        device: Whose moments.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"

    def now(self) -> Any:
        """Mark this moment."""
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        """Return the time between two moments; on a GPU only after its stream was waited for."""
        return float(begin.elapsed_time(end) / 1e3 if self._is_cuda else end - begin)


class StepTimer:
    """Times each update, from the end of the one before to its own.

    On a GPU an end is an event in the stream, so that the times are the device's although the host
    runs ahead; they are read only when the device has been waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._clock = DeviceClock(device)
        self._ends: list[Any] = []

    def start(self) -> None:
        """Begin the first update now."""
        self._ends = [self._clock.now()]

    def mark(self) -> None:
        """End an update, and begin the next."""
        self._ends.append(self._clock.now())

    def take(self) -> list[float]:
        """Return the seconds of each update since the last call.

        On a GPU only after the host has waited for the stream.
        """
        ends, self._ends = self._ends, self._ends[-1:]
        return [self._clock.seconds(a, b) for a, b in itertools.pairwise(ends)]


def step_percentiles(step_s: Sequence[float]) -> dict[str, float]:
    """Say how long updates took: median, 95th percentile and longest, ms; nothing about none."""
    if not step_s:
        return {}
    p50, p95, longest = (1e3 * float(s) for s in np.percentile(step_s, (50, 95, 100)))
    return {"step_p50_ms": p50, "step_p95_ms": p95, "step_max_ms": longest}
