"""Worker processes that read and encode images, watched by the process that stores them.

What ffcv's own writer lacks: a worker that raises or dies ends the write at once, with the name of
its image, and results arrive in the order asked for, so that the file does not depend on the number
of workers. Images are handed over in shared memory (slots.py), as a pipe copies them four times.
"""

import collections
import dataclasses
import multiprocessing
import signal
import traceback
import warnings
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import cast

from ffvit.data.images import SkippedImage, StoredImage, encode_image
from ffvit.data.signals import deferred_signals
from ffvit.data.slots import SLOT_BYTES, Slots
from ffvit.data.sources import Indices, Source
from ffvit.errors import SourceError, UserError
from ffvit.options import WriteSection

# Images handed to a worker at once.
CHUNK = 8
# Images that may wait for an earlier one, per worker: a slow image must not idle the others.
RUN_AHEAD = 4 * CHUNK
STOP_TIMEOUT_S = 5


# An image, and the number of its bytes where these lie in its slot.
_Answer = tuple[StoredImage | SkippedImage, int | None]


@dataclasses.dataclass
class _Worker:
    """A worker process, our end of its pipe, and the chunks of positions it has to answer."""

    number: int
    process: BaseProcess
    connection: Connection
    pending: collections.deque[range]


def encode_in_order(
    source: Source,
    order: Indices,
    section: WriteSection,
    num_workers: int,
    start_method: str = "fork",
) -> Generator[StoredImage | SkippedImage, None, None]:
    """Encode images of a source in worker processes.

    Close the generator to stop early; no process outlives it.

    Args:
        source: Of the images.
        order: (num_samples,) int64, the images to encode.
        section: How to encode, and what becomes of an image that cannot be.
        num_workers: Processes; at most as many as are of use.
        start_method: fork shares the source's index and the imported packages with the workers;
            they touch neither numba nor torch, so the threads of those do not matter. spawn and
            forkserver work, too.

    Yields:
        One image for each entry of `order`, in that order. Its data may be overwritten when the
        next one is asked for. `on_error=skip` gives a `SkippedImage` where there is none.

    Raises:
        SourceError: An image cannot be read or encoded, or its worker died; names the image.
    """
    if len(order) == 0:
        return
    context = multiprocessing.get_context(start_method)
    workers: list[_Worker] = []
    num_workers = min(num_workers, -(-len(order) // CHUNK))
    num_slots = RUN_AHEAD * num_workers
    slots = Slots(num_slots, num_workers, is_inherited=start_method == "fork")
    try:
        with deferred_signals():  # an exception in the midst of a fork is lost in its hooks
            for number in range(num_workers):
                worker = _start(context, number, source, section, slots)
                workers.append(worker)
        yield from _collect(workers, source, order, slots, num_slots)
    finally:
        for worker in workers:
            worker.process.kill()  # it holds nothing that would need a goodbye
            worker.connection.close()
        for worker in workers:
            worker.process.join(STOP_TIMEOUT_S)


def _start(
    context: BaseContext, number: int, source: Source, section: WriteSection, slots: Slots
) -> _Worker:
    ours, theirs = context.Pipe()
    # A forked worker has our end, too; unless it closes it, its pipe would outlive this process.
    inherited = ours if context.get_start_method() == "fork" else None
    arguments = (theirs, inherited, number, source, section, slots)
    process = context.Process(target=_work, args=arguments, daemon=True)  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        # Python 3.12 warns of fork beside threads, see `start_method`.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        process.start()
    theirs.close()  # ours alone: its death is then the end of the pipe
    return _Worker(number, process, ours, collections.deque())


def _collect(
    workers: Sequence[_Worker], source: Source, order: Indices, slots: Slots, num_slots: int
) -> Iterator[StoredImage | SkippedImage]:
    """Hand out chunks, gather the answers, and put them in order."""
    by_connection = {worker.connection: worker for worker in workers}
    answers: dict[int, _Answer] = {}
    handed_out = 0
    for position in range(len(order)):
        while position not in answers:
            # Whoever asks for this image has taken over the ones before: their slots are free.
            limit = min(len(order), position + num_slots)
            for worker in workers:
                if len(worker.pending) <= 1 and handed_out < limit:
                    chunk = range(handed_out, min(handed_out + CHUNK, limit))
                    handed_out = chunk.stop
                    worker.pending.append(chunk)
                    tasks = [(int(order[p]), p % num_slots) for p in chunk]
                    _send(worker, tasks, source, slots)
            for connection in wait(list(by_connection)):
                worker = by_connection[connection]  # type: ignore[index]
                received = _receive(worker, source, slots)
                answers.update(zip(worker.pending.popleft(), received, strict=True))
        image, num_bytes = answers.pop(position)
        if isinstance(image, StoredImage) and num_bytes is not None:
            data = slots.get(position % num_slots, num_bytes)
            image = dataclasses.replace(image, data=data)
        yield image


def _send(worker: _Worker, tasks: list[tuple[int, int]], source: Source, slots: Slots) -> None:
    try:
        worker.connection.send(tasks)
    except OSError:
        raise _death(worker, source, slots) from None


def _receive(worker: _Worker, source: Source, slots: Slots) -> list[_Answer]:
    try:
        answers = worker.connection.recv()
    except (EOFError, OSError):
        raise _death(worker, source, slots) from None
    if isinstance(answers, UserError):
        raise answers
    if isinstance(answers, str):
        raise RuntimeError(f"{_name_in_hand(worker, source, slots)}: {answers}")  # noqa: TRY004 - a bug's traceback
    return cast("list[_Answer]", answers)


def _death(worker: _Worker, source: Source, slots: Slots) -> SourceError:
    """Say which image a dead worker had in hand."""
    worker.process.join(STOP_TIMEOUT_S)
    code = worker.process.exitcode or 0
    cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    return SourceError(
        f"{_name_in_hand(worker, source, slots)}: the process that encodes it died ({cause}); if "
        "memory ran out, use fewer --num_workers."
    )


def _name_in_hand(worker: _Worker, source: Source, slots: Slots) -> str:
    index = int(slots.in_hand[worker.number])
    return source.name(index) if index >= 0 else source.description


def _work(
    connection: Connection,
    inherited: Connection | None,
    number: int,
    source: Source,
    section: WriteSection,
    slots: Slots,
) -> None:
    """Answer chunks of (index, slot) with encoded images or an error until the pipe ends."""
    if inherited is not None:
        inherited.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    slots.in_hand[number] = -1
    try:
        while True:
            connection.send(_encode_chunk(connection.recv(), number, source, section, slots))
    except (EOFError, OSError):
        return  # the parent is gone


def _encode_chunk(
    tasks: list[tuple[int, int]], number: int, source: Source, section: WriteSection, slots: Slots
) -> list[_Answer] | UserError | str:
    """Encode images and put them into their slots, those that fit."""
    answers: list[_Answer] = []
    try:
        for index, slot in tasks:
            slots.in_hand[number] = index
            image, num_bytes = _encode(source, index, section), None
            if isinstance(image, StoredImage) and len(image.data) <= SLOT_BYTES:
                slots.put(slot, image.data)
                num_bytes = len(image.data)
                image = dataclasses.replace(image, data=b"")
            answers.append((image, num_bytes))
    except UserError as error:
        return error
    except Exception:  # noqa: BLE001 - passed on to the parent, which raises it
        return traceback.format_exc()
    return answers


def _encode(source: Source, index: int, section: WriteSection) -> StoredImage | SkippedImage:
    """Read and encode an image; skip it if that fails and may."""
    name = source.name(index)
    try:
        return encode_image(source.read(index), name, section)
    except MemoryError:
        # Not the image's fault, so never a reason to leave it out.
        raise SourceError(
            f"{name}: memory ran out while it was encoded; use fewer --num_workers."
        ) from None
    except SourceError as error:
        if section.on_error == "stop":
            raise
        return SkippedImage(name, str(error).removeprefix(f"{name}: "))
