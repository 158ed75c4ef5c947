"""Measures training steps, ours against others', prints the tables and writes one JSON.

python -m benchmarks.step                          one NVIDIA GPU if there is one, else one CPU core
python -m benchmarks.step --quick --output=FILE    does everything work? Its figures are of no use
"""

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import betons
from benchmarks.machine import REPOSITORY, describe_machine, short_name
from benchmarks.step import tables
from benchmarks.step.cases import CASES, END_TO_END, Case
from benchmarks.step.measure import measure_case, measure_end_to_end
from benchmarks.step.passes import measure_passes
from ffvit.errors import ConfigError, UserError, one_line_errors
from ffvit.flops import peak_flops, training_flops
from ffvit.models import create_model
from ffvit.options import ModelSection

# Below this many rounds a run is called preliminary.
NUM_ROUNDS = 5
END_TO_END_ROUNDS = 3
NUM_PASSES = 11
GPU_MINUTES, CPU_MINUTES = 7.5, 15.0
MODEL_ONLY_SHARE = 0.7
QUICK_CASES = ("ff_tiny_patch16_224", "resnet18_blurpool")


def main(argv: list[str]) -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test, on small batches")
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS, help="of each program")
    parser.add_argument("--minutes", type=float, help="after which nothing further is started")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    if options.quick and options.output is None:
        raise ConfigError("--quick: expected --output=FILE too; its figures are not for results/.")
    if options.rounds < 1:
        raise ConfigError(f"--rounds={options.rounds}: expected 1 or more.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    minutes = options.minutes or (GPU_MINUTES if device.type == "cuda" else CPU_MINUTES)
    begin = time.monotonic()
    rounds = 1 if options.quick else options.rounds
    result = measure(device, rounds, begin + 60 * minutes, options.quick)
    result["duration_min"] = round((time.monotonic() - begin) / 60, 1)
    path = options.output or default_path(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name, table in tables.all_tables(result).items():
        sys.stdout.write(f"\n{name}\n{table}\n")


def measure(
    device: torch.device, num_rounds: int, deadline: float, is_quick: bool
) -> dict[str, Any]:
    """Run all measurements, one after the other, the most wanted first."""
    machine = describe_machine()  # first: what is measured is the commit of the start
    load_average = round(os.getloadavg()[0], 1)
    is_on_gpu = device.type == "cuda"
    if not is_on_gpu:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        torch.set_num_threads(1)
    gpu_name = torch.cuda.get_device_name(device) if is_on_gpu else ""
    peak = peak_flops(gpu_name)
    passes = measure_passes(device, 2 if is_quick else 16, 2 if is_quick else NUM_PASSES)
    cases, with_loader = list(CASES), list(END_TO_END)
    if is_quick:
        cases = [_quick(case) for case in CASES if case.model in QUICK_CASES]
        with_loader = [_quick(END_TO_END[0])]
    # The rest is left for the loaders.
    model_deadline = time.monotonic() + MODEL_ONLY_SHARE * (deadline - time.monotonic())
    model_only = [
        measure_case(case, device, num_rounds, model_deadline)
        | {"training_gflop": _training_gflop(case)}
        for case in cases
        if case.programs_on(device.type)
    ]
    reason, end_to_end = "", []
    try:
        betons.prepare_pair()
    except UserError as error:
        reason = str(error)
    else:
        end_to_end = [
            measure_end_to_end(case, device, min(num_rounds, END_TO_END_ROUNDS), deadline)
            for case in with_loader
            if case.programs_on(device.type)
        ]
    return {
        "subject": "training steps: ours, the paper's definition, timm, ffcv-imagenet's loop",
        "command": "python -m benchmarks.step",
        "date": time.strftime("%Y-%m-%d"),
        "is_preliminary": num_rounds < NUM_ROUNDS,
        "num_rounds": num_rounds,
        "device": gpu_name or "cpu",
        "load_average": load_average,
        "peak_tflops": peak / 1e12 if peak else None,
        "machine": machine,
        "passes": passes,
        "model_only": model_only,
        "end_to_end": end_to_end,
        "end_to_end_reason": reason,
    }


def default_path(result: dict[str, Any]) -> Path:
    """Name the result by subject, machine and month."""
    month = result["date"][:7].replace("-", "")
    gpu = result["device"].replace(" ", "").lower()
    name = short_name(result["machine"]) if gpu == "cpu" else gpu
    return REPOSITORY / "benchmarks" / "results" / f"{tables.SUBJECT}_{name}_{month}.json"


def _training_gflop(case: Case) -> float:
    """Count what an image costs to train, nominally."""
    with torch.device("meta"):
        model = create_model(ModelSection(name=case.model), num_classes=1000)
    return training_flops(model, case.resolution) / 1e9


def _quick(case: Case) -> Case:
    """Make a case small and without compilation."""
    eager = tuple(name for name in case.cpu_programs if "compiled" not in name)
    return dataclasses.replace(case, cpu_batch_size=2, cpu_programs=eager)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
