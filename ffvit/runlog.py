"""The run folder, written and read: config, environment, log; and what a person sees meanwhile.

`log.jsonl` is the record; its epochs and steps count from 1. `log.csv` is the epochs as a table,
written anew after each. A run that was killed may leave half a line at the end, which readers skip,
and records of work that no checkpoint holds: the next run in the folder removes both, so that each
step and epoch stands there once. torch is not needed to read a log.
"""

import contextlib
import csv
import dataclasses
import difflib
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import yaml
from tqdm import tqdm

from ffvit.errors import UserError
from ffvit.progress import BAR_FORMAT, Progress

LOG_NAME = "log.jsonl"
KINDS = ("run", "step", "epoch", "warning", "end")


class RunLog(contextlib.AbstractContextManager["RunLog"]):
    """Writes a run's folder on the primary process; on the others every call does nothing."""

    def __init__(
        self, run: "Run", file: io.FileIO | None, watchers: Sequence["Watcher"] = ()
    ) -> None:
        """Take over an open log; use `RunLog.open`."""
        self.folder = run.folder
        self._run = run
        self._file = file
        self._watchers = watchers
        self._unwritten = b""
        self._is_table_old = False
        self._complaints: set[str] = set()
        self._bar: tqdm | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        config: dict[str, Any],
        environment: dict[str, Any],
        is_primary: bool,
        epochs_done: int = 0,
        steps_done: int = 0,
        watchers: Sequence["Watcher"] = (),
    ) -> "RunLog":
        """Open a new folder, or one to go on with, whose log is kept up to there and continued.

        `config.yaml` and `environment.json` are those of the latest start.

        Args:
            folder: Created if missing.
            config: Plain nested values, as of `config.to_dict`.
            environment: As of `describe_environment`.
            is_primary: Whether this process writes.
            epochs_done: Records of later epochs are removed: they will be done again.
            steps_done: Records of later steps, too.
            watchers: Each is called with the run and a record, after that was written; the last
                one is of kind "end". What an `OSError` of theirs says becomes a warning.

        Raises:
            UserError: The folder cannot be written, or its log is damaged.
        """
        if not is_primary:
            return cls(_run_of(folder, config, environment, []), None)
        log_path = folder / LOG_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
            _replace(folder / "environment.json", json.dumps(environment, indent=2) + "\n")
            records = read_log(folder) if log_path.exists() else []
            done = {"epoch": epochs_done, "step": steps_done}
            records = [
                r for r in records if r["kind"] not in done or r[r["kind"]] <= done[r["kind"]]
            ]
            _replace(log_path, "".join(json.dumps(record) + "\n" for record in records))
            # Unbuffered: a kill leaves at most the beginning of a line, and only at the end.
            file = log_path.open("ab", buffering=0)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot write this run folder ({error.strerror}); choose another with"
                " --run.folder."
            ) from None
        return cls(_run_of(folder, config, environment, records), file, watchers)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Record how the run ended, and close the log. All is in the file already, on a good disk.

        Raises:
            UserError: It still is.
        """
        if self._file is not None:
            try:
                self.record("end", **_how_it_ended(exc))
                is_written = self._write_on()
            finally:
                self._file.close()
            if not is_written and exc is None:
                raise UserError(
                    f"{self.folder / LOG_NAME}: expected room for the last records of this run, "
                    "and the disk is full; make room, then give the same command again."
                )

    def record(
        self, kind: Literal["run", "step", "epoch", "warning", "end"], **values: Any
    ) -> None:
        """Append one line to `log.jsonl`, and tell the watchers; an epoch also goes to `log.csv`.

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
        self._unwritten += json.dumps(record, allow_nan=False).encode() + b"\n"
        self._run.records.append(record)
        self._is_table_old |= kind == "epoch"
        self._write_on()
        for watcher in self._watchers:
            self._tell(watcher, record)

    def _tell(self, watcher: "Watcher", record: dict[str, Any]) -> None:
        try:
            watcher(self._run, record)
        except OSError as error:
            place = "" if error.filename is None else f"{error.filename}: "
            text = f"WARNING: {place}{error.strerror or error}"
            if text not in self._complaints:  # once: a full disk stays full
                self._complaints.add(text)
                self.line(text)

    def _write_on(self) -> bool:
        """Write what is left to write; on a full disk say so, and keep it for the next time."""
        try:
            while self._unwritten and self._file is not None:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
            if self._is_table_old:
                _replace(self.folder / "log.csv", _to_csv(self._run.epochs))
                self._is_table_old = False
        except OSError as error:
            self.line(
                f"WARNING: {self.folder / LOG_NAME}: cannot be written ({error.strerror}); "
                f"{self._unwritten.count(10)} records wait for room."
            )
        return not self._unwritten and not self._is_table_old

    def add_warning(self, text: str) -> None:
        """Print a warning, and keep it in the log."""
        self.line(f"WARNING: {text}")
        self.record("warning", text=text)

    def line(self, text: str) -> None:
        """Print one line on stderr, above the progress bar if there is one.

        Where stderr is a file on a full disk the line is lost, and the run goes on.
        """
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            if self._bar is None:
                sys.stderr.write(text + "\n")
                sys.stderr.flush()
            else:
                self._bar.write(text, file=sys.stderr)

    @contextlib.contextmanager
    def progress(self, title: str, total: int, num_done: int = 0) -> Iterator[Progress]:
        """Show the progress of one pass: a bar on a terminal, plain lines elsewhere.

        Args:
            title: What is going on, such as "epoch 3/16".
            total: Number of steps.
            num_done: Steps that were done before.
        """
        if self._file is not None and sys.stderr.isatty():
            self._bar = tqdm(
                total=total,
                initial=num_done,
                desc=title,
                bar_format=BAR_FORMAT,
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
            )
        try:
            yield Progress(self.line, self._bar, title, total, num_done)
        finally:
            if self._bar is not None:
                self._bar.close()
                self._bar = None


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder holds; `records` are those of all its starts, in order."""

    name: str
    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def start(self) -> dict[str, Any]:
        """The record of the latest start; empty if there is none."""
        starts = self._of_kind("run")
        return starts[-1] if starts else {}

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The figures of every log interval."""
        return self._of_kind("step")

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The figures of every finished epoch."""
        return self._of_kind("epoch")

    @property
    def warnings(self) -> list[str]:
        """What went wrong without ending the run."""
        return [record["text"] for record in self._of_kind("warning")]

    @property
    def end(self) -> dict[str, Any] | None:
        """`status` (finished, stopped or failed) and `reason`; None while the run goes on.

        It is None, too, where the latest start was killed.
        """
        last = [record for record in self.records if record["kind"] in ("run", "end")][-1:]
        return last[0] if last and last[0]["kind"] == "end" else None

    @property
    def validated(self) -> list[dict[str, Any]]:
        """The epochs that ended with a validation."""
        return [epoch for epoch in self.epochs if epoch.get("top_1") is not None]

    @property
    def is_on_gpu(self) -> bool:
        """Whether the run used GPUs."""
        return any(epoch["gpu_hours"] > 0 for epoch in self.epochs)

    def _of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == kind]


Watcher: TypeAlias = Callable[[Run, dict[str, Any]], None]


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
    if not any(record["kind"] == "epoch" for record in records):
        raise UserError(f"{folder}: this run has no finished epoch yet; wait for its first.")
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(
            f"{folder}: cannot read this run's config.yaml and environment.json ({error});"
            " restore them."
        ) from None
    return _run_of(folder, config, environment, records)


def describe_epoch(record: dict[str, Any]) -> str:
    """Say in one line how an epoch went."""
    averaged = f", averaged {record['ema_top_1']:.2%}" if "ema_top_1" in record else ""
    num_skipped = record["num_skipped"]
    skipped = f", {num_skipped:,} damaged images replaced by others" if num_skipped else ""
    return (
        f"epoch {record['epoch']}: train loss {record['train_loss']:.3f}, top-1 "
        f"{record['top_1']:.2%}{averaged}, {record['images_per_s']:,.0f} images/s "
        f"at {record['resolution']} px{skipped}"
    )


def _run_of(
    folder: Path,
    config: dict[str, Any],
    environment: dict[str, Any],
    records: list[dict[str, Any]],
) -> Run:
    return Run(folder.resolve().name, folder, config, environment, records)


def _how_it_ended(error: BaseException | None) -> dict[str, str]:
    """Say what an exception that leaves the run means for it."""
    if error is None:
        return {"status": "finished", "reason": ""}
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return {"status": "stopped", "reason": "told to stop; the same command goes on"}
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return {"status": "failed", "reason": text}


def _parse(line: str) -> dict[str, Any] | None:
    """Read one record; None if it is none."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.get("kind") in KINDS else None


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
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
