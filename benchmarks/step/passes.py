"""Forward and backward passes of FF-tiny alone: ours, the paper's definition, and at 128 px."""

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn

from benchmarks.step.definition import PlainFeedForwardViT
from benchmarks.step.loops import DEFINITIONS
from benchmarks.step.measure import interleaved, release, say, timed

NAME = "ff_tiny_patch16_224"
FULL, LOW = 224, 128


def measure_passes(device: torch.device, batch_size: int, num_rounds: int) -> dict[str, Any]:
    """Time a forward and a backward pass of each, in interleaved rounds.

    Returns:
        model, batch_size, seconds by name and round.
    """
    torch.manual_seed(0)
    ours = timm.create_model(NAME).to(device).train()
    definition = PlainFeedForwardViT(FULL, *DEFINITIONS[NAME]).to(device).train()
    passes = {
        f"ffvit, {FULL} px": _passes(ours, FULL, batch_size, device),
        f"definition, {FULL} px": _passes(definition, FULL, batch_size, device),
        f"ffvit, {LOW} px": _passes(ours, LOW, batch_size, device),
    }
    for run in passes.values():
        run()
        run()
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for name in interleaved(passes, num_rounds):
        seconds[name].append(round(timed(passes[name], device), 5))
    say(f"passes of {NAME}: {seconds}")
    passes.clear()
    release(device)
    return {"model": NAME, "batch_size": batch_size, "seconds": seconds}


def _passes(
    model: nn.Module, resolution: int, batch_size: int, device: torch.device
) -> Callable[[], None]:
    images = torch.randn(batch_size, 3, resolution, resolution, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device=device)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in model.parameters():
            parameter.grad = None

    return run
