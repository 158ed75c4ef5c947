"""Where the time of an update goes: each stage alone, all at once, and what bounds the run."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from ffvit.assembly import Parts
from ffvit.cpus import available_cpus
from ffvit.measure import Training, endless, measure_loader
from ffvit.timing import DeviceClock

TRACED_UPDATES = 3
NUM_COPIES = 20
# A stage with a larger share of the device's time than this is worth a remark.
NOTABLE = 0.1
# A GPU that uses less of its memory than this has room for larger batches.
MUCH_ROOM = 0.5


class StageClock:
    """Adds up the time that each stage of an update takes; for `Trainer`'s `stage`.

    On a GPU it is the time between two events of the stream, and the host is not held up.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._clock = DeviceClock(device)
        self._spans: list[tuple[str, Any, Any]] = []

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside, and name it in a trace."""
        with record_function(name):
            begin = self._clock.now()
            yield
            self._spans.append((name, begin, self._clock.now()))

    def take(self) -> dict[str, float]:
        """Return the milliseconds of each stage since the last call; waits for a GPU."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        spans, self._spans = self._spans, []
        totals: dict[str, float] = {}
        for name, begin, end in spans:
            totals[name] = totals.get(name, 0.0) + 1e3 * self._clock.seconds(begin, end)
        return totals


@dataclasses.dataclass(frozen=True)
class Breakdown:
    """Where the time of an update goes at one resolution, each figure measured by itself.

    Attributes:
        resolution: Side of the images, pixels.
        num_images: Of an update, over all ranks.
        loader_ms: The loader alone.
        copy_ms: Images to the device, a part of the loader's time; None on a CPU.
        stages_ms: The model alone, on images that lie on the device: augment, forward (with the
            loss), backward (without other ranks), all-reduce (what it takes beyond the backward
            pass that it runs beside; with several ranks only), optimizer (with clipping and
            averaging).
        together_ms: Training as it is, loader and model at once.
        data_wait_fraction: Share of that spent waiting for images.
        mfu: Of the model alone; None where the device's peak is not known.
    """

    resolution: int
    num_images: int
    loader_ms: float
    copy_ms: float | None
    stages_ms: dict[str, float]
    together_ms: float
    data_wait_fraction: float
    mfu: float | None

    @property
    def model_ms(self) -> float:
        """The model alone: all stages."""
        return sum(self.stages_ms.values())

    @property
    def bound(self) -> str:
        """What takes longest: the loader, or one of the stages."""
        if self.loader_ms > self.model_ms:
            return "loader"
        return max(self.stages_ms, key=self.stages_ms.__getitem__)


def break_down(parts: Parts, resolution: int) -> Breakdown:
    """Measure the stages of an update at one resolution. All ranks call it together."""
    num_images = parts.config.training.global_batch_size
    loader_ms = 1e3 * num_images / measure_loader(parts, resolution)["images_per_s"]
    stages_ms, mfu = _measure_stages(parts, resolution)
    if parts.ranks.world_size > 1:
        alone = dataclasses.replace(parts, ranks=dataclasses.replace(parts.ranks, world_size=1))
        backward_ms = _measure_stages(alone, resolution)[0]["backward"]
        stages_ms["all-reduce"] = max(0.0, stages_ms["backward"] - backward_ms)
        stages_ms["backward"] -= stages_ms["all-reduce"]
    source = endless(parts, resolution)
    training = Training(parts, resolution, source)
    together = training.train(training.warm_up())
    source.close()
    return Breakdown(
        resolution,
        num_images,
        loader_ms,
        _copy_ms(parts, resolution),
        stages_ms,
        1e3 * num_images / together["images_per_s"],
        together["data_wait_fraction"],
        mfu,
    )


def write_trace(parts: Parts, resolution: int, path: Path) -> None:
    """Write torch's profile of a few updates on real images. All ranks call it; rank 0 writes.

    Args:
        parts: Of the run.
        resolution: Side of the images, pixels.
        path: Of the file, `*.json.gz`, for Perfetto or chrome://tracing.
    """
    source = endless(parts, resolution)
    training = Training(parts, resolution, source)
    training.warm_up()
    activities = [ProfilerActivity.CPU]
    if parts.ranks.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    if parts.ranks.is_primary:
        with profile(activities=activities) as profiler:
            training.train(TRACED_UPDATES)
        profiler.export_chrome_trace(str(path))
    else:
        training.train(TRACED_UPDATES)
    source.close()


def to_markdown(breakdowns: Sequence[Breakdown]) -> list[str]:
    """Lay out a column for each resolution."""
    stages = list(dict.fromkeys(name for b in breakdowns for name in b.stages_ms))
    rows: dict[str, list[str]] = {
        f"ms per update of {breakdowns[0].num_images:,} images": [
            f"{b.resolution} px" for b in breakdowns
        ],
        ":--": ["--:"] * len(breakdowns),
        "loader alone": [f"{b.loader_ms:,.1f}" for b in breakdowns],
        "- of it copying to the device": [
            "none" if b.copy_ms is None else f"{b.copy_ms:,.1f}" for b in breakdowns
        ],
        "model alone": [f"{b.model_ms:,.1f}" for b in breakdowns],
        **{f"- {name}": [f"{b.stages_ms[name]:,.1f}" for b in breakdowns] for name in stages},
        "training, both at once": [f"{b.together_ms:,.1f}" for b in breakdowns],
        "waiting for images": [f"{b.data_wait_fraction:.1%} of training" for b in breakdowns],
        "images/s, loader alone": [_rate(b, b.loader_ms) for b in breakdowns],
        "images/s, model alone": [_rate(b, b.model_ms) for b in breakdowns],
        "images/s, training": [_rate(b, b.together_ms) for b in breakdowns],
        "MFU, model alone": ["unknown" if b.mfu is None else f"{b.mfu:.1%}" for b in breakdowns],
    }
    return [f"| {' | '.join([name, *cells])} |" for name, cells in rows.items()]


def verdict(parts: Parts, breakdown: Breakdown) -> list[str]:
    """Say what bounds the run at a resolution, and what to change: one sentence, then advice."""
    b, is_cuda = breakdown, parts.ranks.device.type == "cuda"
    if b.bound == "loader":
        text = f"the loader bounds the run ({b.loader_ms:,.1f} ms, the model {b.model_ms:,.1f} ms)"
    else:
        share, ratio = b.stages_ms[b.bound] / b.model_ms, b.model_ms / b.loader_ms
        text = f"the model bounds the run, most of all {b.bound} ({share:.0%} of the model's time)"
        text += f"; the loader alone is {ratio:.1f} times as fast"
    if not is_cuda:
        text += "; on a CPU, loader and model share the cores, so both count"
    lines = [f"**{b.resolution} px:** {text}."]
    lines += _advice_on_loader(parts) if b.bound == "loader" else _advice_on_model(parts, is_cuda)
    shares = {name: value / b.model_ms for name, value in b.stages_ms.items()}
    if max(shares["optimizer"], shares.get("all-reduce", 0.0)) > NOTABLE:
        lines.append(
            "optimizer and all-reduce come once per update: a larger `--training.global_batch_size`"
            " or more `--training.accumulation_steps` spreads them over more images."
        )
    if shares["augment"] > NOTABLE:
        lines.append("augmentation is a notable part: `augment` in the config says what is on.")
    return lines


def _advice_on_loader(parts: Parts) -> list[str]:
    num_threads, num_cores = parts.train_loader.decoder.num_threads, available_cpus()
    share = parts.ranks.cpu_share()
    lines = []
    if num_threads < share:
        lines.append(f"workers: `--data.num_workers={share}` uses all of this process's cores.")
    else:
        lines.append(
            f"workers: all {num_cores} cores of this machine decode already; more cores per GPU."
        )
    lines.append(
        "quality: a beton of smaller images decodes faster (`write_imagenet.py --max_side=400`, "
        "or `--jpeg_quality=80`)."
    )
    lines.append(
        "resolution: a higher `resolution.min_res`, or an earlier `end_ramp`, gives the model more "
        "to do per image; it costs no time as long as the loader bounds."
    )
    return lines


def _advice_on_model(parts: Parts, is_cuda: bool) -> list[str]:
    training = parts.config.training
    lines = []
    if is_cuda and not training.compile:
        lines.append("compile: `--training.compile=true` fuses what lies between matrix products.")
    if is_cuda and not training.mixed_precision:
        lines.append("precision: `--training.mixed_precision=true` computes in bf16.")
    if is_cuda and training.accumulation_steps > 1 and _memory_used(parts) < MUCH_ROOM:
        lines.append(
            f"batch: {_memory_used(parts):.0%} of the GPU's memory is used; fewer "
            "`--training.accumulation_steps` make larger micro-batches."
        )
    lines.append(
        "resolution: epochs at fewer pixels cost less (`resolution.min_res`, a later `end_ramp`); "
        "that changes the recipe, and its accuracy."
    )
    return lines


def _memory_used(parts: Parts) -> float:
    device = parts.ranks.device
    total = torch.cuda.get_device_properties(device).total_memory
    return torch.cuda.max_memory_allocated(device) / total


def _measure_stages(parts: Parts, resolution: int) -> tuple[dict[str, float], float | None]:
    """Time the stages on synthetic images, ms per update; and the MFU."""
    clock = StageClock(parts.ranks.device)
    training = Training(parts, resolution, stage=clock)
    num_updates = training.warm_up()
    clock.take()
    mfu = training.train(num_updates)["mfu"]
    stages_ms = {name: value / num_updates for name, value in clock.take().items()}
    del stages_ms["wait for data"]  # there is none
    return stages_ms, mfu


def _copy_ms(parts: Parts, resolution: int) -> float | None:
    """Time the copies of an update's images from pinned memory to this rank's GPU."""
    if parts.ranks.device.type != "cuda":
        return None
    images = parts.synthetic_batch(resolution).images
    source, clock = images.cpu().pin_memory(), StageClock(parts.ranks.device)
    images.copy_(source, non_blocking=True)
    clock.take()
    for _ in range(NUM_COPIES):
        with clock("copy"):
            images.copy_(source, non_blocking=True)
    per_batch_ms = clock.take()["copy"] / NUM_COPIES
    return per_batch_ms * parts.config.training.accumulation_steps


def _rate(breakdown: Breakdown, milliseconds: float) -> str:
    return f"{1e3 * breakdown.num_images / milliseconds:,.0f}"
