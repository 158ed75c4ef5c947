"""What a rank costs besides its model: host memory, and what DDP's options change.

    python -m benchmarks.rank TRAIN.beton VAL.beton OUT.json

Memory is that of one process with FF-tiny at batch 128 and 224 px, loader running. DDP's options
are compared on two ranks over gloo, in interleaved rounds of one run, by processor time.
"""

import contextlib
import copy
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from ffvit.memory import anonymous_bytes

# ruff: noqa: PLC0415 - memory is measured before and after imports

BATCH_SIZE = 128
RESOLUTION = 224
NUM_BATCHES = 12
# Of DDP: name in the results -> arguments.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "gradient_as_bucket_view": {"gradient_as_bucket_view": True},
    "static_graph": {"static_graph": True},
    "both": {"gradient_as_bucket_view": True, "static_graph": True},
}
SIDES = (64, 96)
NUM_ROUNDS = 12


def measure_memory(train_path: str, val_path: str) -> dict[str, float]:
    """Measure what one training process takes of memory that belongs to no file, GB.

    Returns:
        python: at the start. imports: with torch and all else. assembled: with model, optimizer
        state and loaders, at the highest while batches are loaded. accounted: of that the weights,
        gradients, AdamW's moments, and the loader's buffers. beyond: the rest, the imports' too.
    """
    python = anonymous_bytes()
    import torch

    from ffvit.assembly import assemble
    from ffvit.config import load_train_config
    from ffvit.data.epoch_iterator import BATCHES_AHEAD
    from ffvit.distributed import Ranks

    imports = anonymous_bytes()
    config, _ = load_train_config(
        [
            "--model.name=ff_tiny_patch16_224",
            f"--data.train_path={train_path}",
            f"--data.val_path={val_path}",
            f"--training.global_batch_size={BATCH_SIZE}",
            "--data.num_workers=2",
        ]
    )
    parts = assemble(config, Ranks(0, 0, 1, 1, torch.device("cpu")))
    # The optimizer's state exists from its first step on. No activations: a GPU would hold them.
    for parameter in parts.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    parts.optimizer.step()
    highest = 0
    batches = _endless(parts.train_loader)
    for _, _ in zip(range(NUM_BATCHES), batches, strict=False):
        highest = max(highest, anonymous_bytes())
    parts.close()
    num_parameters = sum(parameter.numel() for parameter in parts.model.parameters())
    buffers = (BATCHES_AHEAD + 2) * BATCH_SIZE * (3 * RESOLUTION**2 + 8)
    accounted = 4 * 4 * num_parameters + buffers
    return {
        "python": python / 1e9,
        "imports": imports / 1e9,
        "assembled": highest / 1e9,
        "accounted": accounted / 1e9,
        "beyond": (highest - accounted) / 1e9,
    }


def compare_ddp() -> dict[str, Any]:
    """As a rank: train FF-tiny with each variant in turn, over two resolutions and micro-batches.

    Returns:
        For each variant processor time of a round by round, s; anonymous memory it added, MB; and
        the largest difference of its weights from those of the first variant.
    """
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from ffvit.models import create_model, set_resolution
    from ffvit.options import ModelSection

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    torch.manual_seed(0)
    plain = create_model(ModelSection(name="ff_tiny_patch16_224"), 1000)
    generator = torch.Generator().manual_seed(torch.distributed.get_rank())
    batches = {side: torch.randn(2, 3, side, side, generator=generator) for side in SIDES}
    results: dict[str, Any] = {}
    models: dict[str, tuple[DistributedDataParallel, torch.optim.Optimizer]] = {}

    def one_round(name: str) -> float:
        model, optimizer = models[name]
        begin = time.process_time()
        for side in SIDES:
            set_resolution(model, side)
            for is_last in (False, True):
                with contextlib.nullcontext() if is_last else model.no_sync():
                    model(batches[side]).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return time.process_time() - begin

    # The first one of all also fills the allocators: it is made twice.
    for name, options in [("default", {}), *VARIANTS.items()]:
        models.pop(name, None)
        gc.collect()
        before = anonymous_bytes()
        model = DistributedDataParallel(copy.deepcopy(plain), **options)
        models[name] = (model, torch.optim.SGD(model.parameters(), lr=1e-3))
        try:
            one_round(name)
        except RuntimeError as error:
            del models[name]
            results[name] = {"not_measured": str(error).partition("\n")[0]}
            continue
        results[name] = {"added_mb": round((anonymous_bytes() - before) / 1e6, 1), "round_s": []}
    for number in range(NUM_ROUNDS):
        order = list(models)[:: -1 if number % 2 else 1]
        for name in order:
            results[name]["round_s"].append(round(one_round(name), 4))
    first = _weights(models["default"][0])
    for name, (model, _) in models.items():
        results[name]["difference"] = float((_weights(model) - first).abs().max())
        ratios = [
            own / default
            for own, default in zip(
                results[name]["round_s"], results["default"]["round_s"], strict=True
            )
        ]
        results[name]["ratio_median"] = round(statistics.median(ratios), 4)
        results[name]["ratio_quartiles"] = [round(q, 4) for q in statistics.quantiles(ratios, n=4)]
    torch.distributed.destroy_process_group()
    return results


def main(train_path: str, val_path: str, out: str) -> None:
    """Measure both in fresh processes, and write the result."""
    result = {
        "machine": describe_machine(),
        "memory_gb": _run([sys.executable, "-m", __spec__.name, "memory", train_path, val_path]),
        "ddp": _run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc_per_node=2", "-m", __spec__.name, "ddp"),
            ]
        ),
    }
    Path(out).write_text(json.dumps(result, indent=1) + "\n")


def _run(command: list[str]) -> Any:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900, check=True)
    return json.loads(done.stdout)


def _weights(model: Any) -> Any:
    import torch

    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


if __name__ == "__main__":
    if sys.argv[1] == "memory":
        sys.stdout.write(json.dumps(measure_memory(*sys.argv[2:])))
    elif sys.argv[1] == "ddp":
        import os

        measured = compare_ddp()
        if os.environ["RANK"] == "0":
            sys.stdout.write(json.dumps(measured))
    else:
        main(*sys.argv[1:])
