"""Archives, shards, Parquet and CIFAR files: the right bytes and label for every image."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from source_trees import (
    image_bytes,
    open_all,
    tar_bytes,
)

from ffvit.data.sources import detect_layout
from ffvit.errors import SourceError


def test_one_archive_with_train_and_val_is_read_in_place(tmp_path):
    files = {f"set/train/{c}/{i}.jpg": image_bytes(ord(c) % 50 + i) for c in "ba" for i in (0, 1)}
    files |= {"set/val/b/9.jpg": image_bytes(99), "set/README": b"notes"}
    (tmp_path / "set.tar").write_bytes(tar_bytes(files))
    sources = open_all(tmp_path / "set.tar")
    assert sources["val"].labels.tolist() == [1]
    assert sources["val"].read(0) == files["set/val/b/9.jpg"]
    assert [sources["train"].read(i) for i in range(4)] == [files[k] for k in sorted(files)[1:5]]


def test_archives_named_by_split_hold_class_folders(tmp_path):
    for split in ("train", "val"):
        files = {f"{split}_images/{c}/{i}.jpg": image_bytes(i) for c in "ab" for i in range(2)}
        (tmp_path / f"pets_{split}.tar").write_bytes(tar_bytes(files))
    sources = open_all(tmp_path)
    assert {split: source.labels.tolist() for split, source in sources.items()} == {
        "train": [0, 0, 1, 1],
        "val": [0, 0, 1, 1],
    }


@pytest.mark.parametrize("suffix", ["cls", "json"])
def test_webdataset_shards_pair_images_and_labels(tmp_path, suffix):
    def label(value: int) -> bytes:
        return str(value).encode() if suffix == "cls" else json.dumps({"label": value}).encode()

    for shard in (0, 1):
        files = {}
        for i in range(3):
            files[f"s{shard}_{i}.jpg"] = image_bytes(10 * shard + i)
            files[f"s{shard}_{i}.{suffix}"] = label((shard + i) % 3)
        (tmp_path / f"set-train-{shard:03d}.tar").write_bytes(tar_bytes(files))
    (tmp_path / "set-validation-0.tar").write_bytes(
        tar_bytes({f"v.{suffix}": label(2), "v.jpg": image_bytes(77)})
    )
    sources = open_all(tmp_path)
    assert sources["train"].labels.tolist() == [0, 1, 2, 1, 2, 0]
    assert sources["train"].read(4) == image_bytes(11)
    assert (sources["val"].labels.tolist(), sources["val"].read(0)) == ([2], image_bytes(77))


def test_webdataset_image_without_label_is_refused(tmp_path):
    files = {"a.jpg": image_bytes(0), "a.cls": b"0", "b.jpg": image_bytes(1)}
    (tmp_path / "0.tar").write_bytes(tar_bytes(files))
    with pytest.raises(SourceError, match=r"0\.tar:b"):
        open_all(tmp_path)


@pytest.mark.parametrize("cut", [700, -600, -1024])
def test_cut_archive_is_refused(tmp_path, cut):
    data = tar_bytes({f"{c}/{i}.jpg": image_bytes(i) for c in "ab" for i in range(2)}).rstrip(b"\0")
    data += bytes(-len(data) % 512)
    (tmp_path / "set.tar").write_bytes(data[:cut] if cut != -1024 else data)
    with pytest.raises(SourceError, match=r"set\.tar"):
        open_all(tmp_path / "set.tar")


def test_parquet_rows_keep_their_labels_and_the_schema_names_them(tmp_path):
    features = {"info": {"features": {"label": {"names": ["cat", "dog", "owl"]}}}}

    def write(name: str, numbers: range) -> None:
        table = pa.table(
            {
                "image": [{"bytes": image_bytes(n), "path": f"{n}.jpg"} for n in numbers],
                "label": [n % 3 for n in numbers],
            }
        ).replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(table, tmp_path / name, row_group_size=4)

    write("train-00000-of-00002.parquet", range(9))
    write("train-00001-of-00002.parquet", range(20, 27))
    write("validation-00000-of-00001.parquet", range(50, 53))
    assert detect_layout(tmp_path) == "parquet"
    sources = open_all(tmp_path)
    numbers = [*range(9), *range(20, 27)]
    train = sources["train"]
    assert train.label_names == ("cat", "dog", "owl")
    assert train.labels.tolist() == [n % 3 for n in numbers]
    assert [train.read(i) for i in reversed(range(16))] == [
        image_bytes(n) for n in reversed(numbers)
    ]
    assert train.blocks.tolist() == [0] * 4 + [1] * 4 + [2] + [3] * 4 + [4] * 3
    assert "train-00001-of-00002.parquet:row group 1:row 2" in train.name(15)


def test_test_split_is_left_out_where_there_is_a_val_split(tmp_path):
    for split in ("train", "test", "validation"):
        label = -1 if split == "test" else 0
        rows = {"image": [{"bytes": image_bytes(0), "path": ""}], "label": [label]}
        pq.write_table(pa.table(rows), tmp_path / f"{split}-00000-of-00001.parquet")
    assert (
        open_all(tmp_path)["val"]
        .name(0)
        .endswith("validation-00000-of-00001.parquet:row group 0:row 0")
    )
    (tmp_path / "validation-00000-of-00001.parquet").unlink()
    with pytest.raises(SourceError, match="withheld"):
        open_all(tmp_path)


def test_parquet_of_other_columns_is_refused(tmp_path):
    pq.write_table(pa.table({"img": [b"x"], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(SourceError, match="img: binary"):
        open_all(tmp_path)


def write_cifar(folder: Path, rows: dict[str, np.ndarray], labels: dict[str, list[int]]) -> None:
    folder.mkdir()
    for name, pixels in rows.items():
        record = {b"data": pixels, b"labels": labels[name]}
        (folder / name).write_bytes(pickle.dumps(record, protocol=4))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"cat", b"dog"]}))


def test_cifar_pixels_and_labels_survive(tmp_path):
    rng = np.random.default_rng(0)
    files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    rows = {name: rng.integers(0, 256, (2, 3072), dtype=np.uint8) for name in files}
    labels = {name: [i % 2, (i + 1) % 2] for i, name in enumerate(files)}
    write_cifar(tmp_path / "cifar-10-batches-py", rows, labels)
    assert detect_layout(tmp_path) == "cifar"
    sources = open_all(tmp_path)
    assert sources["train"].labels.tolist() == [0, 1, 1, 0, 0, 1, 1, 0, 0, 1]
    assert sources["val"].label_names == ("cat", "dog")
    pixels = np.asarray(Image.open(io.BytesIO(sources["train"].read(3))))
    expected = rows["data_batch_2"][1].reshape(3, 32, 32)
    assert np.array_equal(pixels.transpose(2, 0, 1), expected)


def test_cifar_pickle_cannot_run_anything(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    files = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    rows = {name: np.zeros((1, 3072), np.uint8) for name in files}
    write_cifar(tmp_path / "c", rows, {name: [0] for name in files})
    (tmp_path / "c" / "data_batch_3").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(SourceError, match="data_batch_3"):
        open_all(tmp_path / "c")
    assert not (tmp_path / "executed").exists()
