#!/usr/bin/env bash
#SBATCH --job-name=ffvit
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --mem=0
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=runs/slurm-%j.log
#
# Trains under SLURM, one process per GPU, on one machine or several; queues itself again when its time is up.
#
#   sbatch scripts/slurm.sh --config ff_configs/base_16_epochs.yaml [--section.option=value ...]
#   sbatch --nodes=4 scripts/slurm.sh ...            options of sbatch override those above
#
# Submit it from the repository, which all machines must see, the run folder too. Betons at URLs (s3://...) are copied
# to each machine's own disk first. Three minutes before its time is up SLURM sends SIGUSR1: the run saves, ends with
# status 75, and this script queues the job again. A preempted job saves on SIGTERM; SLURM itself queues that again
# (--requeue). A cancelled job saves, too, and stays cancelled. docs/clusters.md says more.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?expected to be started by SLURM: sbatch scripts/slurm.sh --config FILE}"

# Saved and to be started again; or ended by SIGUSR1 while it was still starting.
readonly EXIT_PREEMPTED=75 EXIT_BY_USR1=138
PYTHON=${PYTHON:-.venv/bin/python}

# srun gives each process its place; torch looks for it under these names.
# shellcheck disable=SC2016  # expanded in each process
readonly AS_RANK='export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS
    export LOCAL_WORLD_SIZE=${SLURM_STEP_TASKS_PER_NODE%%[(,]*}
    exec "$@"'

read -r MASTER_ADDR < <(scontrol show hostnames "$SLURM_JOB_NODELIST") # not head: a pipe that breaks is a failure
# Two jobs on one machine need two ports.
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

# A shell waits for a program in its foreground before it runs a trap: this notes that the job was ended from outside.
is_ended=false
trap 'is_ended=true' TERM

# Not bound to cores of its own: a process divides its machine's cores by the machine's processes.
run=(srun --kill-on-bad-exit=1 --cpu-bind=none)
# A step does not inherit this since SLURM 22.05.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || run+=("--cpus-per-task=$SLURM_CPUS_PER_TASK")

"${run[@]}" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 "$PYTHON" -m ffvit stage "$@"

status=0
"${run[@]}" bash -c "$AS_RANK" rank "$PYTHON" train_imagenet.py "$@" || status=$?

if [[ $status = "$EXIT_PREEMPTED" || $status = "$EXIT_BY_USR1" ]] && ! $is_ended; then
    echo "job $SLURM_JOB_ID: its time is up; queueing it again" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
