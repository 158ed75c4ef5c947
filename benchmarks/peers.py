"""The loaders that are compared, each as its users would set it up for one core or more.

Each function makes one: (contender, images per round) -> epoch, where epoch(resolution) gives a
round's batches of uint8 images. Random crops are of scale 0.08 to 1 and ratio 3/4 to 4/3, half of
them mirrored. A library is imported by its own function only.

No worker processes: on one core they cost more than they bring.
"""

import functools
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.processes import Contender

# ruff: noqa: PLC0415 - each process imports what it measures, and nothing else

BATCH_SIZE = 100
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
CENTER_RATIO = 224 / 256

Epoch = Callable[[int], Iterable[Any]]


def stock_ffcv(contender: Contender, num_images: int) -> Epoch:
    """Make stock ffcv's Loader with its own decoder."""
    from ffcv.fields.rgb_image import CenterCropRGBImageDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.transforms import RandomHorizontalFlip

    size = (contender.resolutions[0],) * 2
    if contender.crop == "center":
        decoder, flip = CenterCropRGBImageDecoder(size, CENTER_RATIO), []
    else:
        decoder, flip = (
            RandomResizedCropRGBImageDecoder(size, SCALE, RATIO),
            [RandomHorizontalFlip()],
        )
    loader = _ffcv_loader(contender, num_images, [decoder, *flip])

    def epoch(resolution: int) -> Iterator[Any]:
        decoder.output_size = (resolution, resolution)
        return (images for images, _ in loader)

    return epoch


def ffvit_in_ffcv(contender: Contender, num_images: int) -> Epoch:
    """Make stock ffcv's Loader with our decoder."""
    from ffvit.jpeg.decoders import EPOCH, CenterCropDecoder, RandomResizedCropDecoder

    kind = CenterCropDecoder if contender.crop == "center" else RandomResizedCropDecoder
    decoder = kind(contender.resolutions[0], num_threads=contender.num_threads)
    loader = _ffcv_loader(contender, num_images, [decoder])

    def epoch(resolution: int) -> Iterator[Any]:
        decoder.progress[EPOCH] += 1
        decoder.resolution = resolution
        return (images for images, _ in loader)

    return epoch


def ffvit_loader(contender: Contender, num_images: int) -> Epoch:
    """Make our own Loader, as train_imagenet.py does; a round is one epoch, as for the others."""
    import torch

    from ffvit.data.beton import open_beton
    from ffvit.data.loader import create_train_loader
    from ffvit.options import DataSection

    num_copies = num_images // open_beton(contender.path).num_samples
    with tempfile.TemporaryDirectory(dir=Path(contender.path).parent) as folder:
        copies = [Path(folder) / f"{number}.beton" for number in range(num_copies)]
        for copy in copies:
            copy.hardlink_to(contender.path)
        loader = create_train_loader(
            DataSection(train_path=",".join(map(str, copies)), min_scale=SCALE[0], flip=True),
            contender.resolutions[0],
            global_batch_size=BATCH_SIZE,
            batch_size=BATCH_SIZE,
            seed=0,
            rank=0,
            world_size=1,
            num_threads=contender.num_threads,
            device=torch.device("cpu"),
        )
    epochs = itertools.count()

    def epoch(resolution: int) -> Iterator[Any]:
        loader.set_epoch(next(epochs), resolution)
        return (batch.images for batch in loader)

    return epoch


def torchvision_pil(contender: Contender, num_images: int) -> Epoch:
    """Make ImageFolder, Pillow and torchvision's transforms."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    dataset = ImageFolder(contender.path)

    def epoch(resolution: int) -> Iterator[Any]:
        dataset.transform = v2.Compose(
            [
                v2.RandomResizedCrop(resolution, SCALE, RATIO),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
            ]
        )
        return _torch_batches(dataset, num_images)

    return epoch


def torchvision_decode_jpeg(contender: Contender, num_images: int) -> Epoch:
    """Make torchvision's decode_jpeg and transforms.v2 on tensors."""
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(contender.path, loader=_read_tensor)

    def epoch(resolution: int) -> Iterator[Any]:
        dataset.transform = _tensor_transform(resolution)
        return _torch_batches(dataset, num_images)

    return epoch


def timm_loader(contender: Contender, num_images: int) -> Epoch:
    """Make timm's create_loader up to its uint8 collate; what follows normalises on a GPU."""
    import torch
    from timm.data.loader import create_loader
    from torchvision.datasets import ImageFolder

    dataset = ImageFolder(contender.path)

    def epoch(resolution: int) -> Iterator[Any]:
        repeated: Any = torch.utils.data.Subset(
            dataset, _indices(num_images, len(dataset)).tolist()
        )
        loader: Any = create_loader(
            repeated,
            (3, resolution, resolution),
            BATCH_SIZE,
            is_training=True,
            scale=SCALE,
            ratio=RATIO,
            hflip=0.5,
            color_jitter=None,  # type: ignore[arg-type]
            interpolation="bilinear",
            num_workers=0,
            persistent_workers=False,
            pin_memory=False,
            device=torch.device("cpu"),
        )
        dataset.transform = loader.dataset.transform
        return (images for images, _ in loader.loader)

    return epoch


def dali_cpu(contender: Contender, num_images: int) -> Epoch:
    """Make DALI without a GPU: fused decoding of random crops, antialiased resize, mirroring.

    Its executor is the simple one: run-ahead would let it work in between the rounds.
    """
    from nvidia.dali import fn, pipeline_def, types

    files = sorted(str(path) for path in Path(contender.path).glob("*/*.jpg"))

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=BATCH_SIZE,
        num_threads=contender.num_threads,
        device_id=None,
        exec_async=False,
        exec_pipelined=False,
    )
    def pipeline(resolution: int) -> Any:
        jpegs, labels = fn.readers.file(
            files=files, labels=list(range(len(files))), random_shuffle=True
        )
        images = fn.decoders.image_random_crop(
            jpegs, random_area=SCALE, random_aspect_ratio=RATIO, num_attempts=10
        )
        images = fn.resize(
            images,
            size=(resolution, resolution),
            interp_type=types.DALIInterpType.INTERP_LINEAR,
            antialias=True,
        )
        return fn.flip(images, horizontal=fn.random.coin_flip()), labels

    @functools.cache
    def built(resolution: int) -> Any:
        built_pipeline = pipeline(resolution)
        built_pipeline.build()
        return built_pipeline

    def epoch(resolution: int) -> Iterator[Any]:
        for _ in range(num_images // BATCH_SIZE):
            images, _ = built(resolution).run()
            yield np.asarray(images.as_tensor())

    return epoch


def webdataset_decode_jpeg(contender: Contender, num_images: int) -> Epoch:
    """Make webdataset's shards, torchvision's decode_jpeg and transforms.v2."""
    import torch
    import webdataset
    from torchvision.io import ImageReadMode, decode_jpeg

    def epoch(resolution: int) -> Iterator[Any]:
        transform = _tensor_transform(resolution)

        def image_of(data: bytes) -> Any:
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return transform(decode_jpeg(encoded, ImageReadMode.RGB))

        dataset = (
            webdataset.WebDataset(contender.path, shardshuffle=False)
            .shuffle(BATCH_SIZE)
            .to_tuple("jpg", "cls")
            .map_tuple(image_of, int)
            .batched(BATCH_SIZE)
            .repeat()
        )
        return (images for images, _ in itertools.islice(dataset, num_images // BATCH_SIZE))

    return epoch


def _ffcv_loader(contender: Contender, num_images: int, image_pipeline: list[Any]) -> Any:
    """Make stock ffcv's Loader; the number of threads is its own or, with our decoder, ours."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.reader import Reader
    from ffcv.transforms import ToTensor

    is_random = contender.crop == "random"
    return Loader(
        contender.path,
        batch_size=BATCH_SIZE,
        num_workers=1,
        order=OrderOption.RANDOM if is_random else OrderOption.SEQUENTIAL,
        # Its compiled code indexes with the unsigned integers of its default order only.
        indices=_indices(num_images, Reader(contender.path).num_samples).astype(np.uint64),
        pipelines={"image": [*image_pipeline, ToTensor()], "label": [IntDecoder(), ToTensor()]},
        drop_last=False,
    )


def _indices(num_images: int, num_samples: int) -> npt.NDArray[np.int64]:
    """Repeat the samples until a round is full."""
    return np.arange(num_images, dtype=np.int64) % num_samples


def _torch_batches(dataset: Any, num_images: int) -> Iterator[Any]:
    from torch.utils.data import DataLoader, Subset

    repeated = Subset(dataset, _indices(num_images, len(dataset)).tolist())
    loader = DataLoader(repeated, BATCH_SIZE, shuffle=True, num_workers=0)
    return (images for images, _ in loader)


def _read_tensor(path: str) -> Any:
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    return decode_jpeg(read_file(path), ImageReadMode.RGB)


def _tensor_transform(resolution: int) -> Any:
    from torchvision.transforms import v2

    return v2.Compose(
        [v2.RandomResizedCrop(resolution, SCALE, RATIO, antialias=True), v2.RandomHorizontalFlip()]
    )
