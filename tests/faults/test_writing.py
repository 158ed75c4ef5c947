"""A write that fails names the image or the cause, and leaves an old beton and nothing else."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from memory_source import FailingStore, KillingStore, failing, listing, make_source

from ffvit.data.beton import manifest_path, open_beton, read_sample
from ffvit.data.beton_file import BetonFile
from ffvit.data.sources.base import FileStore
from ffvit.data.writer import storage_order, write_beton
from ffvit.errors import BetonError, SourceError
from ffvit.options import WriteSection

SCRIPT = Path(__file__).resolve().parents[2] / "write_imagenet.py"
CONFINED = Path(__file__).with_name("confined_write.py")


@pytest.fixture(autouse=True)
def no_process_left_behind():
    yield
    assert multiprocessing.active_children() == []


@pytest.fixture
def fails_while_writing(monkeypatch):
    """Let the estimate look at one image only, so that no failure comes that early."""
    monkeypatch.setattr("ffvit.data.writer._ESTIMATE_SAMPLES", 1)


@pytest.mark.usefixtures("fails_while_writing")
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("kind", ["undecodable", "killed", "bug"])
def test_failed_write_names_the_image_and_changes_nothing(tmp_path, kind, existing):
    sources = {
        "undecodable": make_source(),
        "killed": failing(KillingStore),
        "bug": failing(FailingStore),
    }
    sources["undecodable"].store.files[17] = b"not an image"
    # Only images may be skipped; what became of a dead worker nobody knows.
    section = WriteSection(num_workers=2, on_error="stop" if kind == "undecodable" else "skip")
    if existing:
        write_beton(make_source(11), tmp_path / "a.beton", section)
    before = listing(tmp_path)
    begin = time.monotonic()
    with pytest.raises(RuntimeError if kind == "bug" else SourceError, match=r"folder/17\.png"):
        write_beton(sources[kind], tmp_path / "a.beton", section)
    assert time.monotonic() - begin < 5
    assert listing(tmp_path) == before


@pytest.mark.fault
@pytest.mark.usefixtures("fails_while_writing")
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_killed_worker_of_any_start_method_is_noticed(tmp_path, start_method):
    section = WriteSection(num_workers=1)
    with pytest.raises(SourceError, match=r"folder/17\.png.*SIGKILL"):
        write_beton(failing(KillingStore), tmp_path / "a.beton", section, "", start_method)
    assert listing(tmp_path) == {}


def test_memory_that_runs_out_is_no_reason_to_skip_an_image(tmp_path, monkeypatch):
    def run_out(*_):
        raise MemoryError

    monkeypatch.setattr("ffvit.data.images._to_rgb", run_out)
    with pytest.raises(SourceError, match="memory ran out"):
        write_beton(make_source(), tmp_path / "a.beton", WriteSection(on_error="skip"))
    assert listing(tmp_path) == {}


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.usefixtures("fails_while_writing")
def test_file_removed_during_the_write_stops_it_or_is_skipped(tmp_path, on_error):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, data in enumerate(make_source(3).store.files):
        (folder / f"{number}.png").write_bytes(data)
    source = make_source(3, store=FileStore(folder, [f"{number}.png" for number in range(3)]))
    (folder / "1.png").unlink()  # after the source was indexed
    section = WriteSection(on_error=on_error, shuffle=False)
    path = tmp_path / "out" / "a.beton"
    if on_error == "stop":
        with pytest.raises(SourceError, match=r"1\.png: cannot read it \(No such file"):
            write_beton(source, path, section)
        assert listing(path.parent) == {}
    else:
        manifest = write_beton(source, path, section)
        assert manifest.skipped[0][0] == str(folder / "1.png")
        assert manifest.num_samples == 2


def test_skipped_images_are_listed_and_the_others_stored_in_order(tmp_path, capsys):
    source = make_source()
    source.store.files[3], source.store.files[17] = b"not an image", source.store.files[17][:-300]
    files = []
    for num_workers in (1, 3):
        section = WriteSection(on_error="skip", mode="raw", num_workers=num_workers, seed=5)
        manifest = write_beton(source, tmp_path / "a.beton", section)
        files.append((tmp_path / "a.beton").read_bytes())
    assert files[0] == files[1]
    kept = [index for index in storage_order(source, section) if index not in (3, 17)]
    assert (manifest.num_samples, len(kept)) == (21, 21)
    assert manifest.class_counts == (5, 5, 4, 3, 4)
    assert sorted(name for name, _ in manifest.skipped) == ["folder/17.png", "folder/3.png"]
    reasons = dict(manifest.skipped)
    assert reasons["folder/3.png"].startswith("expected an image in one of JPEG")
    assert reasons["folder/17.png"].startswith("expected a whole image")
    assert open_beton(tmp_path / "a.beton").num_samples == 21
    for position, index in enumerate(kept):
        pixels, label = read_sample(tmp_path / "a.beton", position)
        assert tuple(pixels[0, 0]) == (index, 99, 7 * index % 256)
        assert label == source.labels[index]
    assert "skipped folder/3.png: expected an image" in capsys.readouterr().err


@pytest.mark.usefixtures("fails_while_writing")
@pytest.mark.parametrize("first_bad", [0, 5])
def test_source_that_has_gone_is_not_skipped_image_by_image(tmp_path, first_bad):
    source = make_source(150)
    source.store.files[first_bad:] = [b""] * (150 - first_bad)
    with pytest.raises(SourceError, match=r"is (the source still there|this the right source)"):
        write_beton(source, tmp_path / "a.beton", WriteSection(on_error="skip", shuffle=False))
    assert listing(tmp_path) == {}


def test_stored_sample_that_differs_from_what_was_encoded_stops_the_write(tmp_path, monkeypatch):
    write_beton(make_source(11), tmp_path / "a.beton", WriteSection(num_workers=1))
    before = listing(tmp_path)
    finish = BetonFile.finish

    def finish_and_damage(self):
        written = finish(self)
        os.pwrite(self._file.fileno(), b"\xfe", written.head_bytes)  # the first image's first byte
        return written

    monkeypatch.setattr(BetonFile, "finish", finish_and_damage)
    with pytest.raises(BetonError, match="sample 0 is not what was written"):
        write_beton(make_source(), tmp_path / "a.beton", WriteSection(num_workers=1))
    assert listing(tmp_path) == before


# Within the journal, the images, and the table behind the images.
@pytest.mark.parametrize("limit_bytes", [100, 100_000, 2658 + 23 * 48 * 64 * 3 + 100])
def test_quota_is_one_error_and_leaves_nothing(tmp_path, limit_bytes):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limits[1]))
    try:
        with pytest.raises(BetonError, match="cannot write it"):
            write_beton(make_source(), tmp_path / "a.beton", WriteSection(mode="raw"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert listing(tmp_path) == {}


def test_too_small_a_disk_is_refused_before_writing(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BetonError, match="free"):
        write_beton(make_source(), tmp_path / "new" / "a.beton", WriteSection(num_workers=2))
    assert listing(tmp_path) == {}


def test_file_in_the_place_of_the_folder_is_one_error(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BetonError, match="cannot write it"):
        write_beton(make_source(), tmp_path / "out" / "a.beton", WriteSection(num_workers=2))
    assert listing(tmp_path) == {"out": b"mine"}


def test_what_a_dead_writer_left_is_overwritten_and_removed(tmp_path):
    write_beton(make_source(), tmp_path / "expected.beton", WriteSection())
    for name in ("a.beton.partial", "a.beton.partial.journal", "a.beton.partial.json"):
        (tmp_path / name).write_bytes(b"\xff" * 300_000)
    write_beton(make_source(), tmp_path / "a.beton", WriteSection())
    files = listing(tmp_path)
    assert files["a.beton"] == files["expected.beton"]
    assert files.keys() == {"a.beton", "a.beton.json", "expected.beton", "expected.beton.json"}


HOLD_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("resume", [False, True])
def test_living_writer_of_the_same_beton_is_left_alone(tmp_path, resume):
    (tmp_path / "a.beton.partial").write_bytes(b"what it has written")
    journal = tmp_path / "a.beton.partial.journal"
    command = [sys.executable, "-c", HOLD_LOCK, str(journal)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"held\n"
        before = listing(tmp_path)
        with pytest.raises(BetonError, match="another process is writing it"):
            write_beton(make_source(), tmp_path / "a.beton", WriteSection(resume=resume))
        assert listing(tmp_path) == before
        writer.stdin.close()


def die_between_the_two_renames(path: Path) -> None:
    rename = Path.replace

    def replace(self: Path, target: Path) -> None:
        if self.suffix == ".json":
            os._exit(9)
        rename(self, target)

    Path.replace = replace
    write_beton(make_source(), path, WriteSection(seed=1))


def test_beton_is_never_opened_with_the_manifest_of_the_one_before(tmp_path):
    path = tmp_path / "a.beton"
    write_beton(make_source(11), path, WriteSection())
    old = path.read_bytes()
    writer = multiprocessing.get_context("fork").Process(
        target=die_between_the_two_renames, args=(path,)
    )
    writer.start()
    writer.join(60)
    assert writer.exitcode == 9
    assert path.read_bytes() != old
    with pytest.raises(BetonError, match="put the right one beside it"):
        open_beton(path)
    manifest_path(path).unlink()
    assert open_beton(path).num_samples == 23


@pytest.mark.fault
def test_full_disk_and_small_shared_memory(tmp_path):
    """In a mount namespace of its own, so that both may be as small as they like."""
    command = ["unshare", "-m", sys.executable, str(CONFINED), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if "unshare failed" in result.stderr or "cannot mount" in result.stderr:
        pytest.skip("needs the right to mount a tmpfs: root, or user namespaces")
    assert result.returncode == 0, result.stderr
    reports = json.loads(result.stdout.splitlines()[-1])
    full = reports["full disk"]
    assert "a.beton: cannot write it (No space left on device)" in full["error"]
    assert full["left"] == full["before"]
    resumed = reports["full disk, resumed on a larger one"]
    assert resumed["error"] == ""
    assert resumed["equal"]
    for start_method in ("fork", "spawn", "forkserver"):
        report = reports[f"small shared memory, {start_method}"]
        assert (report["error"], report["equal"], report["shm"]) == ("", True, [])


def group_is_gone(group: int, timeout_s: float) -> bool:
    """Wait until no process of a group is left."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.fault
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("to_group", [False, True])
def test_interrupted_script_leaves_no_file_and_no_process(
    tmp_path, large_images, signal_number, to_group
):
    if to_group and signal_number != signal.SIGINT:
        pytest.skip("only a terminal's Ctrl-C goes to all processes")
    # A background job of a shell, as CI may be, ignores SIGINT, and its children inherit that.
    default = ["env", "--default-signal=INT"]
    options = [f"--data_dir={large_images}", f"--out_dir={tmp_path}", "--val_fraction=0"]
    process = subprocess.Popen(
        [*default, sys.executable, str(SCRIPT), *options],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with process:
        while not list(tmp_path.glob("*.partial")):
            assert process.poll() is None
            time.sleep(0.02)
        (os.killpg if to_group else os.kill)(process.pid, signal_number)
        errors = process.communicate(timeout=20)[1].decode()
    assert "Traceback" not in errors
    if signal_number != signal.SIGKILL:  # which leaves no time to tidy up
        assert process.returncode == 128 + signal_number
        assert list(tmp_path.iterdir()) == []
    assert group_is_gone(process.pid, timeout_s=5)
