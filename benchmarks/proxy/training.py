"""One run of one arm, with the functions that `train_imagenet.py` calls."""

import dataclasses
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.proxy import models, teacher, timm_training
from benchmarks.proxy.arms import Arm, change
from ffvit.assembly import assemble
from ffvit.data.augment import normalize
from ffvit.data.loader import Loader
from ffvit.distributed import Ranks
from ffvit.models import check_resolutions
from ffvit.options import TrainConfig
from ffvit.runlog import RunLog
from ffvit.trainer import Trainer

__all__ = ["Session", "models", "run"]

ONE_PROCESS = Ranks(0, 0, 1, 1, torch.device("cpu"))


class CpuTrainer(Trainer):
    """Computes in bf16 on a CPU too, as on a GPU: a third less time here."""

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)


@dataclasses.dataclass(frozen=True)
class Session:
    """What a run trains with.

    Attributes:
        trainer: Of the model.
        train_loader: Random crops.
        val_loader: Centre crops, of any resolution.
    """

    trainer: Trainer
    train_loader: Loader
    val_loader: Loader

    def evaluate(self, resolution: int) -> dict[str, Any]:
        """Measure the model as it is on all validation images at this resolution, pixels."""
        self.val_loader.set_epoch(0, resolution)
        num_images = self.val_loader.info.num_samples
        return self.trainer.evaluate(self.val_loader, num_images, flip_average=False)

    def top_1(self, resolution: int) -> float:
        """Measure the raw weights only."""
        averaged, self.trainer.ema = self.trainer.ema, None
        measured = self.evaluate(resolution)
        self.trainer.ema = averaged
        return float(measured["top_1"])

    def close(self) -> None:
        """End the loaders' threads."""
        self.train_loader.close()
        self.val_loader.close()


def open_session(config: TrainConfig, resolutions: list[int], teaching: str = "") -> Session:
    """Make model, optimizer, loaders and trainer of a config, as `train_imagenet.py` does.

    With `teaching`, as of an `Arm`, the teacher must have been trained.
    """
    torch.set_num_threads(1)
    parts = assemble(config, ONE_PROCESS)
    check_resolutions(config.model.name, parts.model, resolutions)
    augment: Any = parts.create_augmentation()
    if teaching:
        augment = teacher.Teaching(augment, parts.num_classes, is_hard=teaching == "hard")
    trainer = CpuTrainer(
        parts.model,
        parts.optimizer,
        config.training,
        ONE_PROCESS,
        parts.num_classes,
        prepare=normalize,
        augment=augment,
        learning_rate=parts.learning_rate,
        log=RunLog.open(Path(), {}, {}, is_primary=False),  # writes nothing
        log_interval=config.run.log_interval,
    )
    return Session(trainer, parts.train_loader, parts.val_loader)


def train_teacher() -> dict[str, Any]:
    """Train the teacher.

    Returns:
        What it looks like, its weights, and its top-1 at the resolutions of its training.
    """
    arm = teacher.TEACHER
    session = open_session(change(arm.config, training={"seed": teacher.SEED}), arm.resolutions)
    for epoch, resolution in enumerate(arm.resolutions):
        session.train_loader.set_epoch(epoch, resolution)
        session.trainer.train_epoch(session.train_loader, epoch)
    top_1 = {size: session.top_1(size) for size in sorted({*arm.resolutions})}
    session.close()
    model = session.trainer.model.eval()
    return {"network": repr(model), "weights": model.state_dict(), "top_1": top_1}


def run(arm: Arm, seed: int) -> dict[str, Any]:
    """Train an arm from scratch and measure it.

    Returns:
        `train_imagenet.py`'s measures of the last epoch; `switches`, one record for each change of
        resolution; `process_s`, processor time by resolution, loader included, for information: the
        machine may be shared, so comparisons count calibrated costs.
    """
    config = change(arm.config, training={"seed": seed})
    if arm.teaching:
        teacher.prepare(train_teacher)
    session = open_session(config, arm.resolutions, arm.teaching)
    if arm.is_timm:
        result = timm_training.train(session.trainer.model, config)
        top_1 = session.top_1(config.validation.resolution)
        session.close()
        return result | {"top_1_our_loader": top_1}
    switches: list[dict[str, Any]] = []
    process_s: defaultdict[int, float] = defaultdict(float)
    previous = arm.resolutions[0]
    record: dict[str, Any] = {}
    for epoch, resolution in enumerate(arm.resolutions):
        if arm.shows_switches and resolution != previous:
            switches.append(
                {
                    "epoch": epoch,
                    "from": previous,
                    "to": resolution,
                    "before": session.top_1(previous),
                    "after": session.top_1(resolution),
                }
            )
        previous = resolution
        session.train_loader.set_epoch(epoch, resolution)
        begin = time.process_time()
        record = session.trainer.train_epoch(session.train_loader, epoch)
        process_s[resolution] += time.process_time() - begin
    measured = session.evaluate(config.validation.resolution)
    session.close()
    kept = ("top_1", "top_5", "loss", "ema_top_1", "ema_loss")
    return {
        **{name: measured[name] for name in kept if name in measured},
        "train_loss": record["train_loss"],
        "updates": session.trainer.step,
        "switches": switches,
        "process_s": {str(key): round(value, 2) for key, value in process_s.items()},
    }
