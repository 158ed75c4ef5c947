"""What a run needs to go on: written whole or not at all, read without running any code in it.

`checkpoints/step_00001234.pt` is the state after so many updates; the newest few are kept, so that
there is another one when the newest turns out to be damaged. `best.pt` is the one with the highest
top-1.
"""

import contextlib
import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ffvit.errors import CheckpointError, ConfigError, check_option

# Raised when a checkpoint's content changes so that older files cannot be resumed.
FORMAT = 2

BEST = "best.pt"

# What a resumed run may change: where things are, how it is watched, and how an update is divided
# over processes; not what is computed.
_FREE = (
    "data.train_path",
    "data.val_path",
    "data.stage_dir",
    "data.num_workers",
    "data.on_error",
    "data.watchdog_s",
    "training.accumulation_steps",
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


class CheckpointFolder:
    """The checkpoints of one run.

    Attributes:
        damaged: What `load_latest` had to pass over: one line for each.
    """

    def __init__(self, run_folder: Path, keep: int) -> None:
        """Name the folder; nothing is read or written yet.

        Args:
            run_folder: Of the run; the checkpoints lie in `checkpoints` below it.
            keep: How many of the newest stay, at least 1.
        """
        check_option("run.keep", keep, "1 or more checkpoints", keep > 0)
        self.path = run_folder / "checkpoints"
        self.damaged: list[str] = []
        self._keep = keep

    def load_latest(self, resume: str, options: Options) -> dict[str, Any] | None:
        """Read the newest checkpoint that is whole, if there is any to go on from.

        Args:
            resume: auto, or never: then there must be none.
            options: The run's.

        Raises:
            CheckpointError: There are some, and none can be read.
            ConfigError: Another run's, or an unknown `resume`.
        """
        if resume not in ("auto", "never"):
            raise ConfigError(f"run.resume={resume}: expected auto or never.")
        paths = self._newest_first()
        if paths and resume == "never":
            raise ConfigError(
                f"run.resume=never expects an unused run folder, but {self.path.parent} holds a "
                "run; give another run.folder or remove it."
            )
        for path in paths:
            try:
                state = load_checkpoint(path)
            except CheckpointError as error:
                self.damaged.append(str(error))
                continue
            check_same_run(path, state["config"], options)
            return state
        if paths:
            raise CheckpointError(
                f"{self.path}: expected a checkpoint to go on from, but none of {len(paths)} can "
                f"be read (the newest: {self.damaged[0]}); restore one, or remove the folder to "
                "start anew."
            )
        return None

    def tidy(self, step: int) -> None:
        """Put away what lies beyond the step that a run goes on from, and half-written files.

        Damaged checkpoints are renamed, so that they do not count as the newest.

        Args:
            step: What `load_latest` returned; 0 for a new run.
        """
        for path in self.path.glob("*.tmp.*"):
            path.unlink()
        for path in self._newest_first():
            if path > self._path_of(step):
                path.replace(path.with_suffix(".damaged"))

    def save(self, state: dict[str, Any], is_best: bool = False) -> Path:
        """Write a checkpoint, and remove those that are no longer among the newest.

        Args:
            state: As of `save_checkpoint`; `step` names the file.
            is_best: Whether it also becomes `best.pt`.

        Returns:
            Its path.

        Raises:
            CheckpointError: It could not be written; the others are as before.
        """
        path, best = self._path_of(state["step"]), self.path / BEST
        if is_best:
            # In this order: a kill in between repeats the epoch, and never leaves an older best.
            save_checkpoint(best, state)
            _link(best, path)
        else:
            save_checkpoint(path, state)
        for old in self._newest_first()[self._keep :]:
            old.unlink()
        return path

    def _path_of(self, step: int) -> Path:
        return self.path / f"step_{step:08d}.pt"

    def _newest_first(self) -> list[Path]:
        return sorted(self.path.glob("step_????????.pt"), reverse=True)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; `path` is the old one or the new one at every moment.

    Args:
        path: Where to; its folder is made.
        state: Tensors, numbers, texts, and lists and dicts of them.

    Raises:
        CheckpointError: It could not be written.
    """
    temporary = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        reason = _write_error(error)
        if reason is None:
            raise
        raise CheckpointError(
            f"{path}: cannot write this checkpoint ({reason.strerror}); make room or give another "
            "run.folder, then give the same command again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Raises:
        CheckpointError: It is missing, damaged, or not one of ours.
    """
    try:
        _check_sums(path)
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
            f"{path}: this checkpoint cannot be read ({reason}); restore it or resume from another."
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: expected a checkpoint of this program (format {FORMAT}), got another file."
        )
    return state


def _check_sums(path: Path) -> None:
    """Compare the checksums that torch writes and does not look at."""
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"wrong checksum of {broken}")


def _write_error(error: BaseException | None) -> OSError | None:
    """Find what the system said: torch raises another error over it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _sync_folder(path: Path) -> None:
    """Make a rename last through a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(path: Path, target: Path) -> None:
    """Give a file a second name, in the place of another file and at once."""
    temporary = target.with_name(f"{target.name}.tmp.{os.getpid()}")
    try:
        try:
            temporary.hardlink_to(path)
        except OSError:  # a file system without links
            shutil.copyfile(path, temporary)
        temporary.replace(target)
    except OSError as error:
        raise CheckpointError(
            f"{target}: cannot write this checkpoint ({error.strerror}); {path} is whole."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
