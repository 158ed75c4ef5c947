"""A contact sheet of a config's data: as stored, as the model will see them, as it is measured."""

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from ffvit import schedules
from ffvit.assembly import create_augmentation
from ffvit.contact_sheet import NUM_IMAGES, contact_sheet, label_texts, training_rows
from ffvit.data.augment import check_augmentation
from ffvit.data.beton import check_same_classes
from ffvit.data.inspect import decode_stored
from ffvit.data.loader import Batch, Loader, create_train_loader, create_val_loader
from ffvit.distributed import Ranks
from ffvit.options import TrainConfig
from ffvit.trainer import check_training

_BOX_COLOR = (255, 64, 32)


def preview(config: TrainConfig) -> Image.Image:
    """Draw a config's first images: stored, at each resolution in training, and in validation.

    Nothing is written. Boxes in the stored images show what the first row of crops is cut from.

    Raises:
        UserError: The betons cannot be read or do not fit each other; an option is out of range.
    """
    check_training(config.training, config.run.log_interval)
    schedules.check_resolution(config.resolution)
    training, seed = config.training, config.training.seed
    ranks = Ranks(0, 0, 1, 1, torch.device("cpu"))
    batch_size = ranks.micro_batch_size(training.global_batch_size, training.accumulation_steps)
    check_augmentation(config.augment, batch_size)
    shared: dict[str, Any] = {
        "rank": 0,
        "world_size": 1,
        "num_threads": config.data.num_workers or ranks.cpu_share(),
        "device": ranks.device,
    }
    first_epochs = schedules.first_epochs(config.resolution, config.training.epochs)
    train_loader = create_train_loader(
        config.data,
        resolution=min(first_epochs),
        global_batch_size=training.global_batch_size,
        batch_size=_batch_size(config),
        seed=seed,
        **shared,
    )
    val_loader = create_val_loader(config.data, config.validation, **shared)
    check_same_classes(train_loader.info, val_loader.info)
    num_classes = config.model.num_classes or train_loader.info.num_classes
    train_loader.check_labels(num_classes)
    augment = create_augmentation(config, num_classes)

    first = next(iter(train_loader))
    side = max(*first_epochs, config.validation.resolution)
    rows, labels = _stored_row(train_loader, first, seed, side)
    train_rows, train_labels = training_rows(train_loader, first_epochs, augment)
    val_batch = next(iter(val_loader))
    val_row = val_batch.images[:NUM_IMAGES].numpy()
    caption = f"validation, {config.validation.resolution} px"
    val_labels = label_texts(val_batch.labels[:NUM_IMAGES], val_loader.info.label_names)
    sheet = contact_sheet(
        [rows, *train_rows, (caption, val_row)], [labels, *train_labels, val_labels]
    )
    val_loader.close()
    return sheet


def _batch_size(config: TrainConfig) -> int:
    """Choose how many images are decoded: of those mixed with each other a whole group."""
    if config.augment.mixup > 0 or config.augment.cutmix > 0:
        return config.augment.mixup_group
    global_batch_size = config.training.global_batch_size
    return max(size for size in range(1, 129) if global_batch_size % size == 0)


def _stored_row(
    loader: Loader, batch: Batch, seed: int, side: int
) -> tuple[tuple[str, np.ndarray], list[str]]:
    """Decode a batch's stored images, fitted into squares, with the boxes cut from them."""
    crop = loader.decoder.crop_function()
    cells, labels = [], label_texts(batch.labels[:NUM_IMAGES], loader.info.label_names)
    for index, sample in enumerate(batch.samples[:NUM_IMAGES].tolist()):
        storage = loader.pipeline.storage
        stored = storage.read(sample)
        image = decode_stored(stored, storage.describe(sample))
        width, height = image.size
        top, left, crop_height, crop_width, _ = crop(height, width, seed, 0, batch.position + index)
        scale = side / max(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        cell = Image.new("RGB", (side, side), "white")
        cell.paste(image.resize(size, Image.Resampling.BOX))
        box = [left, top, left + crop_width, top + crop_height]
        box = [min(round(edge * scale), side - 1) for edge in box]
        ImageDraw.Draw(cell).rectangle(box, outline=_BOX_COLOR, width=max(1, side // 100))
        cells.append(np.asarray(cell))
        kind = f"JPEG, {len(stored) / 1000:.0f} kB" if isinstance(stored, bytes) else "pixels"
        labels[index] += f"\n{width} x {height}, {kind}"
    return ("stored, and what is cut from it", np.stack(cells)), labels
