"""What an epoch of training has measured so far: losses and times, in a checkpoint too.

Losses stay on the device, one number per update, until `look` fetches them together.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ffvit.distributed import Ranks
from ffvit.errors import DivergenceError


class EpochTally:
    """Adds up one epoch, over as many starts of the program as it takes.

    Attributes:
        epoch: From 0.
        num_updates: Done in this epoch.
    """

    def __init__(self, epoch: int, first_step: int) -> None:
        """Begin an epoch.

        Args:
            epoch: From 0.
            first_step: Updates done before it.
        """
        self.epoch = epoch
        self.num_updates = 0
        self._first_step = first_step
        self._loss_sum = 0.0
        self._pending: list[torch.Tensor] = []
        self._total, self._lap = _Stopwatch(), _Stopwatch()

    @property
    def num_pending(self) -> int:
        """Count the updates since the last look."""
        return len(self._pending)

    def start_clocks(self) -> None:
        """Let the time run on from now: what a process does before it trains is not counted."""
        self._total.start()
        self._lap.start()

    def add(self, loss: torch.Tensor) -> None:
        """Count one update.

        Args:
            loss: () mean of this rank's images, on the device.
        """
        self._pending.append(loss)
        self.num_updates += 1

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        begin = time.perf_counter()
        yield
        waited = time.perf_counter() - begin
        self._total.waited_s += waited
        self._lap.waited_s += waited

    def look(self, ranks: Ranks, images_per_update: int) -> dict[str, float]:
        """Fetch the losses since the last look, and begin a new lap. All ranks call it together.

        Returns:
            loss (mean over updates and ranks), images_per_s, data_wait_fraction.

        Raises:
            DivergenceError: One is not finite; raised in all ranks.
        """
        losses = self._fetch(ranks)
        self._pending.clear()
        loss = sum(losses) / len(losses)
        self._loss_sum += loss * len(losses)
        rates = self._lap.rates(len(losses) * images_per_update)
        self._lap = _Stopwatch()
        self._lap.start()
        return {"loss": loss, **rates}

    def result(self, images_per_update: int) -> dict[str, float]:
        """Stop the clock and sum up an epoch whose last update was looked at.

        Returns:
            train_loss, images_per_s, data_wait_fraction, train_s.
        """
        self._total.stop()
        return {
            "train_loss": self._loss_sum / max(1, self.num_updates),
            **self._total.rates(self.num_updates * images_per_update),
            "train_s": self._total.elapsed_s(),
        }

    def state_dict(self, ranks: Ranks) -> dict[str, Any]:
        """Return what `load_state_dict` needs, the same in all ranks, which call it together.

        Raises:
            DivergenceError: A loss is not finite: a checkpoint would be of no use.
        """
        return {
            "epoch": self.epoch,
            "first_step": self._first_step,
            "num_updates": self.num_updates,
            "loss_sum": self._loss_sum,
            "pending": self._fetch(ranks) if self._pending else [],
            "total": self._total.state_dict(),
            "lap": self._lap.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a `state_dict`, on any number of ranks."""
        self.epoch, self.num_updates = state["epoch"], state["num_updates"]
        self._first_step, self._loss_sum = state["first_step"], state["loss_sum"]
        # Each rank takes the ranks' mean for its own: their mean is the same again.
        self._pending = [torch.tensor(loss, device=device) for loss in state["pending"]]
        self._total, self._lap = _Stopwatch(**state["total"]), _Stopwatch(**state["lap"])

    def _fetch(self, ranks: Ranks) -> list[float]:
        """Fetch the pending losses, each averaged over the ranks."""
        losses: list[float] = (ranks.sum(torch.stack(self._pending)) / ranks.world_size).tolist()
        first = self._first_step + self.num_updates - len(losses) + 1
        for step, loss in enumerate(losses, start=first):
            if not abs(loss) < float("inf"):
                raise DivergenceError(
                    f"expected a finite loss, got {loss} in step {step} (epoch "
                    f"{self.epoch + 1}); lower lr.lr, lengthen lr.warmup_epochs or set "
                    "training.clip_grad."
                )
        return losses


class _Stopwatch:
    """Splits wall time into waiting for data and the rest."""

    def __init__(self, elapsed_s: float = 0.0, waited_s: float = 0.0) -> None:
        self.waited_s = waited_s
        self._before_s = elapsed_s
        self._begin: float | None = None

    def start(self) -> None:
        self._begin = time.perf_counter()

    def stop(self) -> None:
        self._before_s, self._begin = self.elapsed_s(), None

    def elapsed_s(self) -> float:
        running = 0.0 if self._begin is None else time.perf_counter() - self._begin
        return self._before_s + running

    def rates(self, num_images: int) -> dict[str, float]:
        elapsed_s = self.elapsed_s()
        return {
            "images_per_s": num_images / elapsed_s,
            "data_wait_fraction": self.waited_s / elapsed_s,
        }

    def state_dict(self) -> dict[str, float]:
        return {"elapsed_s": self.elapsed_s(), "waited_s": self.waited_s}
