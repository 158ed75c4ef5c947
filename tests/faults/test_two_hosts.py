"""Two machines under torchrun: two network namespaces that see each other over one cable."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from ffvit.checkpoint import CheckpointFolder
from ffvit.runlog import load_run, read_log

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 400
# The card's name in each namespace; documentation addresses of RFC 5737.
CARD = "ffvit0"
ADDRESSES = ("192.0.2.1", "192.0.2.2")
pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def config_path(tiny_betons, tmp_path_factory):
    path = tmp_path_factory.mktemp("hosts") / "tiny.yaml"
    config = {
        "data": {"train_path": str(tiny_betons["train"]), "val_path": str(tiny_betons["val"])},
        "model": {"name": "ff_pico", "image_size": 32, "patch_size": 8, "depth": 1},
        "resolution": {"min_res": 16, "max_res": 32, "start_ramp": 0, "end_ramp": 1, "multiple": 8},
        "training": {"epochs": 2, "global_batch_size": 16, "accumulation_steps": 2},
        "validation": {"resolution": 32},
        "run": {"log_interval": 1},
    }
    path.write_text(yaml.safe_dump(config))
    return path


def ip(*words):
    command = ["ip", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@pytest.fixture
def hosts():
    """Make two namespaces joined by a pair of virtual cards; skip where that is not permitted."""
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip (package iproute2)")
    names = [f"ffvit-{os.getpid()}-{host}" for host in range(2)]
    ends = [f"ff{os.getpid()}h{host}" for host in range(2)]
    try:
        with contextlib.ExitStack() as stack:
            try:
                for name in names:
                    ip("netns", "add", name)
                    stack.callback(ip, "netns", "del", name)
                ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
                for name, end, address in zip(names, ends, ADDRESSES, strict=True):
                    ip("link", "set", end, "netns", name, "name", CARD)
                    ip("-n", name, "addr", "add", f"{address}/24", "dev", CARD)
                    ip("-n", name, "link", "set", CARD, "up")
                    ip("-n", name, "link", "set", "lo", "up")
            except OSError as error:
                pytest.skip(f"may not make network namespaces: {error}")
            yield names
    finally:
        for end in ends:  # one that was not moved into a namespace
            with contextlib.suppress(OSError):
                ip("link", "del", end)


@pytest.fixture
def torchrun(config_path):
    """Start the same command on each host, but for its rank, as docs/several_machines.md says."""
    started = []

    def start(hosts, folder, *options):
        cores = sorted(os.sched_getaffinity(0))[:2]
        for rank, host in enumerate(hosts):
            # A core for each process, as sums over more threads round differently.
            own = [cores[rank % len(cores)]] if host else cores
            launcher = ["taskset", "--cpu-list", ",".join(map(str, own))]
            launcher += ["ip", "netns", "exec", host] if host else []
            launcher += [sys.executable, "-m", "torch.distributed.run", f"--node_rank={rank}"]
            if host:
                launcher += ["--nnodes=2", "--nproc_per_node=1"]
                launcher += [f"--master_addr={ADDRESSES[0]}", "--master_port=29511"]
            else:
                launcher += ["--standalone", "--nproc_per_node=2"]
            launcher += [str(ROOT / "train_imagenet.py"), f"--config={config_path}"]
            process = subprocess.Popen(
                [*launcher, f"--run.folder={folder}", "--data.num_workers=1", *options],
                env=os.environ | ({"GLOO_SOCKET_IFNAME": CARD} if host else {}),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            started.append(process)
        return started[-len(hosts) :]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def weights(folder):
    state = CheckpointFolder(folder, keep=2).load_latest("auto", {})
    return torch.cat([tensor.flatten() for tensor in state["model"].values()])


def test_two_machines_train_like_two_processes_of_one(hosts, torchrun, tmp_path):
    for folder, places in ((tmp_path / "two", hosts), (tmp_path / "one", [None])):
        for process in torchrun(places, folder):
            _, shown = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, shown
    run = load_run(tmp_path / "two")
    assert run.start["world_size"] == 2
    assert [epoch["resolution"] for epoch in run.epochs] == [16, 32]
    assert run.epochs[-1]["num_samples"] == 24
    assert (weights(tmp_path / "two") == weights(tmp_path / "one")).all()


def test_when_a_cable_is_pulled_both_machines_say_so_and_end(hosts, torchrun, tmp_path):
    folder = tmp_path / "run"
    options = ["--training.epochs=2000", "--run.timeout_s=30", "--run.checkpoint_steps=2"]
    processes = torchrun(hosts, folder, *options)
    deadline = time.monotonic() + TIMEOUT_S
    while not (folder / "log.jsonl").exists() or len(read_log(folder)) < 5:
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    ip("-n", hosts[1], "link", "set", CARD, "down")
    for rank, process in enumerate(processes):
        lines = iter(process.stderr.readline, "")
        assert any(f"error: process {rank} of 2 lost touch with" in line for line in lines)
    assert CheckpointFolder(folder, keep=2).load_latest("auto", {})["step"] > 0
