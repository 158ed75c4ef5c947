"""Train a vision model on betons.

    python train_imagenet.py --config ff_configs/quickstart.yaml
    torchrun --nproc_per_node=8 train_imagenet.py --config ff_configs/base_88_epochs.yaml

`--help` lists every option.
"""

import sys
from pathlib import Path
from typing import Any

from ffvit import schedules
from ffvit.assembly import assemble
from ffvit.checkpoint import CheckpointFolder
from ffvit.config import load_train_config, to_dict
from ffvit.contact_sheet import save_contact_sheet
from ffvit.distributed import Ranks, join_ranks
from ffvit.environment import describe_environment
from ffvit.errors import one_line_errors
from ffvit.measure import measure
from ffvit.options import TrainConfig
from ffvit.page import RunPage
from ffvit.reports import describe_result, write_report
from ffvit.runlog import RunLog, describe_epoch
from ffvit.saving import Saver, check_saving
from ffvit.trackers import check_trackers, create_trackers


def main(config: TrainConfig, folder: Path, ranks: Ranks) -> None:
    """Train from scratch, or from the run folder's latest checkpoint, to the last epoch.

    Raises:
        SystemExit: A signal asked to stop, and the run is saved: status `saving.EXIT_PREEMPTED`.
    """
    # Every option is checked before anything is written.
    check_saving(config.run)
    check_trackers(config.run.trackers)
    checkpoints = CheckpointFolder(folder, config.run.keep)
    parts = assemble(config, ranks)
    if config.run.mode != "train":
        line = measure(parts)
        if ranks.is_primary:
            sys.stdout.write(line + "\n")
        return
    epochs = config.training.epochs

    # What a checkpoint must agree with for the run to go on from it.
    identity = to_dict(config) | {"data set": parts.data_set}
    state = checkpoints.load_latest(config.run.resume, identity)
    progress = state["progress"] if state else {"epoch": 0, "elapsed_s": 0.0, "best_top_1": -1.0}
    step = state["step"] if state else 0
    ranks.check_agreement(f"{folder}: updates done", step)
    if progress["epoch"] == epochs:
        report(folder, ranks)
        return

    watchers = [RunPage(), *create_trackers(config.run.trackers)]
    done = progress["epoch"], step
    with RunLog.open(
        folder, to_dict(config), describe_environment(), ranks.is_primary, *done, watchers
    ) as log:
        trainer = parts.create_trainer(log)
        if state:
            trainer.load_state_dict(state)
            log.line(f"{folder}: going on after step {step}, {progress['epoch']} epochs done")
            del state  # as large as the model and the optimizer
        for line in checkpoints.damaged:
            log.add_warning(f"{line} Taking the one before.")
        derived = parts.describe()
        derived |= {"first_epoch": progress["epoch"] + 1, "first_step": step + 1}
        log.record("run", **derived)
        log.line(
            f"{config.model.name} -> {folder}: " + " ".join(f"{k}={v}" for k, v in derived.items())
        )
        if ranks.is_primary and step == 0:
            first_epochs = schedules.first_epochs(config.resolution, epochs)
            augment = parts.create_augmentation()
            save_contact_sheet(folder, parts.train_loader, first_epochs, augment)

        saver = Saver(checkpoints, config.run, ranks, log, trainer, identity, progress)
        with saver.watching():
            for epoch in range(progress["epoch"], epochs):
                resolution = schedules.resolution(epoch, config.resolution)
                batch = trainer.updates_done(epoch) * config.training.accumulation_steps
                place = {"epoch": epoch, "resolution": resolution, "batch": batch}
                parts.train_loader.load_state_dict(place)
                record: dict[str, Any] = {"epoch": epoch + 1, "resolution": resolution}
                record |= trainer.train_epoch(parts.train_loader, epoch, saver.after_update)
                images_seen = trainer.step * config.training.global_batch_size
                record |= {"step": trainer.step, "images_seen": images_seen}
                record["num_skipped"] = ranks.total(parts.train_loader.num_skipped)
                record |= trainer.evaluate(
                    parts.val_loader,
                    parts.val_loader.info.num_samples,
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
        parts.close()

    report(folder, ranks)


def report(folder: Path, ranks: Ranks) -> None:
    """Write the report of a finished run, and print its result in one line."""
    if ranks.is_primary:
        write_report([folder], folder)
        sys.stdout.write(describe_result(folder) + "\n")


if __name__ == "__main__":
    with one_line_errors():
        settings, run_name = load_train_config(sys.argv[1:])
        with join_ranks(settings.run.timeout_s) as processes:
            main(settings, Path(settings.run.folder or f"runs/{run_name}"), processes)
