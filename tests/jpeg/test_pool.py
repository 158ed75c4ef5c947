"""Threads of the kernel: any number of them, several pools, several callers, none left behind."""

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from references import Job, decode, encode, noise, photograph

from ffvit.jpeg.kernel import ThreadPool


@pytest.fixture(scope="module")
def jobs():
    """Make sound, damaged and foreign samples of several sizes, in no order."""
    made = []
    for number in range(41):
        height, width = 20 + 7 * number % 60, 20 + 11 * number % 70
        image = photograph(height, width, number) if number % 2 else noise(height, width, number)
        data = encode(image, quality=30 + number, progressive=number % 7 == 3, optimize=True)
        data = data[: -30 if number % 11 == 5 else None]
        made.append(Job(data, height, width, (1, 2, height - 3, width - 5), number % 3 == 0))
    return made


@pytest.fixture(scope="module")
def expected(jobs):
    images, statuses = decode(jobs, 19, 23)
    assert 0 < (statuses != 0).sum() < 10
    return images, statuses


def assert_equal(result, expected):
    assert result[1].tolist() == expected[1].tolist()
    assert (result[0] == expected[0]).all()


@pytest.mark.parametrize("num_threads", [1, 2, 5, 64])
def test_any_number_of_threads_gives_the_same_pixels(jobs, expected, num_threads):
    pool = ThreadPool(num_threads)
    for _ in range(5):
        assert_equal(decode(jobs, 19, 23, pool=pool), expected)
    assert_equal(decode(jobs[:1], 19, 23, pool=pool), (expected[0][:1], expected[1][:1]))
    assert decode([], 19, 23, pool=pool)[0].shape == (0, 19, 23, 3)


@pytest.mark.parametrize("num_pools", [1, 2])
def test_two_callers_at_once_get_each_their_own(jobs, expected, num_pools):
    pools = [ThreadPool(2) for _ in range(num_pools)]
    results = {}

    def call(number):
        order = jobs if number == 0 else jobs[::-1]
        results[number] = [decode(order, 19, 23, pool=pools[number % num_pools]) for _ in range(10)]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for result in results[0]:
        assert_equal(result, expected)
    for images, statuses in results[1]:
        assert_equal((images[::-1], statuses[::-1]), expected)


def num_threads_now():
    return len(list(Path("/proc/self/task").iterdir()))


def test_a_pool_ends_its_threads_idle_or_used(jobs):
    if not Path("/proc/self/task").exists():
        pytest.skip("needs /proc")
    gc.collect()  # pools of other tests
    before = num_threads_now()
    idle, used = ThreadPool(4), ThreadPool(4)
    decode(jobs, 19, 23, pool=used)
    assert num_threads_now() == before + 6  # the caller works too
    del idle, used
    deadline = time.monotonic() + 20
    while num_threads_now() > before and time.monotonic() < deadline:
        time.sleep(0.01)  # Linux takes a moment to strike off a thread that has been joined
    assert num_threads_now() == before


def test_fallbacks_of_all_threads_are_counted():
    progressive = [Job(encode(noise(20, 30), progressive=True), 20, 30)] * 50
    pool = ThreadPool(3)
    decode(progressive, 8, 8, pool=pool)
    decode([Job(encode(noise(20, 30)), 20, 30)] * 50, 8, 8, pool=pool)
    assert pool.num_fallbacks == 50


# In a process of its own: children are forked while another thread decodes, so that what they
# inherit is in the middle of its work. Each child decodes in two threads at once.
FORKS = """
import os, sys, threading
sys.path.insert(0, sys.argv[1])
from references import Job, decode, encode, noise
from ffvit.jpeg.kernel import ThreadPool
sizes = [(20 + k, 30 + k) for k in range(40)]
jobs = [Job(encode(noise(*size), progressive=size[0] % 5 == 0), *size) for size in sizes]
expected, _ = decode(jobs, 8, 8)
pool = ThreadPool(3)
def is_right():
    return bool((decode(jobs, 8, 8, pool=pool)[0] == expected).all())
def in_child():
    results = []
    threads = [threading.Thread(target=lambda: results.append(is_right())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results == [True, True]
stop = threading.Event()
def keep_busy():
    while not stop.is_set():
        decode(jobs, 8, 8, pool=pool)
busy = threading.Thread(target=keep_busy)
busy.start()
for _ in range(20):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if in_child() else 3
            del pool
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
busy.join()
assert is_right()
"""


@pytest.mark.skipif(
    "FFVIT_KERNEL" in os.environ, reason="sanitizers do not follow forks of threads"
)
def test_children_forked_in_the_middle_of_a_batch_decode_with_threads_of_their_own():
    command = [sys.executable, "-W", "ignore", "-c", FORKS, str(Path(__file__).parent)]
    subprocess.run(command, check=True, timeout=60)


# A stack is 8 MiB of addresses, so that few threads fit; in a process of its own, as nothing else
# would run under such a limit.
FEW_THREADS = """
import os, pathlib, resource, sys, time
sys.path.insert(0, sys.argv[1])
from references import Job, decode, encode, noise
from ffvit.jpeg.kernel import ThreadPool
job = Job(encode(noise(20, 30)), 20, 30)
expected, _ = decode([job], 8, 8)
def num_threads():
    return len(os.listdir("/proc/self/task"))
in_use = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**29, resource.RLIM_INFINITY))
before = num_threads()
try:
    ThreadPool(200)
except OSError as error:
    assert "200" in str(error)
else:
    raise AssertionError
deadline = time.monotonic() + 20
while num_threads() > before and time.monotonic() < deadline:
    time.sleep(0.01)
assert num_threads() == before
assert (decode([job], 8, 8, pool=ThreadPool(2))[0] == expected).all()
"""


@pytest.mark.skipif("FFVIT_KERNEL" in os.environ, reason="sanitizers need addresses without limit")
def test_a_system_without_room_for_the_threads_is_no_crash():
    if not Path("/proc/self/task").exists():
        pytest.skip("needs /proc")
    command = [sys.executable, "-W", "ignore", "-c", FEW_THREADS, str(Path(__file__).parent)]
    subprocess.run(command, check=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"})
