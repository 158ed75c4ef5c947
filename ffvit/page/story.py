"""What a run's page tells: how far it is, its main figures, what to look at, which plots."""

import dataclasses
import math
from typing import Any

from ffvit.page.plots import Curve
from ffvit.progress import duration
from ffvit.runlog import Run

# From this share of waiting on, more decoding threads or smaller images would make a run faster.
MUCH_WAITING = 0.1
MARKS = {"running": "▶", "finished": "✔", "stopped": "◼", "failed": "✖"}


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a run is: `name` is running, finished, stopped or failed; `done` from 0 to 1."""

    name: str
    mark: str
    text: str
    short: str
    done: float


@dataclasses.dataclass(frozen=True)
class Tile:
    """One figure in large."""

    name: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Notice:
    """Something to look at."""

    title: str
    text: str
    is_bad: bool = False


def status_of(run: Run) -> Status:
    """Say how far a run is."""
    num_epochs = run.config["training"]["epochs"]
    num_steps = run.steps[-1]["step"] if run.steps else 0
    done = num_steps / _steps_per_epoch(run) / num_epochs
    done = min(1.0, max(done, len(run.epochs) / num_epochs))
    name = run.end["status"] if run.end else "running"
    name = name if name in MARKS else "stopped"  # a word from a file ends up in the page
    text = f"{len(run.epochs)} of {num_epochs} epochs"
    if name == "running":
        text += f", {done:.0%}"
    elif run.end and run.end["reason"]:
        text += f": {run.end['reason']}"
    short = f"{done:.0%}" if name == "running" else name
    if run.validated:
        short += f", top-1 {run.validated[-1]['top_1']:.1%}"
    return Status(name, MARKS[name], text, short, done)


def tiles(run: Run) -> list[Tile]:
    """Choose the figures that are shown in large."""
    shown = []
    if run.validated:
        last = run.validated[-1]
        best = max(run.validated, key=lambda epoch: epoch["top_1"])
        shown.append(
            Tile(
                "top-1",
                f"{last['top_1']:.2%}",
                f"best {best['top_1']:.2%} after epoch {best['epoch']}",
            )
        )
        if "ema_top_1" in last:
            shown.append(Tile("top-1, averaged weights", f"{last['ema_top_1']:.2%}"))
    if run.steps:
        step = run.steps[-1]
        shown += [
            Tile("loss", _maybe(step.get("loss"), ".3f"), "training, last updates"),
            Tile("images per second", _maybe(step.get("images_per_s"), ",.0f")),
            Tile("data wait", _maybe(step.get("data_wait_fraction"), ".1%"), "of the time"),
            Tile("learning rate", _maybe(step.get("learning_rate"), ".3g")),
            Tile("resolution", f"{step.get('resolution', '-')} px"),
        ]
        if step.get("mfu") is not None:
            shown.append(Tile("MFU", f"{step['mfu']:.1%}", "of the GPU's peak"))
        if step.get("peak_memory_gib") is not None:
            shown.append(Tile("peak memory", f"{step['peak_memory_gib']:.1f} GiB"))
        if run.end is None and step.get("time_left_s") is not None:
            shown.append(Tile("time left", duration(step["time_left_s"]), "estimated"))
    if run.epochs:
        last = run.epochs[-1]
        shown.append(Tile("time", duration(last["elapsed_s"]), "to the last epoch's end"))
        if run.is_on_gpu:
            shown.append(Tile("GPU-hours", f"{last['gpu_hours']:.2f}"))
    return shown


def notices(run: Run) -> list[Notice]:
    """Collect what a person should look at; the gravest first."""
    found = []
    if run.end and run.end["status"] == "failed":
        found.append(Notice("The run failed.", run.end["reason"], is_bad=True))
    found += [Notice("Warning.", text) for text in run.warnings]
    num_skipped = sum(epoch.get("num_skipped") or 0 for epoch in run.epochs)
    if num_skipped:
        found.append(
            Notice("Damaged images.", f"{num_skipped:,} training images were replaced by others.")
        )
    waits = [step["data_wait_fraction"] for step in run.steps[-5:] if "data_wait_fraction" in step]
    if waits and sum(waits) / len(waits) > MUCH_WAITING:
        found.append(
            Notice(
                "The model waits for images.",
                f"{sum(waits) / len(waits):.0%} of the time lately. More decoding threads "
                "(data.num_workers), smaller stored images (write_imagenet.py --max_side) or a "
                "faster disk would shorten the run.",
            )
        )
    return found


def plots_of(run: Run) -> list[dict[str, Any]]:
    """Return the arguments of each plot of the page."""
    per_epoch = _steps_per_epoch(run)
    steps = [(step["step"] / per_epoch, step) for step in run.steps]
    middles = [(epoch["epoch"] - 0.5, epoch) for epoch in run.epochs]
    ends = [(float(epoch["epoch"]), epoch) for epoch in run.validated]

    def curve(
        label: str, records: Any, key: str, look: int = 0, factor: float = 1, **kind: bool
    ) -> Curve:
        values = ((x, r.get(key)) for x, r in records)
        return Curve(label, [(x, y if y is None else factor * y) for x, y in values], look, **kind)

    right = max([1.0, *(x for x, _ in steps), float(len(run.epochs))])
    resolutions = sorted({step["resolution"] for _, step in steps if "resolution" in step})
    plots: list[dict[str, Any]] = [
        {
            "title": "Loss",
            "curves": [
                curve("last updates", steps, "loss", is_faint=True),
                curve("training", middles, "train_loss"),
                curve("validation", ends, "loss", 1),
            ],
        },
        {
            "title": "Accuracy on validation",
            "unit": "%",
            "curves": [
                curve("top-1", ends, "top_1", 0, 100),
                curve("top-1, averaged weights", ends, "ema_top_1", 3, 100),
                curve("top-5", ends, "top_5", 2, 100),
            ],
        },
        {
            "title": "Learning rate",
            "from_zero": True,
            "curves": [curve("learning rate", steps, "learning_rate")],
        },
        {
            "title": "Resolution of training images",
            "unit": "px",
            "marks": resolutions if len(resolutions) < 9 else (),
            "curves": [curve("resolution", steps, "resolution", is_stepped=True)],
        },
        {
            "title": "Training speed",
            "from_zero": True,
            "unit": "images/s",
            "curves": [
                curve("last updates", steps, "images_per_s", is_faint=True),
                curve("mean of each epoch", middles, "images_per_s"),
            ],
        },
        {
            "title": "Waiting for data",
            "from_zero": True,
            "unit": "%",
            "curves": [
                curve("last updates", steps, "data_wait_fraction", 0, 100, is_faint=True),
                curve("mean of each epoch", middles, "data_wait_fraction", 0, 100),
            ],
        },
    ]
    optional: list[dict[str, Any]] = [
        {
            "title": "Model FLOPs utilization",
            "from_zero": True,
            "unit": "%",
            "curves": [curve("MFU", steps, "mfu", 0, 100)],
        },
        {
            "title": "Time of an update",
            "from_zero": True,
            "unit": "ms",
            "curves": [
                curve("median", steps, "step_p50_ms"),
                curve("95th percentile", steps, "step_p95_ms", 1),
            ],
        },
    ]
    plots += [
        each
        for each in optional
        if any(y is not None for each_curve in each["curves"] for _, y in each_curve.points)
    ]
    return [each | {"right": right} for each in plots]


def _steps_per_epoch(run: Run) -> float:
    """Count the updates of an epoch; infinitely many while a log does not tell."""
    if "steps_per_epoch" in run.start:
        return float(run.start["steps_per_epoch"])
    last = run.epochs[-1] if run.epochs else {"step": math.inf, "epoch": 1}
    return float(last["step"] / last["epoch"])


def _maybe(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
