"""Sources that somebody else made run nothing, unpack nothing, and ask for no endless memory."""

import io
import os
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_trees import image_bytes, open_all, tar_bytes

from ffvit.data.sources.cifar import open_cifar
from ffvit.data.sources.ground_truth import read_devkit
from ffvit.errors import SourceError

CIFAR_FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


class Calls:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments, state=None) -> None:
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def write_cifar(folder, record: object) -> None:
    for name in CIFAR_FILES:
        (folder / name).write_bytes(pickle.dumps(record, protocol=4))
    names = pickle.dumps({b"label_names": [b"cat", b"dog"]}, protocol=4)
    (folder / "batches.meta").write_bytes(names)


@pytest.mark.parametrize(
    "call",
    [
        Calls(os.system, "touch executed"),
        Calls(eval, "open('executed', 'w')"),
        Calls(getattr, "text", "encode"),
        Calls(np.frombuffer, b"abc"),
        Calls(np.dtype, "O8"),
        # A byte type whose flags say that its bytes are pointers to objects.
        Calls(np.dtype, "u1", state=(3, "|", None, None, None, -1, -1, 63)),
    ],
)
def test_cifar_runs_nothing_and_believes_no_type(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    record = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
    write_cifar(tmp_path, record | {b"more": call})
    if call.reduced[2] is None:
        with pytest.raises(SourceError, match="data_batch_1"):
            open_cifar(tmp_path)
    else:
        assert len(open_cifar(tmp_path)["train"]) == 10  # the state is not looked at
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kind", [np.float32, object, np.uint16])
def test_cifar_array_of_another_type_is_refused(tmp_path, kind):
    write_cifar(tmp_path, {b"data": np.zeros((2, 3072), kind), b"labels": [0, 1]})
    with pytest.raises(SourceError, match="data_batch_1"):
        open_cifar(tmp_path)


@pytest.mark.parametrize(
    "label",
    [b"99999999999", b"16777216", b"9" * 5000, b'{"label": 1e99}', b"[" * 50_000, b'{"a": 1}'],
)
def test_webdataset_label_beyond_reason_is_refused(tmp_path, label):
    suffix = "cls" if label.isdigit() else "json"
    files = {"a.jpg": image_bytes(0), f"a.{suffix}": label}
    (tmp_path / "0.tar").write_bytes(tar_bytes(files))
    with pytest.raises(SourceError, match=r"0\.tar:a"):
        open_all(tmp_path)


def test_parquet_label_beyond_reason_is_refused(tmp_path):
    rows = {"image": [{"bytes": image_bytes(0), "path": ""}], "label": [1 << 40]}
    pq.write_table(pa.table(rows), tmp_path / "train.parquet")
    with pytest.raises(SourceError, match="label 1099511627776"):
        open_all(tmp_path)


def test_parquet_label_names_nested_without_end_are_left_out(tmp_path):
    rows = {"image": [{"bytes": image_bytes(i), "path": ""} for i in (0, 1)], "label": [0, 1]}
    table = pa.table(rows).replace_schema_metadata({"huggingface": "[" * 100_000})
    pq.write_table(table, tmp_path / "train.parquet")
    assert open_all(tmp_path, val_fraction=0)["train"].label_names == ("0", "1")


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "\x9b1m"])
def test_class_name_that_would_steer_a_terminal_is_refused(tmp_path, name):
    files = {f"{c}/{i}.jpg": image_bytes(i) for c in ("a", name) for i in (0, 1)}
    (tmp_path / "set.tar").write_bytes(tar_bytes(files))
    with pytest.raises(SourceError, match="of printable text") as info:
        open_all(tmp_path / "set.tar")
    assert str(info.value).isprintable()


def test_archive_that_points_outside_its_folder_writes_nothing(tmp_path):
    files = {f"../{c}/../../{c}/{i}.jpg": image_bytes(i) for c in "ab" for i in (0, 1)}
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "set.tar").write_bytes(tar_bytes(files))
    before = sorted(tmp_path.rglob("*"))
    source = open_all(tmp_path / "sub" / "set.tar", val_fraction=0)["train"]
    assert source.read(0) == image_bytes(0)
    assert sorted(tmp_path.rglob("*")) == before


def test_sparse_member_that_claims_a_terabyte_is_refused(tmp_path):
    member = tarfile.TarInfo("a/0.jpg")
    member.size = 512
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(1 << 40),
        "GNU.sparse.map": "0,512",
    }
    with tarfile.open(tmp_path / "set.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(bytes(512)))
    with pytest.raises(SourceError, match="a sparse file"):
        open_all(tmp_path / "set.tar")


def test_devkit_that_unpacks_to_gigabytes_is_refused(tmp_path):
    path = tmp_path / "ILSVRC2012_devkit_t12.tar.gz"
    member = tarfile.TarInfo("ILSVRC2012_devkit_t12/data/meta.mat")
    member.size = 65 << 20
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(SourceError, match=r"meta\.mat has more than"):
        read_devkit(path)
