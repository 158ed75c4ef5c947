"""What torchrun makes of a rank that dies and of a signal; evaluation on any number of ranks."""

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from ffvit.checkpoint import CheckpointFolder
from ffvit.runlog import read_log

FAULTS = Path(__file__).parent
ROOT = FAULTS.parents[1]
TIMEOUT_S = 240
pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def config_path(tiny_betons, tmp_path_factory):
    path = tmp_path_factory.mktemp("torchrun") / "tiny.yaml"
    config = {
        "data": {"train_path": str(tiny_betons["train"]), "val_path": str(tiny_betons["val"])},
        "model": {
            "name": "ff_pico",
            "image_size": 32,
            "patch_size": 8,
            "embed_dim": 24,
            "depth": 2,
        },
        "resolution": {"min_res": 32, "max_res": 32, "multiple": 8},
        "training": {"epochs": 30, "global_batch_size": 8},
        "validation": {"resolution": 32},
        "run": {"log_interval": 3, "checkpoint_steps": 5},
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def torchrun(config_path, tmp_path):
    """Start two ranks under torchrun, and wait until they are in their third epoch."""
    started = []

    def start(*options):
        folder = tmp_path / "run"
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
        launcher += ["--standalone", *options, str(ROOT / "train_imagenet.py")]
        command = [*launcher, f"--config={config_path}", f"--run.folder={folder}"]
        process = subprocess.Popen(
            [*command, "--data.num_workers=1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        log = folder / "log.jsonl"
        deadline = time.monotonic() + TIMEOUT_S
        while not (log.exists() and '"epoch": 3' in log.read_text()):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        return process, folder

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def workers(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children]


def steps_of(folder):
    return [record["step"] for record in read_log(folder) if record["kind"] == "step"]


def test_a_rank_dies_and_torchrun_goes_on_from_the_latest_checkpoint(torchrun):
    """The other rank says what it lost and ends at once; the run ends as if nothing had been."""
    process, folder = torchrun("--max-restarts=1")
    os.kill(workers(process)[1], signal.SIGKILL)
    _, shown = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, shown
    assert "error: process 0 of 2 lost touch with another one" in shown
    assert "exitcode: -9) local_rank: 1" in shown
    starts = [record for record in read_log(folder) if record["kind"] == "run"]
    assert starts[0]["first_step"] == 1
    assert starts[1]["first_step"] > 16
    expected = [8 * epoch + step for epoch in range(30) for step in (3, 6, 8)]
    assert steps_of(folder) == expected


def test_torchrun_passes_sigterm_on_and_does_not_start_again(torchrun):
    process, folder = torchrun("--max-restarts=3")
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "told to stop, saved; the same command goes on from here (exit status 75)" in shown
    assert len([record for record in read_log(folder) if record["kind"] == "run"]) == 1
    step = CheckpointFolder(folder, 2).load_latest("auto", {})["step"]
    assert step >= steps_of(folder)[-1] > 16


def test_each_image_is_evaluated_once_for_any_number_of_images_and_ranks(tmp_path):
    """More ranks than images, too, and a last batch that is not full."""
    command = [sys.executable, str(FAULTS / "evaluation_ranks.py"), str(tmp_path)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert output.returncode == 0, output.stderr
    results = json.loads(output.stdout)
    assert len(results) == 16
    for case, ranks in results.items():
        num_samples, world_size = map(int, case.split("/"))
        assert len(ranks) == world_size
        assert all(record == ranks[0] for record in ranks), case
        assert ranks[0]["num_samples"] == num_samples
        right = sum(k % 3 == k % 4 for k in range(num_samples))
        assert ranks[0]["top_1"] == pytest.approx(right / num_samples)
        alone = results[f"{num_samples}/1"][0]
        assert ranks[0]["loss"] == pytest.approx(alone["loss"], rel=1e-6)


def test_stock_ffcv_starts_an_epoch_over_and_counts_validation_images_twice(tiny_val_beton):
    command = [sys.executable, str(FAULTS / "stock_training.py"), str(tiny_val_beton), "5"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    stock = json.loads(output.stdout.splitlines()[-1])
    assert not stock["state_dict"]
    assert stock["starts_over"]
    counts = collections.Counter(stock["validation"])
    assert len(counts) == 24
    assert sum(counts.values()) == 25


def test_rank_that_does_not_answer_is_given_up():
    """Not under torchrun: the timeout is the exchange's own."""
    program = (
        "import sys, time; from ffvit.distributed import join_ranks\n"
        "from ffvit.errors import one_line_errors\n"
        "with one_line_errors(), join_ranks(timeout_s=2) as ranks:\n"
        "    ranks.wait_for_all()\n"
        "    if ranks.rank == 1: time.sleep(60)\n"
        "    ranks.max(3)\n"
    )
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=os.environ | address | {"RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    _, shown = processes[0].communicate(timeout=100)
    processes[1].kill()
    processes[1].communicate()
    assert processes[0].returncode == 2
    assert "error: process 0 of 2 " in shown
    assert "run.timeout_s=2 seconds" in shown
    assert len(shown.strip().splitlines()) == 1


def free_port():
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True)
    return store.port
