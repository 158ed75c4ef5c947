"""Worker processes that read and encode images, watched by the process that stores them.

What ffcv's own writer lacks: a worker that raises or dies ends the write at once, with the name of
its image, and results arrive in the order asked for, so that the file does not depend on the number
of workers.
"""

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import traceback
import warnings
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from ffvit.config import WriteSection
from ffvit.data.images import StoredImage, encode_image
from ffvit.data.sources import Indices, Source
from ffvit.errors import SourceError, UserError

# Images handed to a worker at once.
CHUNK = 8
# Images that may wait for an earlier one, per worker: a slow image must not idle the others.
RUN_AHEAD = 4 * CHUNK
STOP_TIMEOUT_S = 5


@dataclasses.dataclass
class _Worker:
    """A worker process, our end of its pipe, and the positions it still has to answer."""

    process: BaseProcess
    connection: Connection
    pending: collections.deque[int]


def encode_in_order(
    source: Source,
    order: Indices,
    section: WriteSection,
    num_workers: int,
    start_method: str = "fork",
) -> Generator[StoredImage, None, None]:
    """Encode images of a source in worker processes.

    Close the generator to stop early; no process outlives it.

    Args:
        source: Of the images.
        order: (num_samples,) int64, the images to encode.
        section: How to encode.
        num_workers: Processes; at most as many as are of use.
        start_method: fork shares the source's index and the imported packages with the workers;
        they
            touch neither numba nor torch, so the threads of those do not matter. spawn and
            forkserver work, too.

    Yields:
        One image for each entry of `order`, in that order.

    Raises:
        SourceError: An image cannot be read or encoded, or its worker died; names the image.
    """
    context = multiprocessing.get_context(start_method)
    workers: list[_Worker] = []
    try:
        with _deferred_signals():
            for _ in range(min(num_workers, -(-len(order) // CHUNK))):
                workers.append(_start(context, source, section))  # noqa: PERF401 - for `finally`
        yield from _collect(workers, source, order)
    finally:
        for worker in workers:
            worker.process.kill()  # it holds nothing that would need a goodbye
            worker.connection.close()
        for worker in workers:
            worker.process.join(STOP_TIMEOUT_S)


def available_cpus() -> int:
    """Count the CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def _deferred_signals() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM: an exception in the midst of a fork is lost in its hooks."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled elsewhere
        return
    arrived: list[int] = []
    previous = {
        kind: signal.signal(kind, lambda number, _: arrived.append(number))
        for kind in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)
    for number in arrived:
        signal.raise_signal(number)


def _start(context: BaseContext, source: Source, section: WriteSection) -> _Worker:
    ours, theirs = context.Pipe()
    # A forked worker has our end, too; unless it closes it, its pipe would outlive this process.
    inherited = ours if context.get_start_method() == "fork" else None
    arguments = (theirs, inherited, source, section)
    process = context.Process(target=_work, args=arguments, daemon=True)  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        # Python 3.12 warns of fork beside threads, see `start_method`.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()
    theirs.close()  # ours alone: its death is then the end of the pipe
    return _Worker(process, ours, collections.deque())


def _collect(workers: Sequence[_Worker], source: Source, order: Indices) -> Iterator[StoredImage]:
    """Hand out chunks, gather the answers, and put them in order."""
    by_connection = {worker.connection: worker for worker in workers}
    answers: dict[int, StoredImage] = {}
    handed_out = 0
    for position in range(len(order)):
        while position not in answers:
            limit = min(len(order), position + RUN_AHEAD * len(workers))
            for worker in workers:
                if len(worker.pending) <= CHUNK and handed_out < limit:
                    chunk = range(handed_out, min(handed_out + CHUNK, limit))
                    handed_out = chunk.stop
                    worker.pending.extend(chunk)
                    _send(worker, [int(order[p]) for p in chunk], source, order)
            for connection in wait(list(by_connection)):
                worker = by_connection[connection]  # type: ignore[index]
                answer = _receive(worker, source, order)
                answers[worker.pending.popleft()] = answer
        yield answers.pop(position)


def _send(worker: _Worker, chunk: list[int], source: Source, order: Indices) -> None:
    try:
        worker.connection.send(chunk)
    except OSError:
        raise _death(worker, source, order) from None


def _receive(worker: _Worker, source: Source, order: Indices) -> StoredImage:
    try:
        answer = worker.connection.recv()
    except (EOFError, OSError):
        raise _death(worker, source, order) from None
    if isinstance(answer, UserError):
        raise answer
    if isinstance(answer, str):
        raise RuntimeError(f"{source.name(int(order[worker.pending[0]]))}: {answer}")  # noqa: TRY004 - a bug's traceback
    assert isinstance(answer, StoredImage)
    return answer


def _death(worker: _Worker, source: Source, order: Indices) -> SourceError:
    """Say which image a dead worker had in hand."""
    worker.process.join(STOP_TIMEOUT_S)
    code = worker.process.exitcode or 0
    cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    name = source.name(int(order[worker.pending[0]])) if worker.pending else source.description
    return SourceError(
        f"{name}: the process that encodes it died ({cause}); if memory ran out, use fewer "
        "--num_workers."
    )


def _work(
    connection: Connection, inherited: Connection | None, source: Source, section: WriteSection
) -> None:
    """Answer chunks of indices with encoded images or errors until the pipe ends."""
    if inherited is not None:
        inherited.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        while True:
            for index in connection.recv():
                connection.send(_encode(source, index, section))
    except (EOFError, OSError):
        return  # the parent is gone


def _encode(source: Source, index: int, section: WriteSection) -> StoredImage | UserError | str:
    try:
        return encode_image(source.read(index), source.name(index), section)
    except UserError as error:
        return error
    except Exception:  # noqa: BLE001 - passed on to the parent, which raises it
        return traceback.format_exc()
