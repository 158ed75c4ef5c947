"""What befalls the loader: files that change, threads that fail or stand still, forks."""

import shutil
import threading
import time

import pytest
import torch
from loading_runs import OURS, run_script, run_soundly, write_tables_of_imagenet

from ffvit.data import storage as storage_module
from ffvit.data.loader import create_val_loader
from ffvit.data.storage import Storage
from ffvit.errors import BetonError
from ffvit.options import DataSection, ValidationSection

CPU = torch.device("cpu")


@pytest.fixture
def beton(tiny_beton, tmp_path):
    """A copy of the tiny beton without its manifest, to be damaged."""
    return shutil.copy(tiny_beton, tmp_path / "train.beton")


def val_loader(path, batch_size=4, copy=True):
    validation = ValidationSection(resolution=32, batch_size=batch_size)
    return create_val_loader(DataSection(val_path=str(path)), validation, 0, 1, 1, CPU, copy=copy)


def images(loader):
    return torch.cat([batch.images for batch in loader])


def test_a_beton_replaced_by_renaming_is_read_to_its_end(beton, tiny_val_beton, tmp_path):
    loader = val_loader(beton)
    expected = images(loader)
    loader.set_epoch(1)
    iterator = iter(loader)
    seen = [next(iterator).images]
    shutil.copy(tiny_val_beton, tmp_path / "new.beton").replace(beton)
    seen += [batch.images for batch in iterator]
    assert (torch.cat(seen) == expected).all()
    beton.unlink()
    loader.set_epoch(2)
    assert (images(loader) == expected).all()


CHANGED = (
    OURS
    + """
def cut(file):
    file.truncate(3 << 20)
def write(file):
    file.seek(-1, 2)
    file.write(b"x")
for path, change in zip(sys.argv[1:], (cut, write)):
    iterator = iter(val_loader(path))
    next(iterator)
    wait_until(lambda: iterator._producer.batches.full())
    time.sleep(0.2)  # and the thread waits for room
    with open(path, "r+b") as file:
        change(file)
    num_batches = 1
    try:
        for _ in iterator:
            num_batches += 1
    except Exception as error:
        print(num_batches, type(error).__name__, error)
"""
)


@pytest.mark.fault
def test_a_beton_changed_in_place_is_an_error_before_the_next_batch(beton, tmp_path):
    other = shutil.copy(beton, tmp_path / "other.beton")
    lines = run_soundly(CHANGED, beton, other).splitlines()
    assert len(lines) == 2
    for line, path in zip(lines, (beton, other), strict=True):
        # The batches that had been decoded before are sound.
        assert line.startswith(f"5 BetonError {path}: expected the file as it was opened")


def test_a_beton_replaced_between_two_looks_at_it_is_refused(beton, tiny_val_beton, monkeypatch):
    read_tables = storage_module.read_tables

    def replace_and_read(path):
        tables = read_tables(path)
        shutil.copy(tiny_val_beton, path.with_name("new.beton")).replace(path)
        return tables

    monkeypatch.setattr(storage_module, "read_tables", replace_and_read)
    with pytest.raises(BetonError, match=r"train\.beton: was replaced or changed while it was"):
        Storage(str(beton))


def test_a_file_that_cannot_be_reached_any_more_is_named(beton, monkeypatch):
    loader = val_loader(beton)

    def fail(_):
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(storage_module._State, "of", fail)
    with pytest.raises(BetonError, match=r"train\.beton: cannot be reached .*Stale file handle"):
        list(loader)


def test_an_exception_in_the_thread_keeps_its_traceback(beton, monkeypatch):
    loader = val_loader(beton)

    def break_down(*_):
        raise OSError("disk on fire")

    monkeypatch.setattr(loader.pipeline, "run", break_down)
    with pytest.raises(OSError, match="disk on fire") as info:
        list(loader)
    assert "break_down" in [entry.name for entry in info.traceback]


def test_dropping_an_iterator_ends_its_thread(beton):
    before = threading.active_count()
    loader = val_loader(beton)
    for _ in loader:
        break
    assert threading.active_count() == before
    iterator = iter(loader)
    del loader
    next(iterator)
    assert threading.active_count() == before + 1
    del iterator
    assert threading.active_count() == before


LONG_RUNS = (
    OURS
    + """
loader, other = train_loader(sys.argv[1]), val_loader(sys.argv[1])
def leave_early(epochs):
    for epoch in epochs:
        loader.set_epoch(epoch)
        for _ in loader:
            break
def train(epochs):
    for epoch in epochs:
        loader.set_epoch(epoch, resolution=32 + 8 * (epoch % 3))
        assert sum(len(batch.labels) for batch in loader) == 64
        assert sum(len(batch.labels) for batch in other) == 64
for work in (leave_early, train):
    work(range(20))
    gc.collect()
    threads, memory = num_threads(), rss_mb()
    work(range(20, 120))
    gc.collect()
    print(num_threads() - threads, rss_mb() - memory)
"""
)


@pytest.mark.fault
def test_threads_and_memory_stay_flat_over_100_early_breaks_and_100_epochs(beton):
    lines = run_soundly(LONG_RUNS, beton).splitlines()
    assert len(lines) == 2
    for line in lines:
        more_threads, more_mb = map(float, line.split())
        assert more_threads == 0
        assert more_mb < 4


INTERLEAVED = (
    OURS
    + """
loaders = [train_loader(sys.argv[1]), val_loader(sys.argv[1]), train_loader(sys.argv[1])]
for batches in zip(*loaders):
    for batch in batches:
        assert len(batch.labels) == 4
first = [batch.images.clone() for batch in loaders[0]]
mixed = [pair[0].images.clone() for pair in zip(loaders[2], loaders[1])]
assert all((a == b).all() for a, b in zip(first, mixed, strict=True))
maps = open("/proc/self/maps").read()
print([layer for layer in ("tbbpool", "omppool", "workqueue") if layer in maps])
"""
)


@pytest.mark.fault
def test_several_loaders_at_once_need_no_threading_layer_of_numba(beton):
    assert run_soundly(INTERLEAVED, beton) == "['workqueue']\n"


FORKED = (
    OURS
    + """
loader = train_loader(sys.argv[1], copy=True)
expected = [batch.images for batch in loader]
iterator = iter(loader)
next(iterator)
class Range(torch.utils.data.Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, index):
        return index
for _ in range(5):  # while the thread decodes and while it waits
    child = os.fork()
    if child == 0:
        status = 1
        try:
            try:
                next(iterator)
            except RuntimeError as error:
                assert "iterate anew" in str(error)
            else:
                raise AssertionError("the child took a batch of the parent's thread")
            again = [batch.images for batch in loader]
            assert all((a == b).all() for a, b in zip(expected, again, strict=True))
            assert len(list(val_loader(sys.argv[1]))) == 16
            iterator.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    next(iterator)
others = torch.utils.data.DataLoader(Range(), 4, num_workers=2, multiprocessing_context="fork")
assert sum(len(batch) for batch in others) == 40
assert len(list(iterator)) == 10
print("done")
"""
)


@pytest.mark.fault
def test_a_forked_child_loads_anew_and_the_parent_goes_on(beton):
    assert run_soundly(FORKED, beton) == "done\n"


LIVE_AT_EXIT = (
    OURS
    + """
loaders = [train_loader(sys.argv[1], batch_size=size, num_threads=3) for size in (1, 4, 64)]
iterators = [iter(loader) for loader in loaders]
for iterator in iterators:
    next(iterator)
print("end", flush=True)
raise SystemExit(5)
"""
)


@pytest.mark.fault
def test_a_process_with_live_iterators_ends_at_once_and_quietly(beton):
    outcome = run_script(LIVE_AT_EXIT, beton)
    assert outcome == (5, "end\n", "")


# The thread opens a pipe that nobody writes to: a call that never returns, as on a dead disk.
STALLED = (
    OURS
    + """
from ffvit.errors import one_line_errors
loader = val_loader(sys.argv[1])
loader._watchdog_s = 2.0
os.mkfifo(sys.argv[2])
look = loader.pipeline.storage.check_unchanged
looks = []
def stand_still():
    looks.append(1)
    open(sys.argv[2]) if len(looks) == 3 else look()
loader.pipeline.storage.check_unchanged = stand_still
with one_line_errors():
    try:
        for number, batch in enumerate(loader):
            if number == 0:
                time.sleep(3)  # a slow consumer is no stall
            print(number, flush=True)
    finally:
        loader.close()
        try:
            iter(loader)
        except Exception as error:
            print(error)
"""
)


@pytest.mark.fault
def test_a_thread_that_stands_still_is_an_error_with_all_stacks(beton, tmp_path):
    outcome = run_script(STALLED, beton, tmp_path / "pipe")
    assert outcome.status == 2
    assert outcome.stdout == f"0\n1\n{beton}: the thread of an earlier pass still stands still.\n"
    *stacks, error = outcome.stderr.splitlines()
    assert error.startswith(f"error: {beton}: no batch came for 2 s, at position 8 of the epoch")
    assert any("in stand_still" in line for line in stacks)
    assert any("in _wait" in line for line in stacks)


def test_a_slow_consumer_is_no_stall(beton):
    data = DataSection(val_path=str(beton), watchdog_s=0.5)
    loader = create_val_loader(data, ValidationSection(resolution=32, batch_size=8), 0, 1, 1, CPU)
    for number, _ in enumerate(loader):
        if number == 1:
            time.sleep(2)
    assert number == 7


# What malloc keeps of freed arrays to hand out again is no part of what a loader holds.
MEMORY = (
    OURS
    + """
import ctypes
from ffvit.data.order import epoch_permutation, train_order
from ffvit.data.storage import Storage
trim = ctypes.CDLL(None).malloc_trim
def held_mb():
    gc.collect()
    trim(0)
    return rss_mb()
train_loader(sys.argv[1])
epoch_permutation(100, 0, 0)
before = held_mb()
storage = Storage(sys.argv[2])
tables = held_mb()
order = train_order(epoch_permutation(storage.num_samples, 0, 0), 1024, 1024, 0, 1)
print(tables - before, held_mb() - before)
del storage, order
before = held_mb()
loader = train_loader(sys.argv[2], 1024)
loader.set_epoch(1)
kept = rss_mb()
print(held_mb() - before, kept - before)
"""
)


@pytest.mark.fault
def test_the_tables_and_order_of_imagenet_need_at_most_30_mb(beton, tmp_path):
    path = tmp_path / "imagenet.beton"
    write_tables_of_imagenet(path, beton, 1_281_167)
    numbers = [float(word) for word in run_soundly(MEMORY, beton, path).split()]
    tables, with_order, whole_loader, _ = numbers
    assert tables < 26
    assert with_order < 30
    assert whole_loader < 40  # compiled code included
