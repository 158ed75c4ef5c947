"""A run folder as training leaves it, made without training."""

import torch

from ffvit.checkpoint import CheckpointFolder
from ffvit.config import to_dict
from ffvit.environment import describe_environment
from ffvit.models import create_model
from ffvit.options import (
    DataSection,
    ModelSection,
    RunSection,
    TrainConfig,
    TrainingSection,
    ValidationSection,
)
from ffvit.runlog import RunLog

NUM_CLASSES, IMAGE_SIZE, PATCH_SIZE = 8, 40, 8


def seeded_weights(model, seed):
    """Give every parameter another value than the initial one, so that none can be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def write_run(folder, betons, model=None, num_classes=NUM_CLASSES, image_size=IMAGE_SIZE):
    """Write a run of two epochs: `best.pt` is of the first, the last checkpoint of the second."""
    model = model or ModelSection(
        name="ff_pico", image_size=image_size, patch_size=PATCH_SIZE, embed_dim=24, depth=2
    )
    config = TrainConfig(
        data=DataSection(train_path=str(betons["train"]), val_path=str(betons["val"])),
        model=model,
        training=TrainingSection(epochs=2, global_batch_size=8, ema_decay=0.9),
        validation=ValidationSection(resolution=image_size, batch_size=7),
        run=RunSection(folder=str(folder)),
    )
    identity = to_dict(config) | {"data set": {"num_classes": num_classes, "num_train_images": 64}}
    checkpoints = CheckpointFolder(folder, keep=2)
    with RunLog.open(folder, to_dict(config), describe_environment(), is_primary=True) as log:
        log.record("run", num_train_images=64, num_val_images=24)
        for epoch in (1, 2):
            with torch.random.fork_rng():
                torch.manual_seed(epoch)
                network = create_model(config.model, num_classes)
            state = {
                "step": 8 * epoch,
                "progress": {"epoch": epoch, "elapsed_s": 60.0 * epoch, "best_top_1": 0.5},
                "config": identity,
                "model": seeded_weights(network, seed=epoch),
                "ema": seeded_weights(network, seed=10 + epoch),
            }
            checkpoints.save(state, is_best=epoch == 1)
            log.record(
                "epoch",
                epoch=epoch,
                step=8 * epoch,
                top_1=0.5 / epoch,
                top_5=0.9,
                ema_top_1=0.25,
                ema_top_5=0.75,
                num_samples=24,
                elapsed_s=60.0 * epoch,
                gpu_hours=0.0,
            )
    return folder
