"""From a config to the parts of a run, each checked before the next: loaders, model, trainer.

Here models and data meet. Nothing is written.
"""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.profiler import record_function

from ffvit import schedules
from ffvit.data.augment import Augmentation, check_augmentation, normalize
from ffvit.data.beton import check_same_classes
from ffvit.data.loader import Batch, Loader, create_train_loader, create_val_loader
from ffvit.distributed import Ranks
from ffvit.errors import check_option
from ffvit.flops import PASSES_TO_TRAIN, peak_flops, training_flops
from ffvit.models import check_resolutions, create_model
from ffvit.optim import create_optimizer
from ffvit.options import TrainConfig
from ffvit.runlog import RunLog
from ffvit.trainer import Trainer, check_training, seed_torch
from ffvit.workload import Workload

# What a run may be told to do.
MODES = ("train", "data_only", "model_only")


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a run is made of; made by `assemble`.

    Attributes:
        config: All options.
        ranks: This process among the others.
        train_loader: At the first resolution.
        val_loader: This rank's share of the validation images.
        num_classes: Of the model's head.
        resolutions: Of the training images, distinct, in order of use; pixels.
        model: With fresh weights, on its device.
        optimizer: Of its parameters.
    """

    config: TrainConfig
    ranks: Ranks
    train_loader: Loader
    val_loader: Loader
    num_classes: int
    resolutions: list[int]
    model: nn.Module
    optimizer: torch.optim.Optimizer

    @property
    def steps_per_epoch(self) -> int:
        """Count the updates of an epoch."""
        return len(self.train_loader) // self.config.training.accumulation_steps

    @property
    def lr_scale(self) -> float:
        """What the section's learning rates are multiplied by."""
        global_batch_size = self.config.training.global_batch_size
        return global_batch_size / (self.config.lr.base_batch_size or global_batch_size)

    @property
    def data_set(self) -> dict[str, int]:
        """Sizes of the data set, which must stay the same where a run goes on."""
        return {
            "num_classes": self.num_classes,
            "num_train_images": self.train_loader.info.num_samples,
            "num_val_images": self.val_loader.info.num_samples,
        }

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of an update, from the count of those before it."""
        config = self.config
        return schedules.learning_rate(
            step, self.steps_per_epoch, config.lr, config.training.epochs, self.lr_scale
        )

    def last_epoch_at(self, resolution: int) -> int:
        """Find the last epoch, from 0, that trains at one of `resolutions`."""
        epochs = range(self.config.training.epochs)
        ramp = self.config.resolution
        return max(epoch for epoch in epochs if schedules.resolution(epoch, ramp) == resolution)

    def create_augmentation(self) -> Augmentation:
        """Make what turns the training loader's batches into inputs and targets."""
        return create_augmentation(self.config, self.num_classes)

    def create_trainer(
        self,
        log: RunLog,
        learning_rate: Callable[[int], float] | None = None,
        augment: Callable[[Any, int], tuple[torch.Tensor, torch.Tensor]] | None = None,
        stage: Callable[[str], AbstractContextManager[Any]] = record_function,
    ) -> Trainer:
        """Join model, optimizer and augmentation; compiles nothing yet.

        Args:
            log: As for `Trainer`.
            learning_rate: Step -> learning rate, if not the run's own.
            augment: As for `Trainer`, if not the run's own.
            stage: As for `Trainer`.
        """
        config = self.config
        return Trainer(
            self.model,
            self.optimizer,
            config.training,
            self.ranks,
            self.num_classes,
            prepare=normalize,
            augment=augment or self.create_augmentation(),
            learning_rate=learning_rate or self.learning_rate,
            log=log,
            log_interval=config.run.log_interval,
            num_resolutions=len(self._sizes),
            workload=self.workload(),
            stage=stage,
        )

    def synthetic_batch(self, resolution: int) -> Batch:
        """Make a batch of random pixels and labels on the device, as the training loader would."""
        batch_size, device = self.train_loader.batch_size, self.ranks.device
        shape = (batch_size, resolution, resolution, 3)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
        labels = torch.randint(0, self.num_classes, (batch_size,), device=device)
        samples = np.arange(batch_size, dtype=np.int32)
        return Batch(images, labels, samples, position=0)

    def workload(self) -> Workload:
        """Count the operations of the run."""
        config = self.config
        validation, epochs = config.validation, range(config.training.epochs)
        flops = {size: float(training_flops(self.model, size)) for size in self._sizes}
        num_train_images = self.steps_per_epoch * config.training.global_batch_size
        # The weights and the averaged ones, on the image and its mirror image; forward alone.
        num_passes = (1 + (config.training.ema_decay > 0)) * (1 + validation.flip_average)
        share = num_passes / PASSES_TO_TRAIN
        evaluation = self.data_set["num_val_images"] * share * flops[validation.resolution]
        trained = [schedules.resolution(epoch, config.resolution) for epoch in epochs]
        device = self.ranks.device
        is_gpu = device.type == "cuda"
        peak = peak_flops(torch.cuda.get_device_name(device)) if is_gpu else None
        return Workload(
            image_flops=flops,
            epoch_flops=[num_train_images * flops[size] + evaluation for size in trained],
            peak_flops=None if peak is None else peak * self.ranks.world_size,
        )

    @property
    def _sizes(self) -> set[int]:
        """All sides of images that the model will see, pixels."""
        return {*self.resolutions, self.config.validation.resolution}

    def describe(self) -> dict[str, Any]:
        """Collect what follows from the options, the data and the machine."""
        return {
            "num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            **self.data_set,
            "device": str(self.ranks.device),
            "world_size": self.ranks.world_size,
            "decode_threads": self.train_loader.decoder.num_threads,
            "batch_size": self.train_loader.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "peak_learning_rate": self.config.lr.lr * self.lr_scale,
            "resolutions": self.resolutions,
        }

    def close(self) -> None:
        """End the loaders' threads."""
        self.train_loader.close()
        self.val_loader.close()


def assemble(config: TrainConfig, ranks: Ranks) -> Parts:
    """Check the options, then open the betons and build the model.

    Raises:
        UserError: An option out of its range, or two that contradict each other; betons that are
            none or do not fit; a model that does not exist or cannot run a resolution.
    """
    check_option("run.mode", config.run.mode, ", ".join(MODES), config.run.mode in MODES)
    check_training(config.training, config.run.log_interval)
    schedules.check_lr(config.lr, config.training.epochs)
    schedules.check_resolution(config.resolution)
    resolutions = schedules.resolutions(config.resolution, config.training.epochs)

    train_loader, val_loader = create_loaders(config, resolutions[0], ranks)
    num_classes = config.model.num_classes or train_loader.info.num_classes
    check_same_classes(train_loader.info, val_loader.info)
    train_loader.check_labels(num_classes)
    val_loader.check_labels(num_classes)
    check_augmentation(config.augment, train_loader.batch_size)

    seed_torch(config.training.seed)
    model = create_model(config.model, num_classes).to(ranks.device)
    check_resolutions(config.model.name, model, [*resolutions, config.validation.resolution])
    optimizer = create_optimizer(model, config.training)
    return Parts(
        config, ranks, train_loader, val_loader, num_classes, resolutions, model, optimizer
    )


def create_augmentation(config: TrainConfig, num_classes: int) -> Augmentation:
    """Make what turns batches of training images into inputs and targets."""
    strength = partial(schedules.strength, config.augment.ramp_start, config.resolution)
    return Augmentation(config.augment, num_classes, config.training.seed, strength)


def create_loaders(config: TrainConfig, resolution: int, ranks: Ranks) -> tuple[Loader, Loader]:
    """Open the betons of training, at a resolution, and of validation.

    Raises:
        BetonError: A file is not a whole beton.
        ConfigError: An option out of its range, or more images per update than there are.
    """
    training = config.training
    shared: dict[str, Any] = {
        "rank": ranks.rank,
        "world_size": ranks.world_size,
        "num_threads": config.data.num_workers or ranks.cpu_share(),
        "device": ranks.device,
    }
    train_loader = create_train_loader(
        config.data,
        resolution=resolution,
        global_batch_size=training.global_batch_size,
        batch_size=ranks.micro_batch_size(training.global_batch_size, training.accumulation_steps),
        seed=training.seed,
        **shared,
    )
    val_loader = create_val_loader(config.data, config.validation, **shared)
    return train_loader, val_loader
