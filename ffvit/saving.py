"""When a run is saved: in all ranks after the same update, by steps, by minutes, or by a signal."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from ffvit.checkpoint import CheckpointFolder
from ffvit.distributed import Ranks, Vote
from ffvit.errors import CheckpointError, check_option
from ffvit.options import RunSection
from ffvit.runlog import RunLog
from ffvit.trainer import Trainer

# Status of a run that saved because it was told to stop, and wants to be started again: sysexits'
# "temporary failure".
EXIT_PREEMPTED = os.EX_TEMPFAIL

# What schedulers send before they take a machine away, and what torchrun passes on.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

# Votes; the largest wins.
GO_ON, SAVE, STOP = range(3)


class Saver:
    """Saves a run whenever it is due; rank 0 writes.

    A checkpoint that cannot be written is a warning, as training may outlast a full disk; the last
    one of a run, and one before it stops, is an error.

    Args:
        checkpoints: Where to.
        section: How often.
        ranks: This process among the others.
        log: Shows warnings.
        trainer: Has the weights, and all else that decides them.
        identity: What a run must agree with to go on from here.
        progress: `epoch` (epochs finished), `best_top_1`, kept by the caller; `elapsed_s`.
    """

    def __init__(
        self,
        checkpoints: CheckpointFolder,
        section: RunSection,
        ranks: Ranks,
        log: RunLog,
        trainer: Trainer,
        identity: Mapping[str, Mapping[str, Any]],
        progress: dict[str, Any],
    ) -> None:
        self._is_told_to_stop = False
        self._checkpoints = checkpoints
        self._section = section
        self._ranks = ranks
        self._log = log
        self._trainer = trainer
        self._identity = identity
        self._progress = progress
        self._begin: float = time.perf_counter() - progress["elapsed_s"]
        self._vote = Vote(ranks)
        self._last_time = time.monotonic()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note signals to stop instead of dying of them; a second one changes nothing."""
        if self._ranks.is_primary:
            self._checkpoints.tidy(self._trainer.step)
        previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        self._last_time = time.monotonic()
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        self._vote.finish()

    def elapsed_s(self) -> float:
        """Time that the run took until now, over all its starts, as far as its work was kept."""
        return time.perf_counter() - self._begin

    def after_update(self) -> None:
        """Save if it is due.

        Raises:
            SystemExit: A process was told to stop, and the run is saved; in all ranks.
            CheckpointError: It could not be.
        """
        decision = self._vote.cast(self._wish())
        every = self._section.checkpoint_steps
        if decision == STOP:
            self._save_and_stop()
        elif decision == SAVE or (every and self._trainer.step % every == 0):
            self.save()

    def after_batch(self) -> None:
        """Save and stop if a process was told to; the evaluation will be done again.

        Raises:
            SystemExit: As in `after_update`.
            CheckpointError: As in `after_update`.
        """
        if self._vote.cast(self._wish()) == STOP:
            self._save_and_stop()

    def save(self, is_best: bool = False, must_succeed: bool = False) -> None:
        """Save now. All ranks call it together, though only rank 0 writes.

        Args:
            is_best: Whether this has the highest top-1 so far.
            must_succeed: Whether training ends here.

        Raises:
            CheckpointError: It could not be written, and must be.
        """
        self._progress["elapsed_s"] = self.elapsed_s()
        state = {
            "progress": self._progress,
            "config": self._identity,
            **self._trainer.state_dict(),
        }
        self._last_time = time.monotonic()
        if not self._ranks.is_primary:
            return
        try:
            self._checkpoints.save(state, is_best)
        except CheckpointError as error:
            if must_succeed:
                raise
            self._log.add_warning(f"{error} Training goes on without it.")

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._is_told_to_stop = True

    def _wish(self) -> int:
        if self._is_told_to_stop:
            return STOP
        minutes = self._section.checkpoint_minutes
        is_time = time.monotonic() - self._last_time >= 60 * minutes
        return SAVE if minutes and is_time and self._ranks.is_primary else GO_ON

    def _save_and_stop(self) -> None:
        self.save(must_succeed=True)
        self._vote.finish()
        # A rank that leaves while rank 0 still writes would be a failure to torchrun.
        self._ranks.wait_for_all()
        self._log.line(
            f"{self._checkpoints.path.parent}: told to stop, saved; the same command goes on "
            f"from here (exit status {EXIT_PREEMPTED})."
        )
        raise SystemExit(EXIT_PREEMPTED)


def check_saving(section: RunSection) -> None:
    """Check the options of this file.

    Raises:
        ConfigError: One is out of its range.
    """
    minutes, steps = section.checkpoint_minutes, section.checkpoint_steps
    check_option("run.checkpoint_minutes", minutes, "0 or more minutes", minutes >= 0)
    check_option("run.checkpoint_steps", steps, "0 or more updates", steps >= 0)
