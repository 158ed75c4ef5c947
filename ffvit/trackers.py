"""TensorBoard and Weights & Biases: a run's records, sent there too.

Both are optional packages; the run folder's own log needs neither. Each tracker is called with a
run and its records (`runlog.Watcher`), on the primary process.
"""

import importlib.util
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ffvit.errors import ConfigError, TrackerError, check_option
from ffvit.runlog import Run, Watcher

# What of a record is no figure.
_PLACES = ("kind", "epoch", "step")


class TensorBoard:
    """Writes event files into the run folder: `tensorboard --logdir runs`."""

    def __init__(self) -> None:
        """Wait for the run to start."""
        self._writer: Any = None

    def __call__(self, run: Run, record: Mapping[str, Any]) -> None:
        """Write the figures of one record.

        Raises:
            OSError: The files cannot be written; later records are not even tried.
        """
        # The package asks its users to import this name.
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  optional, and slow

        kind = record["kind"]
        if kind == "run":
            # Steps that a killed start wrote beyond its checkpoint come again.
            folder = run.folder / "tensorboard"
            self._writer = SummaryWriter(str(folder), purge_step=record["first_step"])
            self._writer.add_text("config", _as_markdown(run.config), record["first_step"] - 1)
        elif self._writer is not None:
            try:
                for name, value in figures(record).items():
                    self._writer.add_scalar(name, value, record["step"])
                if kind == "end":
                    self._writer.close()
                elif kind == "epoch":
                    self._writer.flush()
            except OSError as error:
                self._writer = None
                raise OSError(
                    error.errno, f"TensorBoard gets no more records ({error.strerror})"
                ) from None


class WeightsAndBiases:
    """Sends records to Weights & Biases, or with WANDB_MODE=offline into `RUN/wandb`."""

    def __init__(self) -> None:
        """Wait for the run to start."""
        self._run: Any = None

    def __call__(self, run: Run, record: Mapping[str, Any]) -> None:
        """Send the figures of one record; the package sends them on from a process of its own.

        Raises:
            TrackerError: The package cannot start.
        """
        import wandb  # noqa: PLC0415  optional, and slow

        kind = record["kind"]
        if kind == "run":
            try:
                self._run = wandb.init(
                    project=os.environ.get("WANDB_PROJECT", "ffvit"),
                    name=run.name,
                    id=_stored_id(run.folder / "wandb_id.txt"),
                    resume="allow",
                    dir=str(run.folder),
                    config={**run.config, "environment": run.environment},
                )
            except (wandb.errors.Error, OSError) as error:
                raise TrackerError(
                    f"run.trackers=wandb: Weights & Biases cannot start ({error}); run `wandb "
                    "login`, or set WANDB_MODE=offline, or leave it out."
                ) from None
        elif self._run is None:  # it could not start, which ends this run of ours
            return
        elif kind == "end":
            self._run.finish(exit_code=int(record["status"] == "failed"))
        elif values := figures(record):
            self._run.log(values, step=record["step"])


TRACKERS: dict[str, Callable[[], Watcher]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def check_trackers(trackers: str) -> None:
    """Check that each tracker is known and its package installed, before anything is built.

    Args:
        trackers: Names with commas between.

    Raises:
        ConfigError: Says which package to install.
    """
    for name in _names(trackers):
        check_option("run.trackers", trackers, ", ".join(TRACKERS), name in TRACKERS)
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"run.trackers={trackers}: expected the package {name}, which is not installed; "
                f"give `pip install {name}`, or leave it out."
            )


def create_trackers(trackers: str) -> list[Watcher]:
    """Create each tracker that `check_trackers` has checked."""
    return [TRACKERS[name]() for name in _names(trackers)]


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures of a step or an epoch under the names that trackers show."""
    groups = {"step": "train", "epoch": "epoch"}
    if record["kind"] not in groups:
        return {}
    group = groups[record["kind"]]
    return {
        f"{group}/{name}": value
        for name, value in record.items()
        if name not in _PLACES and isinstance(value, (int, float))
    }


def _names(trackers: str) -> list[str]:
    return [name.strip() for name in trackers.split(",") if name.strip()]


def _stored_id(path: Path) -> str:
    """Return the id under which a run goes on where it was stopped."""
    if not path.exists():
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def _as_markdown(config: Mapping[str, Any]) -> str:
    """Write a config as TensorBoard shows texts: code, not markup."""
    lines = [
        f"    {section}.{name}: {value}"
        for section, options in config.items()
        for name, value in options.items()
    ]
    return "\n".join(lines)
