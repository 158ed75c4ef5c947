"""The same run through timm: its data sets, transforms, loader, optimizer, schedule, loss, EMA.

After timm's train.py (1.0.31), its options given as our config has them; where timm has no such
value its default stays. The loop is plain PyTorch, as there.
"""

# timm's packages re-export without saying so, and its helpers have no annotations.
# mypy: disable-error-code="attr-defined, no-untyped-call"

import time
from typing import Any

import torch
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, ModelEmaV3, accuracy, random_seed
from torch import nn

from benchmarks.proxy.data import IMAGES
from ffvit.options import TrainConfig


def train(model: nn.Module, config: TrainConfig) -> dict[str, Any]:
    """Train a model at one resolution and measure it by timm's own centre crops.

    Args:
        model: With fresh weights; trained in place.
        config: Learning rate, epochs, batch, decay, smoothing, crops and seed are read.

    Returns:
        top_1, ema_top_1 (0..1), train_loss of the last epoch, updates, and processor seconds.
    """
    training = config.training
    side = config.validation.resolution
    random_seed(training.seed)
    shared: dict[str, Any] = {
        "input_size": (3, side, side),
        "batch_size": training.global_batch_size,
        "num_workers": 0,
        "persistent_workers": False,
        "use_prefetcher": False,
        "device": torch.device("cpu"),
    }
    train_loader = create_loader(
        create_dataset("", root=str(IMAGES), split="train"),
        is_training=True,
        scale=(config.data.min_scale, 1.0),
        color_jitter=0.0,
        interpolation="random",
        **shared,
    )
    val_loader = create_loader(
        create_dataset("", root=str(IMAGES), split="val"),
        interpolation="bicubic",
        crop_pct=config.validation.ratio,
        **shared,
    )
    optimizer = create_optimizer_v2(
        model, opt="adamw", lr=config.lr.lr, weight_decay=training.weight_decay
    )
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=config.lr.schedule,
        num_epochs=training.epochs,
        warmup_epochs=config.lr.warmup_epochs,  # type: ignore[arg-type]
        warmup_lr=config.lr.warmup_lr,
        step_on_epochs=False,
        updates_per_epoch=len(train_loader),
    )
    criterion = LabelSmoothingCrossEntropy(training.label_smoothing)
    ema = ModelEmaV3(model, decay=training.ema_decay)
    updates = 0
    losses = AverageMeter()
    begin = time.process_time()
    for epoch in range(training.epochs):
        losses.reset()
        model.train()
        scheduler.step(epoch)
        for images, labels in train_loader:
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(images)
            loss = criterion(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            ema.update(model, step=updates)
            scheduler.step_update(num_updates=updates)
            losses.update(loss.item(), len(images))
    process_s = time.process_time() - begin
    return {
        "top_1": _validate(model, val_loader),
        "ema_top_1": _validate(ema.module, val_loader),
        "train_loss": losses.avg,
        "updates": updates,
        "switches": [],
        "process_s": {str(side): round(process_s, 2)},
    }


@torch.no_grad()
def _validate(model: nn.Module, loader: Any) -> float:
    model.eval()
    top_1 = AverageMeter()
    for images, labels in loader:
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        (percent,) = accuracy(logits, labels, topk=(1,))
        top_1.update(percent.item(), len(images))
    return float(top_1.avg) / 100
