"""Runs that are killed, told to stop, or find their disk full or their checkpoint damaged.

Each goes on, and ends with the bits of a run that nothing happened to.
"""

import itertools
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml
from forked_runs import Runs, images_seen, kill, output

from ffvit.checkpoint import CheckpointFolder, load_checkpoint

EXIT_PREEMPTED = 75
FEEDFORWARD = ()
# Running statistics of batch norms, which differ between ranks within an update.
BATCH_NORM = (
    "--model.name=test_efficientnet",
    "--model.image_size=0",
    "--model.patch_size=0",
    "--model.embed_dim=0",
    "--model.depth=0",
    "--training.optimizer=sgd",
)
pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def config_path(tiny_betons, tmp_path_factory):
    """4 epochs of 8 updates in two resolutions: dropout, averaged weights, two micro-batches."""
    path = tmp_path_factory.mktemp("killed") / "tiny.yaml"
    config = {
        "data": {
            "train_path": str(tiny_betons["train"]),
            "val_path": str(tiny_betons["val"]),
            "num_workers": 1,
        },
        "model": {
            "name": "ff_pico",
            "image_size": 48,
            "patch_size": 8,
            "embed_dim": 24,
            "depth": 2,
            "drop_rate": 0.1,
            "drop_path_rate": 0.1,
        },
        "resolution": {"min_res": 32, "max_res": 48, "start_ramp": 1, "end_ramp": 2, "multiple": 8},
        "training": {
            "epochs": 4,
            "global_batch_size": 8,
            "accumulation_steps": 2,
            "ema_decay": 0.9,
        },
        "lr": {"lr": 0.003, "warmup_epochs": 1},
        "validation": {"resolution": 48, "batch_size": 10},
        "run": {"log_interval": 3, "checkpoint_steps": 3, "timeout_s": 20},
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """Return a folder, and the command that shows it as a disk of 4 MB to another command."""
    disk = tmp_path_factory.mktemp("disk")
    mount = f'mount -t tmpfs -o size=4m tmpfs {disk} && exec "$@"'
    launcher = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh"]
    is_allowed = not subprocess.run(
        [*launcher, "true"], check=False, capture_output=True
    ).returncode
    return disk, launcher if is_allowed else []


@pytest.fixture(scope="module")
def runs(config_path, small_disk):
    server = Runs(config_path, small_disk[1])
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole_run(runs, tmp_path_factory):
    """Run undisturbed, once for each set of arguments; return the folder and the seconds."""
    done = {}

    def run(world_size, *options):
        key = (world_size, options)
        if key not in done:
            folder = tmp_path_factory.mktemp("whole") / "run"
            begin = time.monotonic()
            assert runs.run(folder, world_size, *options) == [0] * world_size, output(folder)
            done[key] = folder, time.monotonic() - begin
        return done[key]

    return run


def final_state(folder):
    """Return what decides the weights, times left out."""
    state = CheckpointFolder(Path(folder), 2).load_latest("auto", {})
    return {name: state[name] for name in ("step", "model", "ema", "optimizer")}


def same_bits(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_bits(first[k], second[k]) for k in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same_bits, first, second))
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return first == second


def history(folder):
    """Return the steps and epochs of the log without how fast and in how much memory they went."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in r.items() if not k.endswith(("_s", "_ms", "_gib", "_wait_fraction"))}
        for r in records
        if r["kind"] in ("step", "epoch")
    ]


def assert_same_run(folder, whole):
    assert same_bits(final_state(folder), final_state(whole))
    assert history(folder) == history(whole)
    assert (folder / "log.csv").read_text().count("\n") == 5
    best = [load_checkpoint(f / "checkpoints" / "best.pt")["step"] for f in (folder, whole)]
    assert best[0] == best[1]


def kill_at_random(runs, folder, world_size, options, rng, duration):
    """Start a run and kill it; return the statuses of its ranks."""
    if rng.random() < 0.4:
        # In the middle of writing: the log's and table's at the start, a checkpoint, its folder.
        fault = {"place": "fsync", "call": rng.randint(1, 16), "signal": signal.SIGKILL}
        pids = runs.start(folder, world_size, *options, faults=[fault])
    else:
        pids = runs.start(folder, world_size, *options)
        time.sleep(rng.uniform(0, duration))
        victims = rng.sample(pids, rng.randint(1, world_size))
        kill(victims)
        for pid in set(pids) - set(victims):
            os.kill(pid, signal.SIGTERM)  # torchrun does
    return runs.wait(pids)


@pytest.mark.parametrize(
    ("world_size", "options", "num_kills"),
    [(1, FEEDFORWARD, 6), (2, FEEDFORWARD, 6), (1, BATCH_NORM, 3), (2, BATCH_NORM, 5)],
)
def test_run_killed_at_random_moments_ends_with_the_same_bits(
    runs, whole_run, tmp_path, world_size, options, num_kills
):
    """20 random kill points; some hit before the first checkpoint, some while one is written."""
    whole, duration = whole_run(world_size, *options)
    rng = random.Random(f"{world_size} {options}")
    num_done = 0
    for chain in itertools.count():
        folder, statuses = tmp_path / str(chain), []
        while statuses != [0] * world_size:
            if num_done < num_kills:
                statuses = kill_at_random(runs, folder, world_size, options, rng, duration)
                num_done += -signal.SIGKILL in statuses
            else:
                statuses = runs.run(folder, world_size, *options)
                assert statuses == [0] * world_size, output(folder)
        assert_same_run(folder, whole)
        if num_done == num_kills:
            break


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGUSR1])
def test_signal_saves_and_exits_and_the_run_goes_on(
    runs, whole_run, tmp_path, world_size, signal_number
):
    """One rank alone is told, in the middle of an epoch; all stop after the same update."""
    folder = tmp_path / "run"
    fault = {"place": "update", "call": 12, "signal": signal_number, "ranks": [world_size - 1]}
    statuses = runs.run(folder, world_size, "--run.checkpoint_steps=0", faults=[fault])
    assert statuses == [EXIT_PREEMPTED] * world_size, output(folder)
    # In a world of two, the other rank knows one update later.
    assert final_state(folder)["step"] == 11 + world_size
    assert "told to stop, saved" in output(folder)
    assert runs.run(folder, world_size) == [0] * world_size, output(folder)
    assert_same_run(folder, whole_run(world_size)[0])


@pytest.mark.parametrize("world_size", [1, 2])
def test_signal_during_evaluation_saves_and_the_evaluation_is_done_again(
    runs, whole_run, tmp_path, world_size
):
    folder = tmp_path / "run"
    # The third pass: plain weights, second epoch.
    fault = {"place": "measure", "call": 3, "signal": signal.SIGTERM}
    assert runs.run(folder, world_size, faults=[fault]) == [EXIT_PREEMPTED] * world_size
    assert final_state(folder)["step"] == 16
    assert [r["epoch"] for r in history(folder) if r["kind"] == "epoch"] == [1]
    assert runs.run(folder, world_size) == [0] * world_size, output(folder)
    assert_same_run(folder, whole_run(world_size)[0])


def test_more_signals_while_saving_change_nothing(runs, whole_run, tmp_path):
    folder = tmp_path / "run"
    faults = [{"place": "update", "call": 12, "signal": signal.SIGTERM}]
    for number in (signal.SIGTERM, signal.SIGUSR1):
        faults += [{"place": "fsync", "call": call, "signal": number} for call in range(8, 20)]
    assert runs.run(folder, 1, faults=faults) == [EXIT_PREEMPTED], output(folder)
    assert runs.run(folder, 1) == [0]
    assert_same_run(folder, whole_run(1)[0])


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on_with_the_same_images(
    runs, whole_run, tmp_path, before, after
):
    folder = tmp_path / "run"
    fault = {"place": "update", "call": 12, "signal": signal.SIGTERM}
    assert runs.run(folder, before, faults=[fault]) == [EXIT_PREEMPTED] * before
    assert runs.run(folder, after) == [0] * after, output(folder)
    seen = images_seen(folder)
    assert seen == images_seen(whole_run(1)[0])
    assert {step: len(images) for step, images in seen.items()} == dict.fromkeys(range(32), 8)
    steps = [(r["kind"], r["step"]) for r in history(folder)]
    assert steps == [(r["kind"], r["step"]) for r in history(whole_run(1)[0])]


def test_a_truncated_latest_falls_back_to_the_one_before(runs, whole_run, tmp_path):
    folder = tmp_path / "run"
    fault = {"place": "update", "call": 12, "signal": signal.SIGTERM}
    assert runs.run(folder, 1, faults=[fault]) == [EXIT_PREEMPTED]
    before, latest = sorted((folder / "checkpoints").glob("step_*.pt"))
    os.truncate(latest, latest.stat().st_size * 2 // 3)
    assert runs.run(folder, 1) == [0]
    shown = output(folder)
    assert f"WARNING: {latest}: this checkpoint cannot be read" in shown
    assert f"going on after step {load_step(before)}" in shown
    assert_same_run(folder, whole_run(1)[0])


def load_step(path):
    return int(path.stem.removeprefix("step_"))


def test_disk_full_at_a_checkpoint(runs, small_disk, whole_run):
    """Periodic checkpoints are missed with a warning; the last is an error; then it goes on."""
    disk, launcher = small_disk
    if not launcher:
        pytest.skip("needs user namespaces, to mount a small disk")
    # The disk is the run folder: what the run prints lies beside it, where there is room.
    reached = Path(f"/proc/{runs.pid}/root{disk}")
    fault = {"place": "update", "call": 20, "fill": str(disk / "filler")}
    assert runs.run(disk, 1, faults=[fault]) == [2], output(disk)
    (reached / "filler").unlink()
    shown = output(disk)
    assert "step_00000021.pt: cannot write this checkpoint (No space left on device)" in shown
    assert "Training goes on without it." in shown
    last = shown.strip().splitlines()[-1]
    assert last.startswith("error: ")
    # Of the step, or of the best if the last epoch was.
    assert ".pt: cannot write this checkpoint (No space left on device)" in last
    # What was whole is whole, and nothing half-written is left.
    names = sorted(path.name for path in (reached / "checkpoints").iterdir())
    assert names[-2:] == ["step_00000016.pt", "step_00000018.pt"]
    assert final_state(reached)["step"] == 18
    assert runs.run(disk, 1) == [0]
    assert_same_run(reached, whole_run(1)[0])
