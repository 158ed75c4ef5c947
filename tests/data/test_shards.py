"""Several processes write a data set as shards, which read as one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ffvit.data.beton import load_manifest
from ffvit.data.sources import open_sources
from ffvit.data.storage import Storage, find_betons
from ffvit.data.writer import take_share, write_beton
from ffvit.errors import BetonError, SourceError
from ffvit.options import WriteSection
from tests.conftest import NUM_CLASSES, NUM_TRAIN, NUM_VAL

SCRIPT = Path(__file__).resolve().parents[2] / "write_imagenet.py"


@pytest.fixture(scope="module")
def train_source(image_folder):
    return open_sources(WriteSection(data_dir=str(image_folder)))["train"]


@pytest.mark.parametrize(
    "section", [WriteSection(), WriteSection(shuffle=False), WriteSection(subset=20)]
)
def test_shares_are_together_what_one_process_writes(train_source, section):
    shares = [take_share(train_source, section, rank, 5)[0] for rank in range(5)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    keys = np.concatenate([share.keys for share in shares])
    whole, options = take_share(train_source, section, 0, 1)
    assert len(keys) == (section.subset or NUM_TRAIN)
    assert sorted(keys) == sorted(whole.keys)
    assert options.subset == 0
    for share in shares:
        assert share.label_names == train_source.label_names
    if section.shuffle:
        assert len(set(shares[0].labels.tolist())) > 1  # not one class after the other
    else:
        assert keys.tolist() == whole.keys.tolist()


def test_more_processes_than_images_are_refused(train_source):
    with pytest.raises(SourceError, match=f"each of 99 processes, got {NUM_TRAIN}"):
        take_share(train_source, WriteSection(), 0, 99)


def write_shard(source, folder, rank, world_size):
    share, section = take_share(source, WriteSection(num_workers=1), rank, world_size)
    path = folder / f"train-{rank:05}-of-{world_size:05}.beton"
    write_beton(share, path, section, "train")
    return path


def test_shards_read_as_one_data_set_and_missing_ones_are_noticed(
    train_source, tiny_beton, tmp_path
):
    for rank in range(3):
        write_shard(train_source, tmp_path, rank, 3)
    pattern = str(tmp_path / "train-*.beton")
    storage, whole = Storage(pattern), Storage(str(tiny_beton))

    def images(data_set):
        return sorted(
            (data_set.read(sample), int(data_set.labels[sample]))
            for sample in range(data_set.num_samples)
        )

    assert images(storage) == images(whole)
    assert storage.info.label_names == whole.info.label_names

    write_shard(train_source, tmp_path, 1, 4)
    with pytest.raises(BetonError, match=r"the 4 shards .*3 are missing, such as number 0"):
        find_betons(pattern)
    for rank in (0, 2, 3):
        write_shard(train_source, tmp_path, rank, 4)
    with pytest.raises(BetonError, match=r"finds .*train in 3 and 4 shards.*-of-00004"):
        find_betons(pattern)
    assert len(find_betons(str(tmp_path / "train-*-of-00003.beton"))) == 3
    (tmp_path / "train-00002-of-00003.beton").unlink()
    with pytest.raises(BetonError, match="1 are missing, such as number 2"):
        find_betons(str(tmp_path / "train-*-of-00003.beton"))


def run_rank(rank, world_size, *arguments):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=os.environ
        | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_the_script_writes_a_shard_for_each_process(image_folder, tmp_path):
    arguments = [f"--data_dir={image_folder}", f"--out_dir={tmp_path}", "--num_workers=1"]
    processes = [run_rank(rank, 2, *arguments) for rank in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    for split, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        storage = Storage(str(tmp_path / f"{split}-*-of-00002.beton"))
        assert storage.num_samples == count
        assert storage.info.num_classes == NUM_CLASSES
    assert load_manifest(tmp_path / "train-00001-of-00002.beton").split == "train"
    assert "when all 2 processes are done: python train_imagenet.py" in outputs[0][0]
    assert f"'--data.train_path={tmp_path}/train-*-of-00002.beton'" in outputs[0][0]
    assert "train_imagenet.py" not in outputs[1][0]


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_is_named_by_it(image_folder, tmp_path):
    (tmp_path / "images/a").mkdir(parents=True)
    (tmp_path / "images/b").mkdir()
    sources = sorted((image_folder / "train").rglob("*.jpg"))
    for number in range(8):
        data = sources[number].read_bytes() if number != 7 else b"no image"
        (tmp_path / f"images/{'ab'[number // 4]}/{number}.jpg").write_bytes(data)
    arguments = [f"--data_dir={tmp_path / 'images'}", f"--out_dir={tmp_path / 'out'}"]
    arguments += ["--val_fraction=0", "--shuffle=false", "--num_workers=1"]
    processes = [run_rank(rank, 2, *arguments) for rank in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 2], outputs
    assert "7.jpg" in outputs[1][1]
