"""Loaders for the end-to-end rows, each as the users of its loop set it up.

All give batches of (uint8 images (B, H, H, 3), labels) on the device: random crops of scale 0.08 to
1 and ratio 3/4 to 4/3, half of them mirrored. All repeat the same few images; their files are in
the page cache.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.betons import OLD, OURS, beton_path, jpeg_folder
from ffvit.cpus import available_cpus
from ffvit.data.beton import open_beton
from ffvit.data.loader import create_train_loader
from ffvit.options import DataSection

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@dataclasses.dataclass(frozen=True)
class Loading:
    """A loader: as many batches as it has, at each iteration anew."""

    resolution: int
    num_batches: int
    open: Callable[[], Any]

    def __len__(self) -> int:
        """Count the batches of a pass."""
        return self.num_batches

    def __iter__(self) -> Iterator[Any]:
        """Start a pass."""
        yield from self.open()


def ours(resolution: int, batch_size: int, num_batches: int, device: torch.device) -> Loading:
    """Make our Loader on our beton."""
    path = beton_path(OURS)
    num_copies = -(-num_batches * batch_size // open_beton(path).num_samples)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        copies = [Path(folder) / f"{number}.beton" for number in range(num_copies)]
        for copy in copies:
            copy.hardlink_to(path)
        loader = create_train_loader(
            DataSection(train_path=",".join(map(str, copies)), min_scale=SCALE[0], flip=True),
            resolution,
            global_batch_size=batch_size,
            batch_size=batch_size,
            seed=0,
            rank=0,
            world_size=1,
            num_threads=available_cpus(),
            device=device,
        )
    epochs = itertools.count()

    def epoch() -> Iterator[Any]:
        loader.set_epoch(next(epochs))
        iterator = iter(loader)
        try:
            for batch in itertools.islice(iterator, num_batches):
                yield batch.images, batch.labels
        finally:
            iterator.close()

    return Loading(resolution, num_batches, epoch)


def stock_ffcv(resolution: int, batch_size: int, num_batches: int, device: torch.device) -> Loading:
    """Make stock ffcv's Loader on a beton that its own writer wrote."""
    from ffcv.fields.basics import IntDecoder  # noqa: PLC0415 - compiles when it is imported
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder  # noqa: PLC0415
    from ffcv.loader import Loader, OrderOption  # noqa: PLC0415
    from ffcv.transforms import (  # noqa: PLC0415
        RandomHorizontalFlip,
        Squeeze,
        ToDevice,
        ToTensor,
    )

    path = str(beton_path(OLD))
    num_samples = open_beton(path).num_samples
    decoder = RandomResizedCropRGBImageDecoder((resolution, resolution), SCALE, RATIO)
    to_device = [ToTensor(), ToDevice(device, non_blocking=True)]
    loader = Loader(
        path,
        batch_size=batch_size,
        num_workers=available_cpus(),
        order=OrderOption.RANDOM,
        indices=(np.arange(num_batches * batch_size) % num_samples).astype(np.uint64),
        pipelines={
            "image": [decoder, RandomHorizontalFlip(), *to_device],
            "label": [IntDecoder(), ToTensor(), Squeeze(), ToDevice(device, non_blocking=True)],
        },
        drop_last=True,
    )
    return Loading(resolution, num_batches, lambda: loader)


def timm_files(resolution: int, batch_size: int, num_batches: int, device: torch.device) -> Loading:
    """Make timm's loader on JPEG files, with worker processes if there is more than one core."""
    from timm.data.loader import create_loader  # noqa: PLC0415
    from torchvision.datasets import ImageFolder  # noqa: PLC0415

    dataset = ImageFolder(jpeg_folder(OURS))
    indices = (np.arange(num_batches * batch_size) % len(dataset)).tolist()
    num_cores = available_cpus()
    loader: Any = create_loader(
        torch.utils.data.Subset(dataset, indices),  # type: ignore[arg-type]
        (3, resolution, resolution),
        batch_size,
        is_training=True,
        scale=SCALE,
        ratio=RATIO,
        hflip=0.5,
        color_jitter=None,  # type: ignore[arg-type]
        interpolation="bilinear",
        num_workers=num_cores if num_cores > 1 else 0,
        persistent_workers=num_cores > 1,
        pin_memory=device.type == "cuda",
        device=torch.device("cpu"),
    )
    dataset.transform = loader.dataset.transform

    def epoch() -> Iterator[Any]:
        # timm's own wrapper, left out here, would normalise; the loops do.
        for images, labels in loader.loader:
            on_device = images.to(device, non_blocking=True).permute(0, 2, 3, 1)
            yield on_device, labels.to(device, non_blocking=True)

    return Loading(resolution, num_batches, epoch)


LOADERS: dict[str, Callable[[int, int, int, torch.device], Loading]] = {
    "ffvit": ours,
    "definition": timm_files,
    "timm": timm_files,
    "ffcv-imagenet": stock_ffcv,
}
