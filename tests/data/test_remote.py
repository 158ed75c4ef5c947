"""Betons at URLs, of a real S3 server on this machine and of files: copied once, and checked."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from ffvit.data import remote
from ffvit.data.remote import stage
from ffvit.data.storage import Storage, find_betons
from ffvit.errors import BetonError, ConfigError

pytest.importorskip("fsspec")
BUCKET = "betons"


@pytest.fixture(scope="module")
def server():
    """Start an S3 server, and point S3 clients of this process and its children to it."""
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    import s3fs  # noqa: PLC0415 - optional

    thread = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    thread.start()
    host, port = thread.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    patch = pytest.MonkeyPatch()
    for name, value in variables.items():
        patch.setenv(name, value)
    files = s3fs.S3FileSystem()
    files.mkdir(BUCKET)
    yield files
    patch.undo()
    thread.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def upload(server):
    """Upload a beton and its manifest; returns the URL."""

    def put(beton: Path, name: str, with_manifest: bool = True) -> str:
        server.put_file(str(beton), f"{BUCKET}/{name}")
        if with_manifest:
            server.put_file(f"{beton}.json", f"{BUCKET}/{name}.json")
        server.invalidate_cache()
        return f"s3://{BUCKET}/{name}"

    return put


def count_parts(monkeypatch):
    parts = []
    read = remote._part

    def counted(*arguments):
        parts.append(arguments[2:])
        return read(*arguments)

    monkeypatch.setattr(remote, "_part", counted)
    return parts


def test_a_beton_in_s3_is_copied_once_and_read(upload, tiny_beton, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(remote, "_PART_BYTES", 10_000)
    url = upload(tiny_beton, "train.beton")
    parts = count_parts(monkeypatch)
    path = stage(url, tmp_path)
    assert path.name == "train.beton"
    assert path.read_bytes() == tiny_beton.read_bytes()
    assert len(parts) == -(-tiny_beton.stat().st_size // 10_000)
    assert "copying" in capsys.readouterr().err
    parts.clear()
    assert stage(url, tmp_path) == path
    assert parts == []
    assert capsys.readouterr().err == ""
    storage = Storage(url, str(tmp_path))
    assert storage.num_samples == 64
    assert storage.info.label_names is not None


def test_a_pattern_names_all_shards(upload, tiny_beton, tiny_val_beton, tmp_path):
    upload(tiny_beton, "shards/a-0.beton")
    upload(tiny_val_beton, "shards/a-1.beton")
    paths = find_betons(f"s3://{BUCKET}/shards/a-*.beton", str(tmp_path))
    assert [path.name for path in paths] == ["a-0.beton", "a-1.beton"]
    with pytest.raises(BetonError, match="no file fits"):
        find_betons(f"s3://{BUCKET}/shards/b-*.beton", str(tmp_path))


@pytest.mark.usefixtures("server")
def test_what_is_wrong_with_a_bucket_is_one_line(tmp_path):
    for url in (f"s3://{BUCKET}/no.beton", "s3://nobucket/no.beton"):
        with pytest.raises(BetonError, match=r"found nothing|cannot read it"):
            stage(url, tmp_path)


def url_of(path):
    return f"file://{path}"


def test_a_copy_with_another_byte_is_refused_and_removed(beton_copy, tmp_path):
    data = bytearray(beton_copy.read_bytes())
    data[len(data) // 2] ^= 1
    beton_copy.write_bytes(data)
    with pytest.raises(BetonError, match="its copy is damaged"):
        stage(url_of(beton_copy), tmp_path / "stage")
    left = {path.suffix for path in (tmp_path / "stage").rglob("*") if path.is_file()}
    assert left == {".lock"}


def test_without_a_manifest_the_images_are_decoded(beton_copy, tmp_path, capsys):
    Path(f"{beton_copy}.json").unlink()
    path = stage(url_of(beton_copy), tmp_path / "stage")
    assert path.read_bytes() == beton_copy.read_bytes()
    assert "has no manifest" in capsys.readouterr().err


def test_a_changed_beton_is_copied_again(beton_copy, tiny_val_beton, tmp_path):
    folder = tmp_path / "stage"
    path = stage(url_of(beton_copy), folder)
    with path.open("rb") as old:  # as a run that goes on reading
        beton_copy.write_bytes(tiny_val_beton.read_bytes())
        Path(f"{beton_copy}.json").write_bytes(Path(f"{tiny_val_beton}.json").read_bytes())
        assert stage(url_of(beton_copy), folder) == path
        assert path.read_bytes() == tiny_val_beton.read_bytes()
        assert len(old.read()) != path.stat().st_size


def test_without_a_manifest_a_newer_file_of_the_same_size_is_copied_again(
    beton_copy, tmp_path, monkeypatch
):
    Path(f"{beton_copy}.json").unlink()
    stage(url_of(beton_copy), tmp_path / "stage")
    parts = count_parts(monkeypatch)
    stage(url_of(beton_copy), tmp_path / "stage")
    assert parts == []
    os.utime(beton_copy, (1, 1))
    stage(url_of(beton_copy), tmp_path / "stage")
    assert len(parts) == 1


def test_a_copy_that_was_touched_is_made_again(beton_copy, tmp_path):
    folder = tmp_path / "stage"
    path = stage(url_of(beton_copy), folder)
    os.truncate(path, 100)
    assert stage(url_of(beton_copy), folder).read_bytes() == beton_copy.read_bytes()


def test_an_interrupted_copy_goes_on_where_it_ended(beton_copy, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_PART_BYTES", 10_000)
    parts = count_parts(monkeypatch)
    read = remote._part

    def fails_late(files, name, start, end):
        if start >= 50_000:
            raise TimeoutError("connection lost")
        return read(files, name, start, end)

    monkeypatch.setattr(remote, "_part", fails_late)
    with pytest.raises(BetonError, match=r"TimeoutError: connection lost.*credentials"):
        stage(url_of(beton_copy), tmp_path / "stage")
    monkeypatch.setattr(remote, "_part", read)
    parts.clear()
    path = stage(url_of(beton_copy), tmp_path / "stage")
    assert path.read_bytes() == beton_copy.read_bytes()
    assert min(start for start, _ in parts) == 50_000


def test_a_torn_note_of_an_interrupted_copy_starts_it_over(beton_copy, tmp_path):
    path = stage(url_of(beton_copy), tmp_path / "stage")
    path.rename(f"{path}.partial")
    Path(f"{path}.origin").unlink()
    Path(f"{path}.partial.origin").write_text('{"url": "fi')
    assert stage(url_of(beton_copy), tmp_path / "stage").exists()


def _stage(url, folder, reports):
    reports.put(str(stage(url, folder)))


def test_processes_of_one_machine_copy_once(beton_copy, tmp_path, monkeypatch):
    started = tmp_path / "reads"
    started.touch()
    read = remote._part

    def noted(*arguments):
        with started.open("a") as file:
            file.write("x")
        time.sleep(1)  # so that the others come while it copies
        return read(*arguments)

    monkeypatch.setattr(remote, "_part", noted)
    context = multiprocessing.get_context("fork")
    reports = context.SimpleQueue()
    arguments = (url_of(beton_copy), tmp_path / "stage", reports)
    processes = [context.Process(target=_stage, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len({reports.get() for _ in processes}) == 1
    assert started.read_text() == "x"


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("file:///no/such/x.beton", BetonError, "found nothing"),
        ("file:///", BetonError, "name the file"),
        ("nosuch://x/y.beton", BetonError, "cannot read it"),
    ],
)
def test_a_wrong_url_is_one_line(tmp_path, url, error, message):
    with pytest.raises(error, match=message):
        stage(url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ConfigError, match="pip install fsspec"):
        stage("s3://a/b.beton", tmp_path)


def test_a_full_disk_is_refused_before_copying(beton_copy, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(BetonError, match=r"needs about .* data\.stage_dir"):
        stage(url_of(beton_copy), tmp_path / "stage")


def test_the_default_folder_is_this_users_own(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = remote.default_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    (tmp_path / f"ffvit-betons-{os.getuid()}").mkdir()
    with pytest.raises(ConfigError, match="somebody else"):
        remote.default_folder()


def test_the_note_says_where_a_copy_is_from(beton_copy, tmp_path):
    path = stage(url_of(beton_copy), tmp_path / "stage")
    origin = json.loads(path.with_name(f"{path.name}.origin").read_text())
    assert origin["url"] == url_of(beton_copy)
