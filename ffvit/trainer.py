"""The training loop: one epoch of updates, one pass of evaluation, and the state to go on from.

Losses, and whether they are finite, stay on the device until a log line is due. Besides, the host
waits for a GPU only so as not to run further ahead of it than two micro-batches.
"""

import contextlib
import functools
import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from ffvit.compilation import compile_model, warm_up
from ffvit.distributed import Ranks
from ffvit.errors import DivergenceError, check_option
from ffvit.memory import used_gib
from ffvit.metrics import Evaluation
from ffvit.models import logits_of, set_resolution
from ffvit.options import TrainingSection
from ffvit.runlog import RunLog
from ffvit.tally import EpochTally
from ffvit.workload import Workload

MICRO_BATCHES_AHEAD = 2
# Keys of an optimizer's parameter groups.
_IMPLEMENTATION = ("fused", "foreach", "capturable")


class Batches(Protocol):
    """What the trainer needs of a loader: (images, labels) of each batch, and `resolution`."""

    @property
    def resolution(self) -> int:
        """Side of the images, pixels."""

    def __len__(self) -> int:
        """Count the batches of a whole pass, also where one goes on in the middle."""

    def __iter__(self) -> Any: ...


class Trainer:
    """Trains and evaluates one model on one rank.

    Args:
        model: The network, on its device. Compiled and wrapped here; its state dict stays plain.
        optimizer: Of the model's parameters.
        section: The training options.
        ranks: This process among the others.
        num_classes: Of the model's head.
        prepare: (B, H, W, 3) uint8 images -> what the model takes, in evaluation.
        augment: A training batch and its epoch -> what the model takes, and (B,) labels or
            (B, num_classes) shares of each class.
        learning_rate: Step -> learning rate.
        log: Gets a record at every log interval, and shows the progress.
        log_interval: Updates between two looks at the loss.
        num_resolutions: Distinct sizes of images that will come: graphs that may be compiled.
        workload: What the run computes; without it neither MFU nor the time left is logged.
        stage: Is entered around each part of an update with its name, which a profiler shows.

    Attributes:
        model: The plain network.
        ema: Its averaged weights, or None.
        step: Updates done since the start of the run.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        section: TrainingSection,
        ranks: Ranks,
        num_classes: int,
        prepare: Callable[[torch.Tensor], torch.Tensor],
        augment: Callable[[Any, int], tuple[torch.Tensor, torch.Tensor]],
        learning_rate: Callable[[int], float],
        log: RunLog,
        log_interval: int,
        num_resolutions: int = 1,
        workload: Workload | None = None,
        stage: Callable[[str], contextlib.AbstractContextManager[Any]] = record_function,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.step = 0
        self._tally = EpochTally(epoch=0, first_step=0, device=ranks.device)
        self._peak_memory_gib = 0.0
        self.ema = ModelEmaV3(model, decay=section.ema_decay) if section.ema_decay > 0 else None
        self._done: deque[torch.cuda.Event] = deque()
        self._section = section
        self._ranks = ranks
        self._num_classes = num_classes
        self._prepare = prepare
        self._augment = augment
        self._learning_rate = learning_rate
        self._log = log
        self._log_interval = log_interval
        self._workload = workload
        self._stage = stage
        self._inner = compile_model(model, num_resolutions) if section.compile else model
        self._compiled: set[int] = set()
        self._outer = self._inner
        if ranks.world_size > 1:
            device_ids = [ranks.device] if ranks.device.type == "cuda" else None
            # Not static_graph: it fails where the first backward pass is without sync.
            self._outer = DistributedDataParallel(
                self._inner, device_ids=device_ids, gradient_as_bucket_view=True
            )

    def updates_done(self, epoch: int) -> int:
        """Count the updates of an epoch that were done already, before the program was stopped."""
        return self._tally.num_updates if self._tally.epoch == epoch else 0

    def train_epoch(
        self, batches: Batches, epoch: int, after_update: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Do the updates of one epoch, or what is left of them.

        Args:
            batches: `accumulation_steps` batches per update, from the first that is not done.
            epoch: From 0; counted from 1 in records and messages.
            after_update: Called after each; may save the state, and may leave by an exception.

        Returns:
            train_loss, learning_rate, and how fast it went (docs/profiling.md): images_per_s,
            data_wait_fraction, step_p50_ms, step_p95_ms, step_max_ms, train_s, peak_memory_gib,
            mfu.

        Raises:
            DivergenceError: A loss was not finite.
        """
        if self._tally.epoch != epoch:
            self._tally = EpochTally(epoch, self.step, self._ranks.device)
        tally = self._tally
        num_updates = len(batches) // self._section.accumulation_steps
        global_batch_size = self._section.global_batch_size
        set_resolution(self.model, batches.resolution)
        self._outer.train()
        self._compile(batches.resolution)
        title = f"epoch {epoch + 1}/{self._section.epochs}"
        with (
            contextlib.closing(iter(batches)) as source,
            self._log.progress(title, num_updates, tally.num_updates) as progress,
        ):
            tally.start_clocks()
            while tally.num_updates < num_updates:
                learning_rate = self._learning_rate(self.step)
                for group in self._groups:
                    group["lr"] = learning_rate
                tally.add(self._update(source))
                self.step += 1
                progress.advance()
                is_last = tally.num_updates == num_updates
                if tally.num_pending >= self._log_interval or is_last:
                    record: dict[str, Any] = tally.look(self._ranks, global_batch_size)
                    record |= {"learning_rate": learning_rate, "resolution": batches.resolution}
                    record |= self._use(record["images_per_s"], batches.resolution)
                    record |= self._time_left(batches.resolution)
                    self._log.record("step", epoch=epoch + 1, step=self.step, **record)
                    progress.show(record)
                after_update()
        result: dict[str, Any] = tally.result(global_batch_size)
        result |= self._use(result["images_per_s"], batches.resolution)
        return result | {"learning_rate": self._learning_rate(self.step - 1)}

    def _compile(self, resolution: int) -> None:
        """Compile the training graph of a new resolution, before the epoch's clocks run."""
        if not self._section.compile or resolution in self._compiled:
            return
        self._compiled.add(resolution)
        batch_size = self._ranks.micro_batch_size(
            self._section.global_batch_size, self._section.accumulation_steps
        )
        shape = (batch_size, resolution, resolution, 3)
        images = torch.zeros(shape, dtype=torch.uint8, device=self._ranks.device)
        seconds = warm_up(self._outer, self._prepare(images), self._autocast())
        self._log.line(f"compiled for {resolution} px in {seconds:.0f} s")

    def _use(self, images_per_s: float, resolution: int) -> dict[str, float | None]:
        """Say how much of the device is used; without a workload, only of its memory."""
        self._peak_memory_gib = max(self._peak_memory_gib, used_gib(self._ranks.device))
        use: dict[str, float | None] = {"peak_memory_gib": self._peak_memory_gib}
        if self._workload is not None:
            use["mfu"] = self._workload.mfu(images_per_s, resolution)
        return use

    def _time_left(self, resolution: int) -> dict[str, float]:
        """Estimate how long the run still takes, from the mean rate of this epoch."""
        if self._workload is None:
            return {}
        tally, global_batch_size = self._tally, self._section.global_batch_size
        num_images = tally.num_updates * global_batch_size
        rate = tally.images_per_s(global_batch_size)
        left_s = self._workload.time_left_s(tally.epoch, num_images, rate, resolution)
        return {"time_left_s": left_s}

    def _update(self, source: Iterable[Any]) -> torch.Tensor:
        """Do one optimizer update; return the mean loss of this rank, on the device."""
        section = self._section
        # Anew for each update: a run can go on after any of them, and no generator need be saved.
        seed_torch(section.seed, self.step, self._ranks.rank)
        total = torch.zeros((), device=self._ranks.device)
        for micro in range(section.accumulation_steps):
            self._pace()
            with self._stage("wait for data"), self._tally.waiting():
                batch = next(source)  # type: ignore[call-overload]
            is_last = micro == section.accumulation_steps - 1
            with self._without_sync(is_last):
                with self._stage("augment"), self._autocast():
                    inputs, targets = self._augment(batch, self._tally.epoch)
                with self._stage("forward"):
                    with self._autocast():
                        logits = self._outer(inputs)
                    loss = F.cross_entropy(
                        logits.float(), targets, label_smoothing=section.label_smoothing
                    )
                    loss = loss / section.accumulation_steps
                with self._stage("backward"):
                    loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            self._mark()
        with self._stage("optimizer"):
            if section.clip_grad > 0:
                nn.utils.clip_grad_norm_(self.model.parameters(), section.clip_grad)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            if self.ema is not None:
                self.ema.update(self.model)
        return total

    def evaluate(
        self,
        batches: Batches,
        num_samples: int,
        flip_average: bool,
        after_batch: Callable[[], None] = lambda: None,
    ) -> dict[str, float | int]:
        """Measure the model on every validation image, over all ranks.

        Args:
            batches: This rank's share of the images.
            num_samples: What all shares together must hold.
            flip_average: Average the logits of each image and its mirror image.
            after_batch: Called equally often in all ranks; may save the state, and may leave by
                an exception: nothing that is saved changes here.

        Returns:
            top_1, top_5, loss, num_samples, and validation_s; of the averaged weights, if there
            are any, ema_top_1, ema_top_5 and ema_loss.
        """
        begin = time.perf_counter()
        measure = functools.partial(
            self._measure,
            batches=batches,
            num_samples=num_samples,
            flip_average=flip_average,
            after_batch=after_batch,
        )
        record = measure(self.model, self._inner)
        if self.ema is not None:
            result = measure(self.ema.module, self.ema.module)
            record |= {f"ema_{name}": result[name] for name in ("top_1", "top_5", "loss")}
        return record | {"validation_s": time.perf_counter() - begin}

    @torch.no_grad()
    def _measure(
        self,
        model: nn.Module,
        network: nn.Module,
        batches: Batches,
        num_samples: int,
        flip_average: bool,
        after_batch: Callable[[], None],
    ) -> dict[str, float | int]:
        """Evaluate one set of weights; `network` is `model` or its compiled form."""
        set_resolution(model, batches.resolution)
        self._ranks.share_buffers(model)
        network.eval()
        evaluation = Evaluation(self._num_classes, self._ranks.device)
        # Shares differ by an image, so numbers of batches may differ by one.
        num_turns = self._ranks.max(len(batches))
        with contextlib.closing(iter(batches)) as source:
            for _, batch in zip_longest(range(num_turns), source):
                if batch is not None:
                    images, labels = batch[:2]
                    with self._autocast():
                        inputs = self._prepare(images)
                        logits = logits_of(network, inputs, flip_average)
                    evaluation.update(logits, labels)
                after_batch()
        result = evaluation.compute()
        if result["num_samples"] != num_samples:
            raise RuntimeError(f"evaluated {result['num_samples']} images of {num_samples}")
        if not abs(result["loss"]) < float("inf"):
            raise DivergenceError(
                f"expected a finite validation loss, got {result['loss']} after step {self.step}; "
                "lower lr.lr, lengthen lr.warmup_epochs or set training.clip_grad."
            )
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides how training goes on; all ranks call it together.

        Rank 0's is what a checkpoint needs: buffers (running statistics) may differ by rank, but
        DDP gives rank 0's to all before each update.

        Raises:
            DivergenceError: A recent loss was not finite.
        """
        return {
            "step": self.step,
            "tally": self._tally.state_dict(self._ranks),
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of the same model and options."""
        self.step = state["step"]
        self._tally.load_state_dict(state["tally"], self._ranks.device)
        self.model.load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        # How the update is computed is this device's, not that of the one that saved.
        own = [{k: group[k] for k in _IMPLEMENTATION if k in group} for group in self._groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, implementation in zip(self._groups, own, strict=True):
            group.update(implementation)

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    def _pace(self) -> None:
        """Let the host run ahead of a GPU by two micro-batches, no more.

        Buffers of the loader are filled again some batches later; and without this the wait for
        the GPU would be met in the loader and be logged as waiting for data.
        """
        if len(self._done) > MICRO_BATCHES_AHEAD:
            self._done.popleft().synchronize()

    def _mark(self) -> None:
        if self._ranks.device.type == "cuda":
            self._done.append(torch.cuda.current_stream().record_event())

    def _autocast(self) -> torch.autocast:
        enabled = self._section.mixed_precision and self._ranks.device.type == "cuda"
        return torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=enabled)

    def _without_sync(self, is_last: bool) -> contextlib.AbstractContextManager[None]:
        """Leave gradients on this rank until the update's last micro-batch."""
        if isinstance(self._outer, DistributedDataParallel) and not is_last:
            return self._outer.no_sync()
        return contextlib.nullcontext()


def check_training(section: TrainingSection, log_interval: int) -> None:
    """Check the options that only the trainer reads.

    Raises:
        ConfigError: One is out of its range.
    """
    check_option("training.epochs", section.epochs, "1 or more", section.epochs > 0)
    smoothing, ema_decay = section.label_smoothing, section.ema_decay
    in_unit = "a number from 0 to below 1"
    check_option("training.label_smoothing", smoothing, in_unit, 0 <= smoothing < 1)
    check_option("training.ema_decay", ema_decay, in_unit, 0 <= ema_decay < 1)
    check_option("training.clip_grad", section.clip_grad, "0 or more", section.clip_grad >= 0)
    check_option("run.log_interval", log_interval, "1 or more updates", log_interval > 0)


def seed_torch(*counters: int) -> None:
    """Seed torch's generators by a hash of counters.

    Args:
        *counters: The run's seed for the weights' initialisation; seed, step and rank for an
            update, as ranks draw different dropout masks.
    """
    text = "/".join(map(str, counters))
    torch.manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
