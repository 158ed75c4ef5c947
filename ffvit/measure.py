"""One part of a run measured alone: the loader without a model, the model without a loader.

That is what `--run.mode=data_only` and `model_only` do. Both end after so many batches, and write
nothing.
"""

import itertools
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch.profiler import record_function

from ffvit.assembly import Parts
from ffvit.runlog import RunLog

# How long each resolution is measured, seconds, and within which bounds on batches or updates.
MEASURED_S = 10.0
AT_LEAST, AT_MOST = 5, 200
# Batches before the loader's clock starts: its buffers are fresh memory, and the model would wait.
NUM_UNTIMED = 5
# Updates that are timed to choose how many are measured; more than the loader runs ahead.
NUM_WARM = 5


class Some:
    """So many batches of a source that others may go on with.

    Args:
        source: Batches.
        resolution: Side of their images, pixels.
        num_batches: How many.
    """

    def __init__(self, source: Iterator[Any], resolution: int, num_batches: int) -> None:
        self.resolution = resolution
        self._source = source
        self._num_batches = num_batches

    def __len__(self) -> int:
        """Count the batches."""
        return self._num_batches

    def __iter__(self) -> Iterator[Any]:
        yield from itertools.islice(self._source, self._num_batches)


class Training:
    """Updates that compute all that a run's do, and change no weight; at one resolution.

    Args:
        parts: Of the run.
        resolution: Side of the images, pixels.
        source: Batches without end; None: the same synthetic one on the device each time.
        stage: As for `Trainer`.
    """

    def __init__(
        self,
        parts: Parts,
        resolution: int,
        source: Iterator[Any] | None = None,
        stage: Callable[[str], AbstractContextManager[Any]] = record_function,
    ) -> None:
        self._parts = parts
        self._resolution = resolution
        self._source = source or itertools.repeat(parts.synthetic_batch(resolution))
        # As strong as in the last epoch of this resolution.
        augmentation, epoch = parts.create_augmentation(), parts.last_epoch_at(resolution)
        self._trainer = parts.create_trainer(
            log=RunLog.open(Path(), {}, {}, is_primary=False),
            learning_rate=lambda _: 0.0,
            augment=lambda batch, _: augmentation(batch, epoch),
            stage=stage,
        )

    def warm_up(self) -> int:
        """Let everything be compiled; return how many updates to measure, in all ranks the same."""
        self.train(1)
        seconds = self.train(NUM_WARM)["train_s"] / NUM_WARM
        return min(AT_MOST, max(AT_LEAST, self._parts.ranks.max(round(MEASURED_S / seconds))))

    def train(self, num_updates: int) -> dict[str, Any]:
        """Do so many updates; returns what `Trainer.train_epoch` returns."""
        num_batches = num_updates * self._parts.config.training.accumulation_steps
        batches = Some(self._source, self._resolution, num_batches)
        # The number of the epoch only has to be another each time.
        return self._trainer.train_epoch(batches, epoch=self._trainer.step + 1)


def measure(parts: Parts) -> str:
    """Do what `run.mode` says instead of training, at each resolution of the run.

    Returns:
        One line for people.
    """
    config, ranks = parts.config, parts.ranks
    is_data = config.run.mode == "data_only"
    texts = []
    for resolution in parts.resolutions:
        if is_data:
            result = measure_loader(parts, resolution)
            count = f"{result['num_batches']} batches of {parts.train_loader.batch_size}"
        else:
            training = Training(parts, resolution)
            num_updates = training.warm_up()
            result = training.train(num_updates)
            count = f"{num_updates} updates of {config.training.global_batch_size}"
        mfu = f", MFU {result['mfu']:.1%}" if result.get("mfu") is not None else ""
        texts.append(f"{result['images_per_s']:,.0f} images/s at {resolution} px ({count}{mfu})")
    what = (
        f"{parts.train_loader.decoder.num_threads} decoding threads, no model"
        if is_data
        else f"{config.model.name} on {ranks.device}, augmentation and update, no images"
    )
    return f"{config.run.mode}: {'; '.join(texts)}. {ranks.world_size} x {what}."


def measure_loader(parts: Parts, resolution: int) -> dict[str, float]:
    """Let all ranks load training images as fast as they can, and drop them.

    Returns:
        images_per_s of all ranks together; num_batches of this one.
    """
    ranks, batch_size = parts.ranks, parts.train_loader.batch_size
    batches = endless(parts, resolution)
    for _ in range(NUM_UNTIMED):
        next(batches)
    ranks.wait_for_all()
    num_batches, elapsed_s, begin = 0, 0.0, time.perf_counter()
    while num_batches < AT_LEAST or (elapsed_s < MEASURED_S and num_batches < AT_MOST):
        next(batches)
        num_batches += 1
        elapsed_s = time.perf_counter() - begin
    parts.train_loader.close()
    # Ranks exchange whole numbers: images in a thousand seconds.
    rate = ranks.total(round(1e3 * num_batches * batch_size / elapsed_s)) / 1e3
    return {"images_per_s": rate, "num_batches": num_batches}


def endless(parts: Parts, resolution: int) -> Generator[Any, None, None]:
    """Go over the training images again and again."""
    for epoch in itertools.count():
        parts.train_loader.set_epoch(epoch, resolution)
        yield from parts.train_loader
