"""Sources of images in memory, whole ones and ones that fail in a worker."""

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
from conftest import encode, gradient

from ffvit.data.sources import Source
from ffvit.data.sources.base import MemoryStore


def make_source(num_images: int = 23, num_classes: int = 5, size=(48, 64), **changes) -> Source:
    """Make a source of lossless images in memory, each different."""
    files = [encode(gradient(*size, mark=(i, 99, 7 * i % 256)), "PNG") for i in range(num_images)]
    source = Source(
        store=MemoryStore([f"folder/{i}.png" for i in range(num_images)], files),
        keys=np.arange(num_images),
        labels=np.arange(num_images) % num_classes,
        label_names=tuple(f"class {label}" for label in range(num_classes)),
        description="images in memory",
    )
    return dataclasses.replace(source, **changes)


class FailingStore(MemoryStore):
    """Images in memory, of which number 17 does something else."""

    def read(self, key: int) -> bytes:
        if key == 17:
            self.fail()
        return super().read(key)

    def fail(self) -> None:
        raise ZeroDivisionError("a bug")


class KillingStore(FailingStore):
    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def failing(kind: type[FailingStore]) -> Source:
    source = make_source()
    return dataclasses.replace(source, store=kind(source.store.names, source.store.files))


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
