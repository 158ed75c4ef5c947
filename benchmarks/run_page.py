"""What a run's page costs its run: processor time of writing it, for logs of several lengths.

    python -m benchmarks.run_page --output=benchmarks/results/run_page_MACHINE_YYYYMM.json

The log is made up: 88 epochs of ImageNet with 1,251 updates each, looked at every 50 updates (the
default), and at every update, which is the worst that can happen.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from ffvit.config import load_train_config, to_dict
from ffvit.page import INTERVAL_S, MAX_SHARE, write_page
from ffvit.runlog import Run

NUM_EPOCHS, STEPS_PER_EPOCH = 88, 1251


def make_run(folder: Path, log_interval: int) -> Run:
    """Make up the log of a whole run."""
    records: list[dict[str, Any]] = [{"kind": "run", "steps_per_epoch": STEPS_PER_EPOCH}]
    for step in range(log_interval, NUM_EPOCHS * STEPS_PER_EPOCH + 1, log_interval):
        figures = {"loss": 7 - step / 3e4, "images_per_s": 4000.0 + step % 100}
        figures |= {"data_wait_fraction": 0.01, "learning_rate": 1e-3, "step_p50_ms": 250.0}
        records.append({"kind": "step", "step": step, "resolution": 128, **figures})
    for epoch in range(1, NUM_EPOCHS + 1):
        figures = {"train_loss": 7 - epoch / 20, "loss": 6 - epoch / 20, "top_1": epoch / 120}
        figures |= {"top_5": epoch / 100, "images_per_s": 4000.0, "data_wait_fraction": 0.01}
        figures |= {"learning_rate": 1e-3, "elapsed_s": 300.0 * epoch, "gpu_hours": 0.6 * epoch}
        place = {"epoch": epoch, "step": STEPS_PER_EPOCH * epoch, "resolution": 128}
        records.append({"kind": "epoch", **place, **figures})
    return Run("made_up", folder, to_dict(load_train_config([])[0]), {}, records)


def measure(log_interval: int, num_rounds: int) -> dict[str, float]:
    """Write the page again and again.

    Returns:
        Number of records, median and extremes of the processor time in ms, size of the page in kB.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), log_interval)
        times_ms = []
        for _ in range(num_rounds):
            begin = time.process_time()
            path = write_page(run, Path(folder))
            times_ms.append(1000 * (time.process_time() - begin))
        size = path.stat().st_size
    return {
        "log_interval": log_interval,
        "records": len(run.records),
        "median_ms": round(statistics.median(times_ms), 2),
        "min_ms": round(min(times_ms), 2),
        "max_ms": round(max(times_ms), 2),
        "page_kb": round(size / 1000, 1),
    }


def main() -> None:
    """Measure and write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run_page", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    result = {
        "subject": "processor time of writing a run's page",
        "machine": describe_machine(),
        "rounds": options.rounds,
        "interval_s": INTERVAL_S,
        "largest_share_of_wall_time": MAX_SHARE,
        "pages": [measure(interval, options.rounds) for interval in (50, 1)],
    }
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
