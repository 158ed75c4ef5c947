"""What a run needs to go on: written whole or not at all, read without running any code in it."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ffvit.errors import CheckpointError, ConfigError

# Raised when a checkpoint's content changes so that older files cannot be resumed.
FORMAT = 1

LATEST = "latest.pt"
BEST = "best.pt"

# What a resumed run may change: where things are and how it is watched, not what is computed.
_FREE = (
    "data.train_path",
    "data.val_path",
    "data.num_workers",
    "validation.batch_size",
    "run.",
)

Options = Mapping[str, Mapping[str, Any]]


def check_same_run(path: Path, saved: Options, current: Options) -> None:
    """Check that a checkpoint's options are those of the run that wants to go on from it.

    Raises:
        ConfigError: An option that decides the weights differs.
    """
    for section, options in current.items():
        for name, value in options.items():
            full = f"{section}.{name}"
            before = saved.get(section, {}).get(name)
            if before != value and not full.startswith(_FREE):
                raise ConfigError(
                    f"{path}: this run began with {full}={before!r}, and now {full}={value!r}; "
                    "keep the option, or start anew with another run.folder."
                )


def load_latest(folder: Path, resume: str, options: Options) -> dict[str, Any] | None:
    """Read a run folder's latest checkpoint, if there is one to go on from.

    Args:
        folder: The run folder.
        resume: auto, or never: then there must be none.
        options: The run's.

    Raises:
        CheckpointError: It cannot be read.
        ConfigError: Another run's, or an unknown `resume`.
    """
    if resume not in ("auto", "never"):
        raise ConfigError(f"run.resume={resume}: expected auto or never.")
    path = folder / "checkpoints" / LATEST
    if not path.exists():
        return None
    if resume == "never":
        raise ConfigError(
            f"run.resume=never expects an unused run folder, but {folder} holds a run; give "
            "another run.folder or remove it."
        )
    state = load_checkpoint(path)
    check_same_run(path, state["config"], options)
    return state


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; `path` is the old one or the new one at every moment.

    Args:
        path: Where to; its folder is made.
        state: Tensors, numbers, texts, and lists and dicts of them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Raises:
        CheckpointError: It is missing, damaged, or not one of ours.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: expected a checkpoint, found none; check the path."
        ) from None
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path}: this checkpoint cannot be read ({reason}); delete it and resume from another."
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: expected a checkpoint of this program (format {FORMAT}), got another file."
        )
    return state
