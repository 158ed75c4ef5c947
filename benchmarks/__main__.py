"""Runs every benchmark, prints the tables and writes one JSON.

python -m benchmarks             25 minutes on 2 cores; writes benchmarks/results/
python -m benchmarks --quick     2 minutes: does everything work? Its figures are of no use
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import betons, loaders, quality, stages, startup, tables, targets, writer
from benchmarks.machine import REPOSITORY, describe_machine, short_name
from benchmarks.peers import BATCH_SIZE
from benchmarks.processes import run_apart
from ffvit.errors import ConfigError, one_line_errors

# Below this many rounds a run is called preliminary, in its tables and picture too.
NUM_ROUNDS = 7
NUM_STARTS = 3
IMAGES_PER_ROUND = 1000
SMALL_IMAGES_PER_ROUND = 500
NUM_SMALL_ROUNDS = 5
QUICK_CONTENDERS = (
    "stock, old",
    "ffvit in FFCV, ours",
    "ffvit Loader, ours",
    "DALI CPU, JPEGs",
    "torchvision decode_jpeg, JPEGs",
)
QUICK_CROPS = 20
QUALITY_TIMEOUT_S = 900


def main(argv: list[str]) -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test")
    parser.add_argument("--rounds", type=int, default=NUM_ROUNDS, help="of each loader")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args(argv)
    if options.quick and options.output is None:
        raise ConfigError("--quick: expected --output=FILE too; its figures are not for results/.")
    if options.rounds < 1:
        raise ConfigError(f"--rounds={options.rounds}: expected 1 or more.")
    begin = time.monotonic()
    result = measure(1 if options.quick else options.rounds, options.quick)
    result["duration_min"] = round((time.monotonic() - begin) / 60, 1)
    path = options.output or default_path(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name, table in tables.all_tables(result).items():
        sys.stdout.write(f"\n{name}\n{table}\n")


def measure(num_rounds: int, is_quick: bool) -> dict[str, Any]:
    """Make the betons and run all measurements, one after the other."""
    machine = describe_machine()  # first: what is measured is the commit of the start
    image_set = betons.prepare(with_small=not is_quick)
    contenders = loaders.main_contenders()
    if is_quick:
        contenders = [c for c in contenders if c.name in QUICK_CONTENDERS]
    num_images = image_set["num_images"] if is_quick else IMAGES_PER_ROUND
    num_crops = QUICK_CROPS if is_quick else image_set["num_images"]
    small = loaders.small_contenders()
    result: dict[str, Any] = {
        "subject": "loaders of 500 ImageNet images: throughput, start, memory, fidelity",
        "command": "make bench",
        "date": time.strftime("%Y-%m-%d"),
        "is_preliminary": num_rounds < NUM_ROUNDS,
        "batch_size": BATCH_SIZE,
        "machine": machine,
        "image_set": image_set | {"titles": {} if is_quick else betons.TITLES},
        "writer": writer.measure(num_rounds, repeats=(1, 2) if is_quick else writer.REPEATS),
        "stages": stages.measure(num_rounds),
        "quality": run_apart(quality.measure, num_crops, timeout_s=QUALITY_TIMEOUT_S),
        "startup": startup.measure(1 if is_quick else min(num_rounds, NUM_STARTS)),
        # The longest last: what fails before them costs least.
        "loaders": loaders.measure(contenders, num_rounds, num_images),
        "betons": None
        if is_quick
        else loaders.measure(small, min(num_rounds, NUM_SMALL_ROUNDS), SMALL_IMAGES_PER_ROUND),
    }
    return result | {"targets": targets.as_dicts(result)}


def default_path(result: dict[str, Any]) -> Path:
    """Name the result by subject, machine and month."""
    month = result["date"][:7].replace("-", "")
    name = f"{tables.SUBJECT}_{short_name(result['machine'])}_{month}.json"
    return REPOSITORY / "benchmarks" / "results" / name


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
