"""Train a vision model on betons.

    python train_imagenet.py --config ff_configs/quickstart.yaml
    torchrun --nproc_per_node=8 train_imagenet.py --config ff_configs/base.yaml --training.seed=1

`--help` lists every option.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

from ffvit import schedules
from ffvit.checkpoint import CheckpointFolder
from ffvit.config import load_train_config, to_dict
from ffvit.contact_sheet import save_contact_sheet
from ffvit.data.augment import augment, normalize
from ffvit.data.beton import check_same_classes
from ffvit.data.loader import Loader, create_train_loader, create_val_loader
from ffvit.data.mix import Mixing, check_mixing
from ffvit.distributed import Ranks, join_ranks
from ffvit.environment import describe_environment
from ffvit.errors import one_line_errors
from ffvit.models import check_resolutions, create_model
from ffvit.optim import create_optimizer
from ffvit.options import TrainConfig
from ffvit.reports import describe_result, write_report
from ffvit.runlog import RunLog, describe_epoch
from ffvit.saving import Saver, check_saving
from ffvit.trainer import Trainer, check_training, seed_torch


def main(config: TrainConfig, folder: Path, ranks: Ranks) -> None:
    """Train from scratch, or from the run folder's latest checkpoint, to the last epoch.

    Raises:
        SystemExit: A signal asked to stop, and the run is saved: status `saving.EXIT_PREEMPTED`.
    """
    # What to do: every number that follows from the options, checked before anything is built.
    check_training(config.training, config.run.log_interval)
    check_saving(config.run)
    checkpoints = CheckpointFolder(folder, config.run.keep)
    schedules.check_lr(config.lr, config.training.epochs)
    schedules.check_resolution(config.resolution)
    epochs = config.training.epochs
    resolutions = schedules.resolutions(config.resolution, epochs)
    global_batch_size = config.training.global_batch_size
    lr_scale = global_batch_size / (config.lr.base_batch_size or global_batch_size)

    # Data.
    train_loader, val_loader = create_loaders(config, resolutions[0], ranks)
    num_classes = config.model.num_classes or train_loader.info.num_classes
    num_val_images = val_loader.info.num_samples
    check_same_classes(train_loader.info, val_loader.info)
    train_loader.check_labels(num_classes)
    val_loader.check_labels(num_classes)
    check_mixing(config.augment, train_loader.batch_size)
    mixing = Mixing(config.augment, num_classes, config.training.seed)
    steps_per_epoch = len(train_loader) // config.training.accumulation_steps

    # Model and optimizer.
    seed_torch(config.training.seed)
    model = create_model(config.model, num_classes).to(ranks.device)
    sizes = [*resolutions, config.validation.resolution]
    check_resolutions(config.model.name, model, sizes)
    optimizer = create_optimizer(model, config.training, ranks.device)

    # What a checkpoint must agree with for the run to go on from it.
    data_set = {
        "num_classes": num_classes,
        "num_train_images": train_loader.info.num_samples,
        "num_val_images": num_val_images,
    }
    identity = to_dict(config) | {"data set": data_set}
    state = checkpoints.load_latest(config.run.resume, identity)
    progress = state["progress"] if state else {"epoch": 0, "elapsed_s": 0.0, "best_top_1": -1.0}
    step = state["step"] if state else 0
    ranks.check_agreement(f"{folder}: updates done", step)
    if progress["epoch"] == epochs:
        report(folder, ranks)
        return

    with RunLog.open(
        folder, to_dict(config), describe_environment(), ranks.is_primary, progress["epoch"], step
    ) as log:
        trainer = Trainer(
            model,
            optimizer,
            config.training,
            ranks,
            num_classes,
            prepare=normalize,
            augment=partial(augment, mixing=mixing),
            learning_rate=lambda step: schedules.learning_rate(
                step, steps_per_epoch, config.lr, epochs, lr_scale
            ),
            log=log,
            log_interval=config.run.log_interval,
            num_resolutions=len(set(sizes)),
        )
        if state:
            trainer.load_state_dict(state)
            log.line(f"{folder}: going on after step {step}, {progress['epoch']} epochs done")
            del state  # as large as the model and the optimizer
        for line in checkpoints.damaged:
            log.line(f"WARNING: {line} Taking the one before.")
        derived = {
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            **data_set,
            "device": str(ranks.device),
            "world_size": ranks.world_size,
            "decode_threads": train_loader.decoder.num_threads,
            "batch_size": train_loader.batch_size,
            "steps_per_epoch": steps_per_epoch,
            "peak_learning_rate": config.lr.lr * lr_scale,
            "resolutions": resolutions,
            "first_epoch": progress["epoch"] + 1,
            "first_step": step + 1,
        }
        log.record("run", **derived)
        log.line(
            f"{config.model.name} -> {folder}: " + " ".join(f"{k}={v}" for k, v in derived.items())
        )
        if ranks.is_primary and step == 0:
            save_contact_sheet(folder, train_loader, resolutions)

        saver = Saver(checkpoints, config.run, ranks, log, trainer, identity, progress)
        with saver.watching():
            for epoch in range(progress["epoch"], epochs):
                resolution = schedules.resolution(epoch, config.resolution)
                batch = trainer.updates_done(epoch) * config.training.accumulation_steps
                place = {"epoch": epoch, "resolution": resolution, "batch": batch}
                train_loader.load_state_dict(place)
                record: dict[str, Any] = {"epoch": epoch + 1, "resolution": resolution}
                record |= trainer.train_epoch(train_loader, epoch, saver.after_update)
                record |= {"step": trainer.step, "images_seen": trainer.step * global_batch_size}
                record["num_skipped"] = ranks.total(train_loader.num_skipped)
                record |= trainer.evaluate(
                    val_loader,
                    num_val_images,
                    config.validation.flip_average,
                    saver.after_batch,
                )
                record["elapsed_s"] = saver.elapsed_s()
                record["gpu_hours"] = ranks.num_gpus * record["elapsed_s"] / 3600
                log.record("epoch", **record)
                log.line(describe_epoch(record))

                is_best = record["top_1"] > progress["best_top_1"]
                best_top_1 = max(record["top_1"], progress["best_top_1"])
                progress |= {"epoch": epoch + 1, "best_top_1": best_top_1}
                saver.save(is_best, must_succeed=epoch + 1 == epochs)
        train_loader.close()
        val_loader.close()

    report(folder, ranks)


def report(folder: Path, ranks: Ranks) -> None:
    """Write the report of a finished run, and print its result in one line."""
    if ranks.is_primary:
        write_report([folder], folder)
        sys.stdout.write(describe_result(folder) + "\n")


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


if __name__ == "__main__":
    with one_line_errors():
        settings, run_name = load_train_config(sys.argv[1:])
        with join_ranks(settings.run.timeout_s) as processes:
            main(settings, Path(settings.run.folder or f"runs/{run_name}"), processes)
