"""A run as its page meets it: half done, with every figure that a record can have."""

from ffvit.config import load_train_config, to_dict
from ffvit.runlog import RunLog

ENVIRONMENT = {
    "git_commit": "0123456789",
    "python": "3.11.7",
    "packages": {"ffcv": None},
    "gpus": [],
}
NUM_EPOCHS, STEPS_PER_EPOCH = 4, 10


def nothing(_):
    """Leave the log as it is."""


def step_record(step):
    return {
        "epoch": 1 + (step - 1) // STEPS_PER_EPOCH,
        "step": step,
        "loss": 2.0 / step,
        "images_per_s": 500.0 + step,
        "data_wait_fraction": 0.02,
        "learning_rate": 0.001 * step,
        "resolution": 64 + 16 * ((step - 1) // STEPS_PER_EPOCH),
    }


def epoch_record(epoch):
    return {
        "epoch": epoch,
        "step": STEPS_PER_EPOCH * epoch,
        "images_seen": 640 * epoch,
        "resolution": 48 + 16 * epoch,
        "learning_rate": 0.001,
        "train_loss": 1.5 / epoch,
        "top_1": 0.25 + 0.1 * epoch,
        "top_5": 0.5 + 0.1 * epoch,
        "loss": 1.4 / epoch,
        "num_samples": 101,
        "num_skipped": 0,
        "images_per_s": 512.0,
        "data_wait_fraction": 0.02,
        "train_s": 1.5,
        "validation_s": 0.5,
        "elapsed_s": 2.0 * epoch,
        "gpu_hours": 0.0,
    }


def write_run(tmp_path, steps=25, name="some_run", watchers=(), during=nothing, **changes):
    """Write a run folder, from the log's side, and return it; `during` is called before its end."""
    config = to_dict(load_train_config([f"--training.epochs={NUM_EPOCHS}"])[0])
    folder = tmp_path / name
    with RunLog.open(folder, config, ENVIRONMENT, True, watchers=watchers) as log:
        log.record("run", first_step=1, steps_per_epoch=STEPS_PER_EPOCH, world_size=1)
        for step in range(1, steps + 1):
            log.record("step", **(step_record(step) | changes))
            if step % STEPS_PER_EPOCH == 0:
                log.record("epoch", **epoch_record(step // STEPS_PER_EPOCH))
        during(log)
    return folder
