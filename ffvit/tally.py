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
from ffvit.timing import StepTimer, Stopwatch, step_percentiles


class EpochTally:
    """Adds up one epoch, over as many starts of the program as it takes.

    Attributes:
        epoch: From 0.
        num_updates: Done in this epoch.
    """

    def __init__(self, epoch: int, first_step: int, device: torch.device) -> None:
        """Begin an epoch.

        Args:
            epoch: From 0.
            first_step: Updates done before it.
            device: That updates are timed on.
        """
        self.epoch = epoch
        self.num_updates = 0
        self._first_step = first_step
        self._loss_sum = 0.0
        self._pending: list[torch.Tensor] = []
        self._total, self._lap = Stopwatch(), Stopwatch()
        self._timer = StepTimer(device)
        self._step_s: list[float] = []

    @property
    def num_pending(self) -> int:
        """Count the updates since the last look."""
        return len(self._pending)

    def start_clocks(self) -> None:
        """Let the time run on from now: what a process does before it trains is not counted."""
        self._total.start()
        self._lap.start()
        self._timer.start()

    def add(self, loss: torch.Tensor) -> None:
        """Count one update.

        Args:
            loss: () mean of this rank's images, on the device.
        """
        self._pending.append(loss)
        self._timer.mark()
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
            loss (mean over updates and ranks), images_per_s, data_wait_fraction, and of this rank
            step_p50_ms, step_p95_ms, step_max_ms.

        Raises:
            DivergenceError: One is not finite; raised in all ranks.
        """
        losses = self._fetch(ranks)
        self._pending.clear()
        loss = sum(losses) / len(losses)
        self._loss_sum += loss * len(losses)
        rates = self._lap.rates(len(losses) * images_per_update)
        self._lap = Stopwatch()
        self._lap.start()
        return {"loss": loss, **rates, **step_percentiles(self._step_s[-len(losses) :])}

    def images_per_s(self, images_per_update: int) -> float:
        """Return the mean rate of the epoch so far."""
        return self._total.rates(self.num_updates * images_per_update)["images_per_s"]

    def result(self, images_per_update: int) -> dict[str, float]:
        """Stop the clock and sum up an epoch whose last update was looked at.

        Returns:
            train_loss, images_per_s, data_wait_fraction, step_p50_ms, step_p95_ms, step_max_ms,
            train_s.
        """
        self._total.stop()
        return {
            "train_loss": self._loss_sum / max(1, self.num_updates),
            **self._total.rates(self.num_updates * images_per_update),
            **step_percentiles(self._step_s),
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
            "step_s": list(self._step_s),
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from a `state_dict`, on any number of ranks."""
        self.epoch, self.num_updates = state["epoch"], state["num_updates"]
        self._first_step, self._loss_sum = state["first_step"], state["loss_sum"]
        # Each rank takes the ranks' mean for its own: their mean is the same again.
        self._pending = [torch.tensor(loss, device=device) for loss in state["pending"]]
        self._total, self._lap = Stopwatch(**state["total"]), Stopwatch(**state["lap"])
        self._step_s = list(state.get("step_s", ()))  # checkpoints of before do not hold them

    def _fetch(self, ranks: Ranks) -> list[float]:
        """Fetch the pending losses, each averaged over the ranks, and how long updates took."""
        losses: list[float] = (ranks.sum(torch.stack(self._pending)) / ranks.world_size).tolist()
        self._step_s += self._timer.take()  # all of them are over: the losses have arrived
        first = self._first_step + self.num_updates - len(losses) + 1
        for step, loss in enumerate(losses, start=first):
            if not abs(loss) < float("inf"):
                raise DivergenceError(
                    f"expected a finite loss, got {loss} in step {step} (epoch "
                    f"{self.epoch + 1}); lower lr.lr, lengthen lr.warmup_epochs or set "
                    "training.clip_grad."
                )
        return losses
