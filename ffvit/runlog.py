"""The run folder, written and read: config, environment, log; and what a person sees meanwhile.

`log.jsonl` is the record and only grows; its epochs and steps count from 1. `log.csv` is the
epochs as a table, written anew after each. A run that was killed may leave half a line at the end:
readers skip it, and the next run in the folder removes it. torch is not needed to read a log.
"""

import contextlib
import csv
import dataclasses
import difflib
import importlib.metadata
import io
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

import yaml
from tqdm import tqdm

from ffvit.errors import UserError

LOG_NAME = "log.jsonl"
KINDS = ("run", "step", "epoch", "result")
PACKAGES = ("torch", "torchvision", "timm", "ffcv", "numba", "numpy", "torchmetrics")


class RunLog(contextlib.AbstractContextManager["RunLog"]):
    """Writes a run's folder on the primary process; on the others every call does nothing."""

    def __init__(
        self, folder: Path, file: TextIO | None, epochs: dict[int, dict[str, Any]]
    ) -> None:
        """Take over an open log; use `RunLog.open`."""
        self.folder = folder
        self._file = file
        self._epochs = epochs
        self._bar: tqdm | None = None

    @classmethod
    def open(
        cls, folder: Path, config: dict[str, Any], environment: dict[str, Any], is_primary: bool
    ) -> "RunLog":
        """Open a new folder, or one to go on with, whose log is kept and continued.

        `config.yaml` and `environment.json` are those of the latest start.

        Args:
            folder: Created if missing.
            config: Plain nested values, as of `config.to_dict`.
            environment: As of `describe_environment`.
            is_primary: Whether this process writes.

        Raises:
            UserError: The folder cannot be written, or its log is damaged.
        """
        if not is_primary:
            return cls(folder, None, {})
        log_path = folder / LOG_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
            _replace(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
            records = []
            if log_path.exists():
                records = read_log(folder)
                _remove_half_line(log_path)
            file = log_path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot write this run folder ({error.strerror}); choose another with"
                " --run.folder."
            ) from None
        return cls(folder, file, last_of_each_epoch(records))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the log. Whatever was recorded is in the file already."""
        if self._file is not None:
            self._file.close()

    def record(self, kind: Literal["run", "step", "epoch", "result"], **values: Any) -> None:
        """Append one line to `log.jsonl`; an epoch also goes to `log.csv`.

        Args:
            kind: What the record is about; becomes its first key.
            **values: Plain numbers, texts, lists and dicts, never tensors. Numbers that are not
                finite become null, as JSON has none.

        Raises:
            ValueError: An unknown kind.
            TypeError: A value that is not plain.
        """
        if kind not in KINDS:
            raise ValueError(f"a record is one of {', '.join(KINDS)}, not {kind!r}")
        if self._file is None:
            return
        record = {"kind": kind} | {name: _finite(value) for name, value in values.items()}
        # One write of a whole line: a kill leaves at most its beginning.
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        if kind == "epoch":
            self._epochs[record["epoch"]] = record
            _replace(self.folder / "log.csv", _to_csv(list(self._epochs.values())))

    def line(self, text: str) -> None:
        """Print one line on stderr, above the progress bar if there is one."""
        if self._file is None:
            return
        if self._bar is None:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        else:
            self._bar.write(text, file=sys.stderr)

    @contextlib.contextmanager
    def progress(self, title: str, total: int) -> Iterator["Progress"]:
        """Show the progress of one pass: a bar on a terminal, plain lines elsewhere.

        Args:
            title: What is going on, such as "epoch 3/16".
            total: Number of steps.
        """
        if self._file is not None and sys.stderr.isatty():
            self._bar = tqdm(
                total=total, desc=title, file=sys.stderr, leave=False, dynamic_ncols=True
            )
        try:
            yield Progress(self, self._bar, title, total)
        finally:
            if self._bar is not None:
                self._bar.close()
                self._bar = None


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder holds: the latest record of its start, and of each step and epoch."""

    name: str
    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    start: dict[str, Any]
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]

    @property
    def validated(self) -> list[dict[str, Any]]:
        """The epochs that ended with a validation."""
        return [epoch for epoch in self.epochs if epoch.get("top_1") is not None]

    @property
    def is_on_gpu(self) -> bool:
        """Whether the run used GPUs."""
        return bool(self.epochs[-1]["gpu_hours"] > 0)


class Progress:
    """Counts the steps of one pass and shows how they go."""

    def __init__(self, log: RunLog, bar: tqdm | None, title: str, total: int) -> None:
        """Start at step 0; use `RunLog.progress`."""
        self._log = log
        self._bar = bar
        self._title = title
        self._total = total
        self._step = 0

    def advance(self) -> None:
        """Count one step. Prints nothing, except on a bar."""
        self._step += 1
        if self._bar is not None:
            self._bar.update()

    def show(self, record: Mapping[str, Any]) -> None:
        """Show the figures of a step record: beside the bar, or as a line."""
        text = (
            f"{record['images_per_s']:,.0f} images/s  loss {record['loss']:.3f}"
            f"  lr {record['learning_rate']:.3g}  {record['resolution']} px"
        )
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        else:
            self._log.line(f"{self._title}  step {self._step}/{self._total}  {text}")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read all whole records of a run folder's `log.jsonl`, in the order they were written.

    Raises:
        UserError: No log there, or a line that is no record, other than half a line at the end.
    """
    path = folder / LOG_NAME
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise UserError(
            f"{path}: cannot read this log ({error.strerror}); give a folder that"
            " train_imagenet.py wrote."
        ) from None
    *lines, half_line = text.split("\n")
    if _parse(half_line) is not None:
        lines.append(half_line)
    records = [_parse(line) for line in lines]
    if None in records:
        raise UserError(
            f"{path}: line {records.index(None) + 1} is not a record of a run; mend or remove it."
        )
    return [record for record in records if record is not None]


def last_of_each_epoch(records: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Map each finished epoch to its last record, as a resumed run may repeat epochs."""
    return {record["epoch"]: record for record in records if record["kind"] == "epoch"}


def load_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: No such folder, a folder that is no run, a damaged file, or no finished epoch.
    """
    if not folder.is_dir():
        siblings = [p.name for p in folder.parent.glob("*") if (p / LOG_NAME).is_file()]
        near = difflib.get_close_matches(folder.name, siblings, n=1)
        hint = f"did you mean {folder.parent / near[0]}?" if near else "check the path."
        raise UserError(f"{folder}: no such run folder; {hint}")
    if not (folder / LOG_NAME).is_file():
        raise UserError(
            f"{folder}: expected a run folder, but there is no {LOG_NAME}; give a folder that"
            " train_imagenet.py wrote."
        )
    records = read_log(folder)
    epochs = list(last_of_each_epoch(records).values())
    if not epochs:
        raise UserError(f"{folder}: this run has no finished epoch yet; wait for its first.")
    starts = [record for record in records if record["kind"] == "run"]
    steps = {record["step"]: record for record in records if record["kind"] == "step"}
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{folder}: cannot read this run's config.yaml and environment.json ({error});"
            " restore them."
        ) from None
    return Run(
        name=folder.resolve().name,
        folder=folder,
        config=config,
        environment=environment,
        start=starts[-1] if starts else {},
        steps=[steps[step] for step in sorted(steps)],
        epochs=epochs,
    )


def describe_epoch(record: dict[str, Any]) -> str:
    """Say in one line how an epoch went."""
    averaged = f", averaged {record['ema_top_1']:.2%}" if "ema_top_1" in record else ""
    return (
        f"epoch {record['epoch']}: train loss {record['train_loss']:.3f}, top-1 "
        f"{record['top_1']:.2%}{averaged}, {record['images_per_s']:,.0f} images/s "
        f"at {record['resolution']} px"
    )


def describe_environment() -> dict[str, Any]:
    """Collect what a result depends on besides its config. The machine's name is left out.

    Returns:
        `git_commit` and `git_is_dirty` (None outside a checkout), `python`, `packages` (versions),
        `cuda` (of torch), `cpu`, `num_cpu_cores` (that this process may use), `gpus` (names),
        `gpu_power_limits_w` (None without nvidia-smi).
    """
    import torch  # noqa: PLC0415  reading a log must not need torch

    checkout = Path(__file__).parents[1]
    commit, status, limits = None, None, None
    if (checkout / ".git").exists():
        commit = _output_of("git", "-C", str(checkout), "rev-parse", "HEAD")
        status = _output_of("git", "-C", str(checkout), "status", "--porcelain", "-uno")
    num_gpus = torch.cuda.device_count()
    if num_gpus:
        limits = _output_of(
            "nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader,nounits"
        )
    return {
        "git_commit": commit,
        "git_is_dirty": None if status is None else bool(status),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "cpu": _cpu_model(),
        "num_cpu_cores": len(os.sched_getaffinity(0)),
        "gpus": [torch.cuda.get_device_name(index) for index in range(num_gpus)],
        "gpu_power_limits_w": None if limits is None else limits.splitlines(),
    }


def _output_of(*command: str) -> str | None:
    """Return a command's output, or None where it does not exist, fails or hangs."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _parse(line: str) -> dict[str, Any] | None:
    """Read one record; None if it is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.get("kind") in KINDS else None


def _remove_half_line(path: Path) -> None:
    """Cut what a kill left behind the last newline, or end a whole record that lacks its own."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if _parse(content[end:].decode("utf-8", errors="replace")) is not None:
        path.write_bytes(content + b"\n")
    elif end < len(content):
        os.truncate(path, end)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _to_csv(records: list[dict[str, Any]]) -> str:
    """Write records as CSV; the columns are all keys that occur, except `kind`."""
    columns = [key for key in dict.fromkeys(k for r in records for k in r) if key != "kind"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _replace(path: Path, text: str) -> None:
    """Write a small file so that a kill leaves the old one or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
