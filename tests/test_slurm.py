"""The SLURM script, with stand-ins for srun, scontrol and Python: who starts what, when again."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "slurm.sh"

# Starts the tasks, gives each its place as SLURM does, and ends with the worst status.
SRUN = """#!/usr/bin/env bash
nodes=$SLURM_JOB_NUM_NODES per_node=$TASKS_PER_NODE
while [[ $1 == --* ]]; do
    echo "srun $1" >>"$LOG"
    case $1 in --ntasks-per-node=*) per_node=${1#*=} ;; esac
    shift
done
export SLURM_NTASKS=$((nodes * per_node)) SLURM_STEP_TASKS_PER_NODE="$per_node(x$nodes)"
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$((task % per_node)) "$@" &
done
worst=0
for job in $(jobs -p); do
    status=0
    wait "$job" || status=$?
    [ "$status" -le "$worst" ] || worst=$status
done
exit "$worst"
"""

SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >>"$LOG"
[ "$1 $2" != "show hostnames" ] || printf 'node7\\nnode9\\n'
"""

# Notes how it is started; the training ends as the test says, after it was told to.
PYTHON = """#!/usr/bin/env bash
if [ "$1" = train_imagenet.py ]; then
    place="$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR:$MASTER_PORT"
    echo "train $place $*" >>"$LOG"
    while [ -e "$WAIT" ]; do sleep 0.1; done
    exit "$TRAIN_STATUS"
fi
echo "stage $*" >>"$LOG"
exit "$STAGE_STATUS"
"""


class Cluster:
    """A job of two machines with two tasks each."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.wait = folder / "wait"
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("python", PYTHON)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.variables = {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHON": "python",
            "LOG": str(self.log),
            "WAIT": str(self.wait),
            "TASKS_PER_NODE": "2",
            "TRAIN_STATUS": "0",
            "STAGE_STATUS": "0",
            "SLURM_SUBMIT_DIR": str(folder),
            "SLURM_JOB_ID": "41234",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_NODELIST": "node[7,9]",
            "SLURM_CPUS_PER_TASK": "6",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            env=self.variables,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors

    def lines(self, word: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return sorted(line for line in lines if line.startswith(f"{word} "))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_each_task_gets_its_place_and_the_same_address(cluster: Cluster) -> None:
    status, errors = cluster.run("--config", "x.yaml", "--run.folder=runs/a b")
    assert (status, errors) == (0, "")
    place = "node7:21234 train_imagenet.py --config x.yaml --run.folder=runs/a b"
    assert cluster.lines("train") == [f"train {rank} {rank % 2} 4 2 {place}" for rank in range(4)]
    assert "srun --cpus-per-task=6" in cluster.lines("srun")
    assert "srun --cpu-bind=none" in cluster.lines("srun")
    assert cluster.lines("scontrol") == ["scontrol show hostnames node[7,9]"]


def test_betons_are_staged_once_on_each_machine_before_training(cluster: Cluster) -> None:
    cluster.run("--config", "x.yaml")
    assert cluster.lines("stage") == ["stage -m ffvit stage --config x.yaml"] * 2
    order = [line.split()[0] for line in cluster.log.read_text().splitlines()]
    assert order.index("train") > max(k for k, word in enumerate(order) if word == "stage")


def test_a_failed_copy_stops_the_job_before_training(cluster: Cluster) -> None:
    cluster.variables["STAGE_STATUS"] = "2"
    assert cluster.run("--config", "x.yaml")[0] == 2
    assert cluster.lines("train") == []


@pytest.mark.parametrize(
    ("train_status", "again"), [("75", True), ("138", True), ("1", False), ("2", False)]
)
def test_a_run_whose_time_is_up_is_queued_again_and_a_failed_one_is_not(
    cluster: Cluster, train_status: str, again: bool
) -> None:
    cluster.variables["TRAIN_STATUS"] = train_status
    assert cluster.run("--config", "x.yaml")[0] == int(train_status)
    assert ("scontrol requeue 41234" in cluster.lines("scontrol")) == again


def test_a_job_that_is_ended_from_outside_saves_and_is_not_queued_again(cluster: Cluster) -> None:
    cluster.variables["TRAIN_STATUS"] = "75"
    cluster.wait.touch()
    process = cluster.start("--config", "x.yaml")
    deadline = time.monotonic() + 60
    while len(cluster.lines("train")) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None  # it waits for the tasks, which save
    cluster.wait.unlink()
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert cluster.lines("scontrol") == ["scontrol show hostnames node[7,9]"]


def test_outside_of_slurm_it_says_how_to_start_it(cluster: Cluster) -> None:
    del cluster.variables["SLURM_SUBMIT_DIR"]
    status, errors = cluster.run()
    assert status != 0
    assert "sbatch scripts/slurm.sh --config FILE" in errors
