"""Train a vision model on betons.

    python train_imagenet.py --config ff_configs/quickstart.yaml
    torchrun --nproc_per_node=8 train_imagenet.py --config ff_configs/base.yaml --training.seed=1

`--help` lists every option.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ffvit import schedules
from ffvit.checkpoint import BEST, LATEST, load_latest, save_checkpoint
from ffvit.config import load_train_config, to_dict
from ffvit.contact_sheet import contact_sheet
from ffvit.data.augment import normalize
from ffvit.data.beton import check_same_classes
from ffvit.data.loader import Loader, create_train_loader, create_val_loader
from ffvit.distributed import Ranks, join_ranks
from ffvit.errors import one_line_errors
from ffvit.models import check_resolutions, create_model
from ffvit.optim import create_optimizer
from ffvit.options import TrainConfig
from ffvit.reports import write_report
from ffvit.runlog import RunLog, describe_environment, describe_epoch, load_run
from ffvit.trainer import Trainer, check_training, seed_torch


def main(config: TrainConfig, folder: Path, ranks: Ranks) -> None:
    """Train from scratch, or from the run folder's latest checkpoint, to the last epoch."""
    # What to do: every number that follows from the options, checked before anything is built.
    check_training(config.training, config.run.log_interval)
    schedules.check_lr(config.lr, config.training.epochs)
    schedules.check_resolution(config.resolution)
    epochs = config.training.epochs
    resolutions = schedules.resolutions(config.resolution, epochs)
    global_batch_size = config.training.global_batch_size
    lr_scale = global_batch_size / (config.lr.base_batch_size or global_batch_size)

    # Data.
    train_loader, val_loader = create_loaders(config, resolutions[0], ranks)
    num_classes = config.model.num_classes or train_loader.info.num_classes
    check_same_classes(train_loader.info, val_loader.info)
    train_loader.check_labels(num_classes)
    val_loader.check_labels(num_classes)
    steps_per_epoch = len(train_loader) // config.training.accumulation_steps

    # Model and optimizer.
    seed_torch(config.training.seed)
    model = create_model(config.model, num_classes).to(ranks.device)
    sizes = [*resolutions, config.validation.resolution]
    check_resolutions(config.model.name, model, sizes)
    optimizer = create_optimizer(model, config.training, ranks.device)

    # What a checkpoint must agree with for the run to go on from it.
    identity = to_dict(config) | {
        "data set": {
            "num_train_images": train_loader.info.num_samples,
            "num_val_images": val_loader.info.num_samples,
            "num_classes": num_classes,
        }
    }
    state = load_latest(folder, config.run.resume, identity)
    progress = state["progress"] if state else {"epoch": 0, "elapsed_s": 0.0, "best_top_1": -1.0}
    ranks.check_agreement(f"{folder}: epochs done", progress["epoch"])
    if progress["epoch"] == epochs:
        report(config, folder, ranks)
        return

    with RunLog.open(folder, to_dict(config), describe_environment(), ranks.is_primary) as log:
        trainer = Trainer(
            model,
            optimizer,
            config.training,
            ranks,
            num_classes,
            prepare=normalize,
            learning_rate=lambda step: schedules.learning_rate(
                step, steps_per_epoch, config.lr, epochs, lr_scale
            ),
            log=log,
            log_interval=config.run.log_interval,
            num_resolutions=len(set(sizes)),
        )
        if state:
            trainer.load_state_dict(state)
            log.line(f"{folder}: going on after epoch {progress['epoch']} of {epochs}")
        derived = {
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "num_classes": num_classes,
            "num_train_images": train_loader.info.num_samples,
            "num_val_images": val_loader.info.num_samples,
            "device": str(ranks.device),
            "world_size": ranks.world_size,
            "decode_threads": train_loader.decoder.num_threads,
            "batch_size": train_loader.batch_size,
            "steps_per_epoch": steps_per_epoch,
            "peak_learning_rate": config.lr.lr * lr_scale,
            "resolutions": resolutions,
            "first_epoch": progress["epoch"] + 1,
        }
        log.record("run", **derived)
        log.line(
            f"{config.model.name} -> {folder}: " + " ".join(f"{k}={v}" for k, v in derived.items())
        )
        if ranks.is_primary and not state:
            save_contact_sheet(folder, train_loader, resolutions)

        for epoch in range(progress["epoch"], epochs):
            begin = time.perf_counter()
            resolution = schedules.resolution(epoch, config.resolution)
            train_loader.set_epoch(epoch, resolution)
            record: dict[str, Any] = {"epoch": epoch + 1, "resolution": resolution}
            record |= trainer.train_epoch(train_loader, epoch)
            record |= {"step": trainer.step, "images_seen": trainer.step * global_batch_size}
            record |= trainer.evaluate(
                val_loader, val_loader.info.num_samples, config.validation.flip_average
            )

            progress["epoch"] = epoch + 1
            progress["elapsed_s"] += time.perf_counter() - begin
            record["elapsed_s"] = progress["elapsed_s"]
            record["gpu_hours"] = ranks.num_gpus * progress["elapsed_s"] / 3600
            log.record("epoch", **record)
            log.line(describe_epoch(record))
            is_best = record["top_1"] > progress["best_top_1"]
            progress["best_top_1"] = max(progress["best_top_1"], record["top_1"])
            if ranks.is_primary:
                state = {"progress": progress, "config": identity, **trainer.state_dict()}
                for name in (BEST, LATEST) if is_best else (LATEST,):
                    save_checkpoint(folder / "checkpoints" / name, state)
        train_loader.close()
        val_loader.close()

    report(config, folder, ranks)


def report(config: TrainConfig, folder: Path, ranks: Ranks) -> None:
    """Write the report of a finished run, and print its result in one line."""
    if ranks.is_primary:
        path = write_report([folder], folder)
        last = load_run(folder).epochs[-1]
        sys.stdout.write(
            f"{config.model.name}: top-1 {last['top_1']:.2%} on {last['num_samples']} images "
            f"after {last['epoch']} epochs ({last['elapsed_s']:.0f} s). Report: {path}. "
            f"Compare with other runs: python -m ffvit report {folder} ...\n"
        )


def create_loaders(config: TrainConfig, resolution: int, ranks: Ranks) -> tuple[Loader, Loader]:
    """Open both betons."""
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


def save_contact_sheet(folder: Path, loader: Loader, resolutions: Sequence[int]) -> None:
    """Draw what the model will see: the same images' crops at each resolution."""
    rows, labels = [], []
    names = loader.info.label_names
    for resolution in resolutions:
        loader.set_epoch(0, resolution)
        batch = next(iter(loader))
        rows.append((f"{resolution} px", batch.images[:8].cpu().numpy().copy()))
        labels.append([names[k] if names else str(k) for k in batch.labels[:8].tolist()])
    loader.close()
    contact_sheet(rows, labels).save(folder / "contact_sheet.png")


if __name__ == "__main__":
    with one_line_errors():
        settings, run_name = load_train_config(sys.argv[1:])
        with join_ranks() as processes:
            main(settings, Path(settings.run.folder or f"runs/{run_name}"), processes)
