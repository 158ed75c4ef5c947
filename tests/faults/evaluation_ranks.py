"""As a script: evaluate sets of all sizes on 1 to 5 ranks, in forked processes that share a store.

Prints one JSON object: "<num_samples>/<world_size>" -> the result of each rank.
"""

import json
import os
import sys
import traceback
from pathlib import Path

CASES = [(num, world) for world in (1, 2, 3, 5) for num in (1, 2, 7, 24)]
NUM_CLASSES = 4
BATCH_SIZE = 2


def main(folder):
    """Fork the ranks of each case, and collect what they write."""
    results = {}
    for num_samples, world_size in CASES:
        name = f"{num_samples}_{world_size}"
        children = []
        for rank in range(world_size):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    evaluate(folder / name, num_samples, rank, world_size)
                    status = 0
                except Exception:  # noqa: BLE001 - the parent sees the status
                    traceback.print_exc()
                finally:
                    os._exit(status)
            children.append(pid)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
        paths = [Path(f"{folder / name}.{rank}.json") for rank in range(world_size)]
        results[f"{num_samples}/{world_size}"] = [json.loads(path.read_text()) for path in paths]
    sys.stdout.write(json.dumps(results) + "\n")


def evaluate(path, num_samples, rank, world_size):
    """Be one rank: measure its share of images, of which each tells its own label."""
    device = torch.device("cpu")
    if world_size > 1:
        dist.init_process_group("gloo", f"file://{path}.store", rank=rank, world_size=world_size)
    ranks = Ranks(rank, rank, world_size, world_size, device)
    order = exact_cover_order(num_samples, BATCH_SIZE, rank, world_size)

    class Batches(list):
        resolution = 1

        def __iter__(self):
            yield from super().__iter__()

    samples = torch.tensor(order.samples, dtype=torch.int64)
    shares = samples.split(BATCH_SIZE) if len(samples) else ()
    batches = Batches((share[:, None].float(), share % NUM_CLASSES) for share in shares)
    turns = []
    trainer = Trainer(
        Guess(),
        torch.optim.SGD([torch.zeros(1, requires_grad=True)]),
        TrainingSection(),
        Ranks(0, 0, 1, 1, device),
        NUM_CLASSES,
        prepare=lambda images: images,
        augment=lambda batch, _: batch,
        learning_rate=lambda _: 0.0,
        log=None,
        log_interval=1,
    )
    trainer._ranks = ranks  # no parameters that DDP could share
    record = trainer.evaluate(batches, num_samples, False, lambda: turns.append(1))
    del record["validation_s"]
    Path(f"{path}.{rank}.json").write_text(json.dumps(record | {"turns": len(turns)}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import torch
    import torch.distributed as dist

    from ffvit.data.order import exact_cover_order
    from ffvit.distributed import Ranks
    from ffvit.options import TrainingSection
    from ffvit.trainer import Trainer

    class Guess(torch.nn.Module):
        """Says that sample k has label k % 3: right for a known share."""

        def forward(self, samples):
            guess = samples[:, 0].long() % 3
            return torch.nn.functional.one_hot(guess, NUM_CLASSES) * (1 + samples / 50)

    main(Path(sys.argv[1]))
