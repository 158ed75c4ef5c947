"""As a script: what stock ffcv does where a run is resumed, and where N does not divide.

Prints one JSON object. The ranks are played one after the other, with torch's fake backend.
"""

import json
import sys

import torch.distributed as dist
from ffcv.fields.basics import IntDecoder
from ffcv.loader import Loader, OrderOption
from torch.testing._internal.distributed.fake_pg import FakeStore


def main(path, world_size):
    """Count the validation samples of all ranks, and leave an epoch in the middle."""
    seen = []
    for rank in range(world_size):
        dist.init_process_group("fake", rank=rank, world_size=world_size, store=FakeStore())
        loader = stock_loader(path, distributed=True)
        seen += [int(sample) for sample in loader.next_traversal_order()]
        dist.destroy_process_group()
    loader = stock_loader(path, distributed=False)
    batches = iter(loader)
    first = next(batches)[0].ravel().tolist()
    next(batches)
    batches.close()
    again = next(iter(loader))[0].ravel().tolist()
    answer = {
        "validation": sorted(seen),
        "state_dict": hasattr(loader, "state_dict"),
        "starts_over": again == first,
    }
    sys.stdout.write(json.dumps(answer) + "\n")


def stock_loader(path, distributed):
    """Make ffcv's loader of the labels, in the order that ffcv-imagenet validates in."""
    return Loader(
        path,
        batch_size=5,
        num_workers=1,
        order=OrderOption.SEQUENTIAL,
        drop_last=False,
        distributed=distributed,
        pipelines={"label": [IntDecoder()], "image": None},
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
