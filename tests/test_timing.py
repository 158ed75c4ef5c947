import time

import pytest
import torch

from ffvit.timing import StepTimer, Stopwatch, step_percentiles
from ffvit.workload import Workload


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes when told: `clock[0] += seconds`."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_each_update_is_timed_from_the_end_of_the_one_before(clock):
    timer = StepTimer(torch.device("cpu"))
    timer.start()
    for seconds in (2.0, 3.0):
        clock[0] += seconds
        timer.mark()
    assert timer.take() == [2.0, 3.0]
    assert timer.take() == []
    clock[0] += 5.0
    timer.mark()
    assert timer.take() == [5.0]


def test_a_pause_before_the_start_is_no_update(clock):
    timer = StepTimer(torch.device("cpu"))
    clock[0] += 50.0
    timer.start()
    clock[0] += 1.0
    timer.mark()
    assert timer.take() == [1.0]


@pytest.mark.gpu
def test_updates_of_a_gpu_are_timed_on_the_gpu():
    timer = StepTimer(torch.device("cuda"))
    square = torch.randn(4096, 4096, device="cuda")
    timer.start()
    begin = time.perf_counter()
    for _ in range(5):
        for _ in range(20):
            square = square @ square / 64
        timer.mark()
    submitted_s = time.perf_counter() - begin
    torch.cuda.synchronize()
    times = timer.take()
    assert len(times) == 5
    assert sum(times) > submitted_s


def test_percentiles_of_updates_are_milliseconds():
    record = step_percentiles([0.001 * k for k in range(1, 102)])
    assert record == pytest.approx({"step_p50_ms": 51, "step_p95_ms": 96, "step_max_ms": 101})
    assert step_percentiles([]) == {}


def test_a_stopwatch_goes_on_where_another_stood(clock):
    first = Stopwatch()
    first.start()
    clock[0] += 4.0
    first.waited_s += 1.0
    second = Stopwatch(**first.state_dict())
    clock[0] += 90.0
    second.start()
    clock[0] += 1.0
    assert second.rates(10) == {"images_per_s": 2.0, "data_wait_fraction": 0.2}


# Two epochs of 10 images at 8 px, one at 16 px; an epoch's validation costs 20.
WORKLOAD = Workload(
    image_flops={8: 100.0, 16: 400.0}, epoch_flops=[1020.0, 1020.0, 4020.0], peak_flops=8000.0
)


def test_mfu_is_the_share_of_the_peak_at_the_models_own_operations():
    assert WORKLOAD.mfu(images_per_s=10.0, resolution=16) == 0.5
    assert WORKLOAD.mfu(images_per_s=10.0, resolution=8) == 0.125


def test_without_a_known_peak_there_is_no_mfu():
    assert Workload({8: 1.0}, [1.0], None).mfu(10.0, 8) is None


def test_time_left_counts_operations_of_later_epochs_and_their_validations():
    left_s = WORKLOAD.time_left_s(epoch=1, num_images=4, images_per_s=2.0, resolution=8)
    assert left_s == (1020 - 400 + 4020) / 200
    assert WORKLOAD.time_left_s(2, 10, 2.0, 16) == 20 / 800
