"""The training loops that are compared: ours, a plain one, and ffcv-imagenet's.

Each is made of a network's name and trains on whatever batches of (uint8 images (B, H, H, 3),
labels) it is given, on their device. All do the same work: normalise, forward, backward, update;
no averaged weights. On a GPU all compute in 16 bits under autocast, on a CPU in float32.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any, Protocol

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.step.definition import PlainFeedForwardViT
from ffvit.data.augment import IMAGENET_MEAN, IMAGENET_STD, normalize
from ffvit.distributed import Ranks
from ffvit.models import create_model
from ffvit.models.resnet import blur_strided_convolutions
from ffvit.optim import create_optimizer
from ffvit.options import ModelSection, TrainingSection
from ffvit.runlog import RunLog
from ffvit.trainer import Trainer

NUM_CLASSES = 1000
LABEL_SMOOTHING, LEARNING_RATE = 0.1, 1e-4
# Patch size, width, blocks, side of the stored grid of positions.
DEFINITIONS = {
    "ff_tiny_patch16_224": (16, 192, 12, 14),
    "ff_base_patch16_224": (16, 768, 12, 14),
    "ff_large_patch32_224": (32, 1024, 24, 14),
}


class Batches(Sized, Protocol):
    """Batches of one resolution."""

    @property
    def resolution(self) -> int:
        """Side of the images, pixels."""

    def __iter__(self) -> Iterator[Any]: ...


class Repeated:
    """One batch of random images, again and again, on the device: no loader in the way."""

    def __init__(self, batch_size: int, resolution: int, device: torch.device) -> None:
        shape = (batch_size, resolution, resolution, 3)
        self.resolution = resolution
        self.num_batches = 1
        self._batch = (
            torch.randint(0, 256, shape, dtype=torch.uint8, device=device),
            torch.randint(0, NUM_CLASSES, (batch_size,), device=device),
        )

    def __len__(self) -> int:
        """Count the batches of a pass."""
        return self.num_batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the batch `num_batches` times."""
        for _ in range(self.num_batches):
            yield self._batch


# Trains on all batches.
Loop = Callable[[Batches], object]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a loop trains, and where."""

    model: str
    resolution: int
    batch_size: int
    device: torch.device
    is_compiled: bool

    def create_model(self) -> nn.Module:
        """Make our model."""
        return create_model(ModelSection(name=self.model), NUM_CLASSES).to(self.device)

    @property
    def optimizer(self) -> str:
        """Name what the model is trained with."""
        return "sgd" if self.model.startswith("resnet") else "adamw"


def ffvit(setting: Setting) -> Loop:
    """Make our model and our Trainer, as train_imagenet.py does."""
    section = TrainingSection(
        epochs=1,
        global_batch_size=setting.batch_size,
        optimizer=setting.optimizer,
        label_smoothing=LABEL_SMOOTHING,
        compile=setting.is_compiled,
    )
    model = setting.create_model()
    trainer = Trainer(
        model,
        create_optimizer(model, section),
        section,
        Ranks(0, 0, 1, 1, setting.device),
        NUM_CLASSES,
        prepare=normalize,
        augment=lambda batch, _: (normalize(batch[0]), batch[1]),
        learning_rate=lambda _: LEARNING_RATE,
        log=RunLog.open(Path(), {}, {}, is_primary=False),
        log_interval=50,
    )
    epochs = itertools.count()
    return lambda batches: trainer.train_epoch(batches, next(epochs))


def bare(setting: Setting) -> Loop:
    """Make our model and optimizer without our Trainer: forward, backward and update alone."""
    model = setting.create_model()
    section = TrainingSection(optimizer=setting.optimizer)
    optimizer = create_optimizer(model, section)
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE
    return _plain_loop(setting, model, optimizer)


def definition(setting: Setting) -> Loop:
    """Make the paper's network as it is defined, in the plain loop."""
    model = PlainFeedForwardViT(setting.resolution, *DEFINITIONS[setting.model])
    return _plain_loop(setting, model.to(setting.device))


def timm_loop(setting: Setting) -> Loop:
    """Make timm's model in the plain loop."""
    options: dict[str, Any] = {}
    if setting.model.startswith("deit"):
        options["dynamic_img_size"] = True
    return _plain_loop(setting, timm.create_model(setting.model, **options).to(setting.device))


def ffcv_imagenet(setting: Setting) -> Loop:
    """Make ffcv-imagenet's loop for ResNets, after its README and paper (arXiv:2306.12517).

    torchvision's ResNet with a blur before strided convolutions, channels last, fp16 with loss
    scaling, SGD without decay of batch norms, smoothed labels, a learning rate for each iteration.
    """
    import torchvision  # noqa: PLC0415 - only for these

    model: nn.Module = getattr(torchvision.models, setting.model.partition("_")[0])(weights=None)
    blur_strided_convolutions(model)
    model = model.to(setting.device).to(memory_format=torch.channels_last).train()
    norms = [p for n, p in model.named_parameters() if "bn" in n]
    others = [p for n, p in model.named_parameters() if "bn" not in n]
    groups = [{"params": norms, "weight_decay": 0.0}, {"params": others, "weight_decay": 1e-4}]
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=0.9)
    loss_function = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    device_type = setting.device.type
    is_on_gpu = device_type == "cuda"
    scaler = torch.amp.GradScaler(device_type, enabled=is_on_gpu)
    network = torch.compile(model, dynamic=False) if setting.is_compiled else model
    pixel_type = torch.float16 if is_on_gpu else torch.float32

    def train(batches: Batches) -> None:
        for images, labels in batches:
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE
            inputs = normalize(images).to(pixel_type)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device_type, torch.float16, enabled=is_on_gpu):
                loss = loss_function(network(inputs), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    return train


LOOPS: dict[str, Callable[[Setting], Loop]] = {
    "ffvit": ffvit,
    "bare": bare,
    "definition": definition,
    "timm": timm_loop,
    "ffcv-imagenet": ffcv_imagenet,
}


def _plain_loop(
    setting: Setting, model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> Loop:
    """Train as PyTorch's AMP recipe does, in bf16; with AdamW as torch sets it up by itself."""
    device = setting.device
    model.train()
    if optimizer is None:
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    network = torch.compile(model, dynamic=False) if setting.is_compiled else model
    mean = torch.tensor(IMAGENET_MEAN, device=device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=device)[:, None, None]

    def train(batches: Batches) -> None:
        for images, labels in batches:
            inputs = (images.permute(0, 3, 1, 2).float() - mean) / std
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = network(inputs)
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    return train
