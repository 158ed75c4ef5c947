"""torch.compile: one graph per resolution, compiled before the clocks of an epoch run."""

import contextlib
import time
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def compile_model(model: nn.Module, num_resolutions: int) -> nn.Module:
    """Compile one graph per resolution, training and evaluation apart.

    Reaching dynamo's limit would quietly run the rest uncompiled; here it is an error.
    """
    torch._dynamo.config.recompile_limit = 2 * num_resolutions + 2
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return cast("nn.Module", torch.compile(model, dynamic=False))


def warm_up(
    network: nn.Module, inputs: Tensor, autocast: contextlib.AbstractContextManager[object]
) -> float:
    """Compile what an update runs, by a forward and a backward pass that leave nothing behind.

    Args:
        network: In training mode, compiled, perhaps wrapped for DDP: then all ranks call it
            together.
        inputs: (B, 3, H, W), shaped and laid out as an update's.
        autocast: In which updates compute; a graph is made for one such setting.

    Returns:
        Seconds that it took.
    """
    begin = time.perf_counter()
    statistics = [buffer.clone() for buffer in network.buffers()]
    with autocast:
        logits = network(inputs)
    classes = torch.zeros(len(inputs), dtype=torch.long, device=inputs.device)
    F.cross_entropy(logits.float(), classes).backward()  # type: ignore[no-untyped-call]
    network.zero_grad(set_to_none=True)
    for buffer, kept in zip(network.buffers(), statistics, strict=True):
        buffer.copy_(kept)
    return time.perf_counter() - begin
