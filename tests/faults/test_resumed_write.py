"""A write that was interrupted at any moment goes on, to the bytes of one that was not."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from memory_source import listing, make_source

from ffvit.data import engine
from ffvit.data.beton import load_manifest
from ffvit.data.encoding import CHUNK
from ffvit.data.sources import Source
from ffvit.data.sources.base import MemoryStore
from ffvit.data.writer import storage_order, write_beton
from ffvit.errors import BetonError, SourceError
from ffvit.options import WriteSection

SCRIPT = Path(__file__).resolve().parents[2] / "write_imagenet.py"
NUM_IMAGES = 60
SECTION = WriteSection(num_workers=1, mode="raw", resume=True, on_error="skip")


class WriterKillingStore(MemoryStore):
    """Images in memory; the worker that reads one of them kills the process that stores them."""

    fatal_key = -1

    def read(self, key: int) -> bytes:
        if key == self.fatal_key:
            os.kill(os.getppid(), signal.SIGKILL)
        return super().read(key)


class StoredStore(MemoryStore):
    """Images in memory, of which some are stored already and must not be read again."""

    stored: frozenset[int] = frozenset()

    def read(self, key: int) -> bytes:
        if key in self.stored:
            raise AssertionError(f"image {key} was stored before")
        return super().read(key)


def source_of(kind: type[MemoryStore]) -> Source:
    """Make images of which two cannot be decoded."""
    source = make_source(NUM_IMAGES)
    files = list(source.store.files)
    files[5] = files[21] = b"not an image"
    return dataclasses.replace(source, store=kind(source.store.names, files))


@pytest.fixture(autouse=True)
def every_image_is_journalled(monkeypatch):
    monkeypatch.setattr(engine, "_COMMIT_INTERVAL_S", 0.0)
    monkeypatch.setattr("ffvit.data.writer._ESTIMATE_SAMPLES", 1)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    """Write it without interruption."""
    folder = tmp_path_factory.mktemp("expected")
    write_beton(source_of(MemoryStore), folder / "a.beton", SECTION)
    return listing(folder)


def kill_writer(path: Path, position: int) -> None:
    """Write a beton; the writer is killed when the image for a position is read."""
    source = source_of(WriterKillingStore)
    # The store is frozen, as all are.
    object.__setattr__(source.store, "fatal_key", int(storage_order(source, SECTION)[position]))
    writer = multiprocessing.get_context("fork").Process(
        target=write_beton, args=(source, path, SECTION)
    )
    writer.start()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    left = {file.name for file in path.parent.iterdir()}
    assert left == {"a.beton.partial", "a.beton.partial.journal"}


@pytest.fixture
def killed(tmp_path) -> Path:
    """Kill a writer near the end; returns where its beton should have been."""
    kill_writer(tmp_path / "a.beton", NUM_IMAGES - 2)
    return tmp_path / "a.beton"


@pytest.mark.parametrize("position", [1, 20, 39, 48, 59])
def test_killed_writer_is_resumed_to_the_same_bytes(tmp_path, expected, capsys, position):
    kill_writer(tmp_path / "a.beton", position)
    source = source_of(StoredStore)
    # A worker has up to two chunks under way that were not stored; the estimate looks at the first.
    stored = storage_order(source, SECTION)[1 : max(1, position - 2 * CHUNK)]
    object.__setattr__(source.store, "stored", frozenset(stored.tolist()))
    manifest = write_beton(source, tmp_path / "a.beton", SECTION)
    assert listing(tmp_path) == expected
    assert {name for name, _ in manifest.skipped} == {"folder/5.png", "folder/21.png"}
    assert ("resumes" in capsys.readouterr().err) == (position > CHUNK)


@pytest.mark.parametrize("round_", range(20))
def test_what_the_disk_lost_is_written_again(killed, expected, round_):
    """After a crash of the machine any part of either file may be missing or rubbish."""
    rng = np.random.default_rng(round_)
    for file in (killed.with_name("a.beton.partial"), killed.with_name("a.beton.partial.journal")):
        data = bytearray(file.read_bytes())
        fate = rng.integers(4)
        if fate == 1:
            del data[rng.integers(len(data)) :]
        elif fate == 2:
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        elif fate == 3:
            data[rng.integers(len(data)) :] = bytes(1000)
        file.write_bytes(data)
    write_beton(source_of(MemoryStore), killed, SECTION)
    assert listing(killed.parent) == expected


def test_other_options_or_images_are_refused_by_name_and_change_nothing(killed):
    before = listing(killed.parent)
    other = dataclasses.replace(SECTION, mode="jpg", max_side=400)
    with pytest.raises(BetonError, match=r"max_side was 500, is 400, mode was raw, is jpg"):
        write_beton(source_of(MemoryStore), killed, other)
    source = source_of(MemoryStore)
    source.store.names[7] = "another.png"
    with pytest.raises(BetonError, match="source_crc32"):
        write_beton(source, killed, SECTION)
    assert listing(killed.parent) == before


def test_number_of_workers_is_free_to_change(killed, expected):
    write_beton(source_of(MemoryStore), killed, dataclasses.replace(SECTION, num_workers=3))
    assert listing(killed.parent)["a.beton"] == expected["a.beton"]


def test_without_resume_it_starts_anew(killed, expected, capsys):
    section = dataclasses.replace(SECTION, resume=False)
    write_beton(source_of(MemoryStore), killed, section)
    assert listing(killed.parent)["a.beton"] == expected["a.beton"]
    assert f"removes {killed}.partial" in capsys.readouterr().err
    assert len(listing(killed.parent)) == 2


def test_finished_beton_is_left_as_it_is_unless_it_is_another(tmp_path, capsys):
    path = tmp_path / "a.beton"
    first = write_beton(source_of(MemoryStore), path, SECTION)
    inode = path.stat().st_ino
    assert write_beton(source_of(MemoryStore), path, SECTION) == first
    assert path.stat().st_ino == inode
    assert "holds these images already" in capsys.readouterr().err
    write_beton(source_of(MemoryStore), path, dataclasses.replace(SECTION, seed=1))
    assert path.stat().st_ino != inode


def test_damaged_image_stops_a_long_write_only_until_it_may_be_skipped(tmp_path, capsys):
    source = make_source(NUM_IMAGES)
    source.store.files[storage_order(source, SECTION)[55]] = b"not an image"
    with pytest.raises(SourceError, match="expected an image"):
        write_beton(source, tmp_path / "a.beton", dataclasses.replace(SECTION, on_error="stop"))
    assert f"kept {tmp_path}/a.beton.partial" in capsys.readouterr().err
    assert len(write_beton(source, tmp_path / "a.beton", SECTION).skipped) == 1
    assert "resumes" in capsys.readouterr().err
    write_beton(source, tmp_path / "b.beton", SECTION)
    assert (tmp_path / "a.beton").read_bytes() == (tmp_path / "b.beton").read_bytes()


def test_interrupted_write_without_a_stored_image_leaves_nothing(tmp_path):
    source = source_of(MemoryStore)
    source.store.files[:] = [b""] * NUM_IMAGES
    with pytest.raises(SourceError):
        write_beton(source, tmp_path / "a.beton", dataclasses.replace(SECTION, on_error="stop"))
    assert listing(tmp_path) == {}


@pytest.mark.fault
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_script_goes_on_with_the_same_command(tmp_path, large_images, signal_number):
    out = tmp_path / "out"
    command = ["env", "--default-signal=INT", sys.executable, str(SCRIPT), "--resume=true"]
    command += [f"--data_dir={large_images}", f"--out_dir={out}", "--val_fraction=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        partial = out / "train.beton.partial"
        while not (partial.exists() and partial.stat().st_size > 100_000):  # ten images or so
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal_number)
        errors = process.communicate(timeout=20)[1].decode()
    assert process.returncode == 128 + signal_number
    assert "the same command goes on from there" in errors
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert "resumes the interrupted write" in result.stderr
    assert result.returncode == 0
    assert {path.name for path in out.iterdir()} == {"train.beton", "train.beton.json"}
    assert load_manifest(out / "train.beton").num_samples == 150
