import os

import pytest
import torch

from ffvit.distributed import Ranks, join_ranks
from ffvit.errors import ConfigError


def ranks(world_size=1, local_world_size=1):
    return Ranks(0, 0, world_size, local_world_size, torch.device("cpu"))


def test_global_batch_is_divided_over_ranks_and_micro_batches():
    assert ranks(world_size=4).micro_batch_size(1024, 2) == 128


@pytest.mark.parametrize(("global_batch_size", "steps"), [(10, 1), (2, 1), (12, 2), (12, 0)])
def test_batch_that_does_not_divide_is_refused(global_batch_size, steps):
    with pytest.raises(ConfigError, match="global_batch_size"):
        ranks(world_size=4 if steps == 1 else 8).micro_batch_size(global_batch_size, steps)


def test_cores_are_shared_among_the_machines_processes():
    num_cores = len(os.sched_getaffinity(0))
    assert ranks().cpu_share() == num_cores
    assert ranks(2, local_world_size=2 * num_cores).cpu_share() == 1


def test_without_torchrun_a_process_is_alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with join_ranks(timeout_s=60) as alone:
        assert alone.is_primary
        assert alone.world_size == 1
        assert alone.sum(torch.tensor([3.0])).tolist() == [3.0]
        alone.wait_for_all()


def test_a_single_process_agrees_with_itself():
    ranks().check_agreement("epochs done", 3)
