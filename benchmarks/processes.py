"""Processes that a measurement is made in: fresh ones, and long-lived ones that compute when told.

A contender lives in a process of its own: imports and compilation are over before its first round,
its libraries and threads disturb nobody else's, and one that hangs is ended and recorded. Only one
computes at a time, so rounds of all contenders can be interleaved.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import Any

START_TIMEOUT_S = 120
ROUND_TIMEOUT_S = 60
# Batches at the start of a round that are not timed: an epoch of ffcv begins with fresh memory for
# five batches, a cost that ImageNet spreads over thousands.
NUM_UNTIMED = 5
_CONTEXT = multiprocessing.get_context("spawn")


class ProcessError(Exception):
    """What is measured raised, hangs or died; the message says which, in one line."""


def run_apart(
    function: Callable[..., Any], *arguments: Any, timeout_s: float = START_TIMEOUT_S
) -> Any:
    """Call a function in a fresh process on one core and return what it returns.

    Args:
        function: Of a module that imports nothing that must not be imported twice or early.
        arguments: Its arguments.
        timeout_s: After which it counts as hanging.

    Raises:
        ProcessError: It raised, hangs or died.
    """
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_run_one, args=(theirs, _cores(1), function, arguments))
    process.start()
    theirs.close()
    try:
        return _receive(ours, timeout_s)
    finally:
        process.kill()
        process.join()


@dataclasses.dataclass(frozen=True)
class Contender:
    """A loader that is measured.

    Attributes:
        name: In results and tables.
        loader: Which function of peers.py makes it.
        path: The beton, folder or shard that it reads.
        crop: "random" (crop and flip) or "center".
        resolutions: At which it is measured, pixels.
        num_threads: Decoding threads, and cores that it runs on.
    """

    name: str
    loader: str
    path: str
    crop: str = "random"
    resolutions: tuple[int, ...] = (224,)
    num_threads: int = 1


class ContenderProcess:
    """A contender in its process; `wait_until_ready` after the start, then rounds.

    Args:
        contender: The loader.
        num_images: Per round.
        start_core: Where it imports, compiles and warms up, as long as others do so elsewhere.
    """

    def __init__(self, contender: Contender, num_images: int, start_core: int) -> None:
        self.contender = contender
        self._connection, theirs = _CONTEXT.Pipe()
        cores = _cores(contender.num_threads)
        self._process = _CONTEXT.Process(
            target=_serve_rounds,
            args=(theirs, contender, num_images, cores if len(cores) > 1 else {start_core}, cores),
        )
        self._process.start()
        theirs.close()

    def wait_until_ready(self) -> None:
        """Wait for the end of the warm-up.

        Raises:
            ProcessError: It raised, hangs or died.
        """
        _receive(self._connection, START_TIMEOUT_S)

    def measure_round(self, resolution: int) -> float:
        """Let it load one round of images; returns images per second.

        Raises:
            ProcessError: It raised, hangs or died.
        """
        self._connection.send(resolution)
        return float(_receive(self._connection, ROUND_TIMEOUT_S))

    def end(self) -> None:
        """End the process, whatever it does: some libraries hang at a regular exit."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _cores(number: int) -> set[int]:
    """Choose cores to measure on: the last ones, as interrupts tend to the first."""
    return set(sorted(os.sched_getaffinity(0))[-number:])


def _receive(connection: Connection, timeout_s: float) -> Any:
    """Take the answer of a process, or raise `ProcessError`."""
    if not connection.poll(timeout_s):
        raise ProcessError(f"no answer in {timeout_s:.0f} s")
    try:
        succeeded, answer = connection.recv()
    except EOFError:
        raise ProcessError("its process died") from None
    if not succeeded:
        raise ProcessError(answer)
    return answer


def _pin(cores: set[int]) -> None:
    """Bind all threads of this process; those that they start inherit it."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that just ended
            os.sched_setaffinity(int(task.name), cores)


def _answer(connection: Connection, function: Callable[[], Any]) -> None:
    """Send what a function returns, or why it does not."""
    try:
        connection.send((True, function()))
    except Exception as error:  # noqa: BLE001 - whatever a peer raises is its result
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        connection.send((False, f"{type(error).__name__}: {lines[0]}"))


def _run_one(
    connection: Connection,
    cores: set[int],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.sched_setaffinity(0, cores)
    _answer(connection, lambda: function(*arguments))


def _serve_rounds(connection: Connection, *arguments: Any) -> None:
    """Serve rounds as long as the run is there; some libraries hang at a regular exit."""
    try:
        _serve(connection, *arguments)
    except (EOFError, BrokenPipeError):  # the run was ended
        os._exit(1)


def _serve(
    connection: Connection,
    contender: Contender,
    num_images: int,
    start_cores: set[int],
    cores: set[int],
) -> None:
    """Make a contender, warm it up, then load a round for each resolution that comes in."""
    # Before the imports: libraries count the cores that they may use.
    os.sched_setaffinity(0, start_cores)
    epoch: Callable[[int], Any] | None = None

    def warm_up() -> None:
        nonlocal epoch
        from benchmarks import peers  # noqa: PLC0415 - after the affinity is set

        num_all = NUM_UNTIMED * peers.BATCH_SIZE + num_images
        epoch = getattr(peers, contender.loader)(contender, num_all)
        for resolution in contender.resolutions:
            _check(list_shapes(epoch(resolution)), resolution, num_all)

    def time_round(resolution: int) -> float:
        assert epoch is not None
        batches = iter(epoch(resolution))
        for _ in range(NUM_UNTIMED):
            next(batches)
        begin = perf_counter()
        num_loaded = sum(len(images) for images in batches)
        return num_loaded / (perf_counter() - begin)

    _answer(connection, warm_up)
    while True:
        resolution = connection.recv()
        _pin(cores)
        _answer(connection, lambda: time_round(resolution))  # noqa: B023 - called at once


def list_shapes(batches: Any) -> list[tuple[tuple[int, ...], str]]:
    """Note shape and type of each batch, and drop it: its memory is used again."""
    return [(tuple(images.shape), str(images.dtype)) for images in batches]


def _check(shapes: list[tuple[tuple[int, ...], str]], resolution: int, num_images: int) -> None:
    """Refuse to compare a loader that delivers something else than uint8 squares, all of them."""
    squares = ((resolution, resolution, 3), (3, resolution, resolution))
    wrong = [s for s in shapes if s[0][1:] not in squares or not s[1].endswith("uint8")]
    total = sum(shape[0] for shape, _ in shapes)
    if wrong or total != num_images:
        raise ValueError(f"{total} of {num_images} images, unexpected batches: {wrong[:1]}")
