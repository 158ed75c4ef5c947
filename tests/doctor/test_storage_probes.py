"""A beton's storage: what is cached, how fast it is, and what follows from both."""

import os

import pytest

from ffvit.doctor import storage

MIB, GIB = 1 << 20, 1 << 30


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.beton"
    with path.open("wb") as stream:
        stream.write(os.urandom(4 * MIB))
        stream.flush()
        os.fsync(stream.fileno())
    return path


def forget(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    if storage.file_system(str(path)) == "tmpfs":
        pytest.skip("this file system has no pages that it could drop")


def test_the_cached_share_of_a_file_is_measured_without_loading_it(file):
    file.read_bytes()
    assert storage.cached_share(str(file)) == 1
    forget(file)
    assert [storage.cached_share(str(file)) for _ in range(2)] == [0, 0]
    with file.open("rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        stream.read(2 * MIB)
    assert 0.4 < storage.cached_share(str(file)) < 0.6


def test_what_is_cached_of_others_files_is_not_known(file, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert storage.cached_share(str(file)) is None


def test_random_reads_are_counted_and_leave_the_cache_alone(file):
    forget(file)
    reads_per_s, is_direct = storage.random_reads(str(file), 4 * MIB, num_threads=2)
    assert reads_per_s > 0
    if is_direct:
        assert storage.cached_share(str(file)) == 0


def test_a_beton_that_is_not_there_is_an_error_that_says_so(tmp_path):
    for path in (tmp_path, tmp_path / "no.beton"):
        (finding,) = storage.read_speed(str(path))
        assert finding.level == "error"
        assert "no such file" in finding.text
        assert "write_imagenet.py" in finding.mend


def test_a_file_smaller_than_one_read_is_read(tmp_path):
    path = tmp_path / "small"
    path.write_bytes(b"x")
    assert storage.random_reads(str(path), 1, num_threads=1)[0] > 0


@pytest.mark.parametrize(
    ("size_gib", "cached", "reads_per_s", "level", "words"),
    [
        (10, 0.0, 4000, "ok", "0 % of it"),
        (10, 1.0, 100, "ok", "100 % of it"),
        (10, 0.0, 100, "warning", "first epoch waits 14 minutes"),
        (90, 0.5, 100, "warning", "slower than the cores decode"),
        (90, 0.5, 9000, "ok", "50 % of it"),
        (10, None, 4000, "ok", "does not tell"),
    ],
)
def test_slow_storage_matters_as_far_as_memory_cannot_hold_the_beton(
    tmp_path, monkeypatch, size_gib, cached, reads_per_s, level, words
):
    path = tmp_path / "x.beton"
    path.touch()
    os.truncate(path, size_gib * GIB)  # sparse
    monkeypatch.setattr(storage, "available_cpus", lambda: 4)
    monkeypatch.setattr(storage, "memory_limit", lambda: (64 * GIB, 64 * GIB))
    monkeypatch.setattr(storage, "file_system", lambda _: "nfs4")
    monkeypatch.setattr(storage, "cached_share", lambda *_: cached)
    monkeypatch.setattr(storage, "random_reads", lambda *_: (reads_per_s, True))
    (finding,) = storage.read_speed(str(path))
    assert finding.level == level
    assert words in finding.text
    assert ("local disk" in finding.mend) == (level == "warning")


def test_the_file_system_is_that_of_the_deepest_mount(tmp_path):
    real = tmp_path / "data set" / "x.beton"
    real.parent.mkdir()
    real.touch()
    mounts = tmp_path / "proc/self/mounts"
    mounts.parent.mkdir(parents=True)
    escaped = str(real.parent).replace(" ", "\\040")
    mounts.write_text(
        f"root / ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\nother {real.parent}2 xfs rw 0 0\n"
    )
    assert storage.file_system(str(real), str(tmp_path)) == "nfs4"
    assert storage.file_system(str(tmp_path), str(tmp_path)) == "ext4"


def test_a_beton_is_compared_with_the_memory(tiny_beton, monkeypatch):
    monkeypatch.setattr(storage, "memory_limit", lambda: (64 * GIB, 64 * GIB))
    assert [finding.level for finding in storage.beton(str(tiny_beton))] == ["ok", "ok"]
    monkeypatch.setattr(storage, "memory_limit", lambda: (1000, 64 * GIB))
    whole, fits = storage.beton(str(tiny_beton))
    assert (whole.level, fits.level) == ("ok", "warning")
    assert "--data.order=blocks" in fits.mend


def test_a_damaged_beton_is_an_error(beton_copy):
    os.truncate(beton_copy, beton_copy.stat().st_size - 1)
    (finding,) = storage.beton(str(beton_copy))
    assert finding.level == "error"
    assert "cut off" in finding.text
