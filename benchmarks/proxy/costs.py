"""What an update costs, by model and resolution: the clock by which arms are compared.

Wall time of a shared machine says little. Here all costs are measured in one process, in turns,
as processor time of whole epochs, loader included. What counts is the ratio to the base model at
full resolution in the same round, the median over the rounds.
"""

import itertools
import json
import statistics
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.machine import describe_machine, short_name
from benchmarks.proxy import teacher
from benchmarks.proxy.arms import BASE, FULL, Arm
from benchmarks.proxy.results import NEW_RESULTS, RESULTS
from benchmarks.proxy.training import Session, open_session, train_teacher
from ffvit.errors import ConfigError
from ffvit.options import TrainConfig

SUBJECT = "proxycosts"
NUM_ROUNDS = 5
# Models that compute the same with other constants.
SAME_COST = {"proxy_raw_resize": "ff_pico"}


def cost_name(config: TrainConfig, resolution: int, is_taught: bool = False) -> str:
    """Name what an update's cost depends on."""
    model = config.model
    name = SAME_COST.get(model.name, model.name)
    policy = f" {config.augment.policy}" if config.augment.policy else ""
    size = f"{model.embed_dim}x{model.depth}" if model.depth else f"{model.embed_dim}"
    taught = " taught" if is_taught else ""
    return f"{name} {size}{policy}{taught} {resolution}"


def cost_names(arm: Arm) -> list[str]:
    """Name the costs of an arm's epochs, in order."""
    return [cost_name(arm.config, size, bool(arm.teaching)) for size in arm.resolutions]


def measure(arms: list[Arm]) -> dict[str, Any]:
    """Measure the cost of an update of every model and resolution of these arms, in turns.

    Returns:
        Machine, date, and `ms_per_update`: for each name the processor time of each round.
    """
    needed = {cost_name(BASE, FULL): (BASE, FULL, "")}
    for arm in arms:
        for resolution in sorted({*arm.resolutions}):
            name = cost_name(arm.config, resolution, bool(arm.teaching))
            needed[name] = (arm.config, resolution, arm.teaching)
    if any(arm.teaching for arm in arms):
        teacher.prepare(train_teacher)
    sessions: dict[str, Session] = {}
    for config, _, teaching in needed.values():
        model = cost_name(config, 0, bool(teaching))
        if model not in sessions:
            sizes = [size for other, size, _ in needed.values() if other == config]
            sessions[model] = open_session(config, sizes, teaching)
    milliseconds: dict[str, list[float]] = {name: [] for name in needed}
    epochs = itertools.count()  # a trainer does each only once
    for round_number in range(NUM_ROUNDS + 1):
        for name, (config, resolution, teaching) in needed.items():
            epoch = next(epochs)
            session = sessions[cost_name(config, 0, bool(teaching))]
            session.train_loader.set_epoch(epoch, resolution)
            begin = time.process_time()
            session.trainer.train_epoch(session.train_loader, epoch)
            elapsed_ms = 1000 * (time.process_time() - begin)
            if round_number:  # the first compiles, and fills caches
                milliseconds[name].append(round(elapsed_ms / len(session.train_loader), 3))
    for session in sessions.values():
        session.close()
    return {
        "subject": "processor time of an update, one thread, loader included",
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine(),
        "batch_size": BASE.training.global_batch_size,
        "ms_per_update": milliseconds,
    }


def write(result: dict[str, Any]) -> str:
    """Write a measurement to the new results; returns the file's name."""
    month = result["date"][:7].replace("-", "")
    path = NEW_RESULTS / f"{SUBJECT}_{short_name(result['machine'])}_{month}.json"
    NEW_RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path.name


def read() -> dict[str, Any]:
    """Read the newest measurement.

    Raises:
        ConfigError: There is none.
    """
    results = [json.loads(path.read_text()) for path in RESULTS.glob(f"{SUBJECT}_*.json")]
    if not results:
        raise ConfigError(
            f"benchmarks/results: expected {SUBJECT}_*.json, found none; "
            "python -m benchmarks.proxy costs."
        )
    newest: dict[str, Any] = max(results, key=lambda result: str(result["date"]))
    return newest


def relative_cost(measurement: Mapping[str, Any], name: str) -> float:
    """Return the cost of an update over that of the base model at full resolution.

    Raises:
        ConfigError: It was not measured.
    """
    measured = measurement["ms_per_update"]
    if name not in measured:
        raise ConfigError(
            f"cost of {name!r}: expected it among the measured ones, {', '.join(measured)}; "
            "python -m benchmarks.proxy costs."
        )
    rounds = zip(measured[name], measured[cost_name(BASE, FULL)], strict=True)
    return float(statistics.median(one / base for one, base in rounds))


def cost_of(measurement: Mapping[str, Any], arm: Arm) -> float:
    """Return what an arm's training costs, in epochs of the base model at full resolution."""
    return sum(relative_cost(measurement, name) for name in cost_names(arm))
