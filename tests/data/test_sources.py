"""Every layout, built small in a temporary folder: the right bytes and label for every image."""

import pickle

import numpy as np
import pytest
from source_trees import (
    WORDS,
    contents,
    image_bytes,
    open_all,
    tar_bytes,
    write_devkit,
    write_images,
)

from ffvit.data.sources import detect_layout, hold_out, take_evenly
from ffvit.errors import SourceError


@pytest.mark.parametrize("val", ["val", "valid", "validation", "test"])
@pytest.mark.parametrize("prefix", ["", "dataset-160/"])
def test_class_folders_are_labelled_in_sorted_order(tmp_path, val, prefix):
    train = write_images(
        tmp_path, [f"{prefix}train/{c}/{c}{i}.jpg" for c in ("dog", "cat", "owl") for i in (0, 1)]
    )
    held = write_images(
        tmp_path, [f"{prefix}{val}/owl/v0.png", f"{prefix}{val}/cat/v1.JPEG"], first=20
    )
    sources = open_all(tmp_path)
    assert sources["train"].label_names == sources["val"].label_names == ("cat", "dog", "owl")
    expected = {
        name.rpartition("/")[2]: (data, name.split("/")[-2]) for name, data in train.items()
    }
    assert contents(sources["train"]) == expected
    assert contents(sources["val"]) == {
        "v0.png": (held[f"{prefix}{val}/owl/v0.png"], "owl"),
        "v1.JPEG": (held[f"{prefix}{val}/cat/v1.JPEG"], "cat"),
    }


def test_nested_class_folders_belong_to_the_outer_class(tmp_path):
    write_images(tmp_path, ["train/a/images/0.jpg", "train/b/images/1.jpg", "val/b/images/2.jpg"])
    assert open_all(tmp_path)["val"].labels.tolist() == [1]


def test_class_folders_alone_hold_out_the_same_share_of_each_class(tmp_path):
    write_images(
        tmp_path, [f"{c}/{i}.jpg" for c, n in (("a", 20), ("b", 10), ("c", 2)) for i in range(n)]
    )
    sources = open_all(tmp_path, val_fraction=0.2)
    assert np.bincount(sources["val"].labels).tolist() == [4, 2, 1]
    assert np.bincount(sources["train"].labels).tolist() == [16, 8, 1]
    names = [source.name(i) for source in sources.values() for i in range(len(source))]
    assert len(set(names)) == 32


def test_held_out_images_depend_on_the_seed_only(tmp_path):
    write_images(tmp_path, [f"{c}/{i}.jpg" for c in "ab" for i in range(15)])
    held_out = [
        {source.name(i) for i in range(len(source))}
        for source in (open_all(tmp_path, seed=seed)["val"] for seed in (3, 3, 4))
    ]
    assert held_out[0] == held_out[1] != held_out[2]


def test_val_fraction_zero_leaves_all_in_train(tmp_path):
    write_images(tmp_path, ["a/0.jpg", "b/1.jpg"])
    assert {split: len(s) for split, s in open_all(tmp_path, val_fraction=0.0).items()} == {
        "train": 2
    }


def test_split_option_opens_one_split(tmp_path):
    write_images(tmp_path, ["train/a/0.jpg", "val/a/1.jpg"])
    assert open_all(tmp_path, split="val").keys() == {"val"}


def test_official_archives_are_labelled_through_the_devkit(tmp_path):
    trains = {
        f"{w}/{w}_{i}.JPEG": image_bytes(7 * n + i) for n, w in enumerate(WORDS) for i in (0, 1)
    }
    class_tars = {
        f"{w}.tar": tar_bytes({k.split("/")[1]: v for k, v in trains.items() if k.startswith(w)})
        for w in ("n02000", "n03000", "n01000")
    }
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(class_tars))
    vals = {f"ILSVRC2012_val_{i:08d}.JPEG": image_bytes(40 + i) for i in (4, 2, 1, 3)}
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(tar_bytes(vals))
    write_devkit(tmp_path, [3, 1, 2, 1])
    assert detect_layout(tmp_path) == "imagenet"
    sources = open_all(tmp_path)
    named = {w: f"{w} {words}" for w, words in WORDS.items()}
    assert sources["train"].label_names == tuple(named[w] for w in sorted(WORDS))
    found = {k.rpartition(":")[2]: v for k, v in contents(sources["train"]).items()}
    assert found == {k.split("/")[1]: (v, named[k.split("/")[0]]) for k, v in trains.items()}
    found = {k.rpartition(":")[2]: v for k, v in contents(sources["val"]).items()}
    truth = dict(zip(sorted(vals), ["n02000", "n03000", "n01000", "n03000"], strict=True))
    assert found == {name: (vals[name], named[truth[name]]) for name in vals}


def test_official_archives_need_the_devkit_for_val(tmp_path):
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(
        tar_bytes({"ILSVRC2012_val_00000001.JPEG": b"x"})
    )
    with pytest.raises(SourceError, match=r"devkit_t12\.tar\.gz"):
        open_all(tmp_path, split="val")


def test_flat_val_is_labelled_by_the_devkit_beside_it(tmp_path):
    write_images(tmp_path, [f"train/{w}/{w}.JPEG" for w in WORDS])
    write_images(tmp_path, [f"val/ILSVRC2012_val_{i:08d}.JPEG" for i in (1, 2, 3)])
    write_devkit(tmp_path, [2, 3, 1])
    assert open_all(tmp_path)["val"].labels.tolist() == [0, 1, 2]


def test_class_without_images_in_kaggle_layout_is_refused(tmp_path):
    images = tmp_path / "ILSVRC/Data/CLS-LOC"
    write_images(images, ["train/n01000/0.JPEG", "val/V_1.JPEG"])
    (images / "train/n02000").mkdir()
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nV_1,n01000 1\n")
    with pytest.raises(SourceError, match="n02000: a class folder without images"):
        open_all(tmp_path)


def test_kaggle_layout_is_labelled_by_its_solution(tmp_path):
    images = tmp_path / "ILSVRC/Data/CLS-LOC"
    write_images(
        images, [f"train/{w}/{w}_1.JPEG" for w in WORDS] + ["val/V_1.JPEG", "val/V_2.JPEG"]
    )
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\nV_2,n01000 1 2 3 4 \nV_1,n03000 85 1 499 272 n03000 1 1 9 9 \n"
    )
    (tmp_path / "LOC_synset_mapping.txt").write_text(
        "".join(f"{wordnet_id} {words}\n" for wordnet_id, words in WORDS.items())
    )
    assert detect_layout(tmp_path) == "kaggle"
    sources = open_all(tmp_path)
    assert sources["train"].label_names[0] == "n01000 tench, Tinca tinca"
    assert sources["train"].labels.tolist() == [0, 1, 2]
    assert sources["val"].labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    "text",
    [
        "b\na\nc\n",
        "x_1.jpg a\nx_0.jpg b\nx_2.jpg c\n",
        "x_0.jpg,1\nx_1.jpg,0\nx_2.jpg,2\n",
        "1\n0\n2\n",
    ],
)
def test_flat_val_is_labelled_by_a_ground_truth_file(tmp_path, text):
    write_images(tmp_path / "d", ["train/a/0.jpg", "train/b/0.jpg", "train/c/0.jpg"])
    write_images(tmp_path / "d", ["val/x_2.jpg", "val/x_0.jpg", "val/x_1.jpg"])
    (tmp_path / "truth.txt").write_text(text)
    source = open_all(tmp_path / "d", val_labels=str(tmp_path / "truth.txt"))["val"]
    assert {source.name(i)[-7:]: int(label) for i, label in enumerate(source.labels)} == {
        "x_0.jpg": 1,
        "x_1.jpg": 0,
        "x_2.jpg": 2,
    }


@pytest.mark.parametrize("text", ["1\n2\n2\n", "a\nb\n", "a\nb\nz\n", "x_0.jpg a\nx_1.jpg b\n"])
def test_doubtful_ground_truth_is_refused(tmp_path, text):
    write_images(tmp_path / "d", ["train/a/0.jpg", "train/b/0.jpg", "train/c/0.jpg"])
    write_images(tmp_path / "d", ["val/x_2.jpg", "val/x_0.jpg", "val/x_1.jpg"])
    (tmp_path / "truth.txt").write_text(text)
    with pytest.raises(SourceError, match=r"truth\.txt"):
        open_all(tmp_path / "d", val_labels=str(tmp_path / "truth.txt"))


def test_sources_travel_to_other_processes(tmp_path):
    (tmp_path / "set.tar").write_bytes(
        tar_bytes({"a/0.jpg": image_bytes(0), "b/1.jpg": image_bytes(1)})
    )
    source = open_all(tmp_path / "set.tar", val_fraction=0.0)["train"]
    source.read(0)  # opens a file, which must stay behind
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.read(i) for i in range(2)] == [image_bytes(0), image_bytes(1)]


def test_subset_takes_the_classes_in_turn(tmp_path):
    counts = {"a": 2, "b": 7, "c": 5}
    write_images(tmp_path, [f"train/{c}/{i}.jpg" for c, n in counts.items() for i in range(n)])
    source = open_all(tmp_path, val_fraction=0.0)["train"]
    assert np.bincount(take_evenly(source, 8, seed=0).labels).tolist() == [2, 3, 3]
    assert len(take_evenly(source, 99, seed=0)) == 14


def test_hold_out_of_single_images_is_refused(tmp_path):
    write_images(tmp_path, ["a/0.jpg", "b/1.jpg"])
    source = open_all(tmp_path, val_fraction=0.0)["train"]
    with pytest.raises(SourceError, match="--val_fraction=0"):
        hold_out(source, 0.1, seed=0)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "an empty folder"),
        (["notes.txt"], "notes.txt"),
        (["train/a/0.jpg", "train/b/", "val/a/1.jpg"], "train/b: a class folder without images"),
        (["a/0.jpg", "b/"], "b: a class folder without images"),
        (["train/a/0.jpg", "val/a/0.jpg", "val/c/0.jpg"], "'c'"),
        (["train/a/0.jpg", "other/b/0.jpg"], "'other'"),
        (["train/a/0.jpg", "train/1.jpg"], "1.jpg"),
        (["train/a/0.jpg", "val/1.jpg"], "--val_labels"),
        (["a/", "b/"], "2 folders"),
        (["0.tar", "train.parquet"], "shards or as parquet"),
    ],
)
def test_wrong_layout_is_refused_with_what_was_found(tmp_path, files, message):
    for name in files:
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(image_bytes(0))
    (tmp_path / "d").mkdir(exist_ok=True)
    with pytest.raises(SourceError, match=message):
        open_all(tmp_path / "d")


def test_misspelt_folder_names_the_nearest(tmp_path):
    (tmp_path / "imagenette").mkdir()
    with pytest.raises(SourceError, match=r"did you mean .*imagenette"):
        open_all(tmp_path / "imagnette")


def test_folder_reached_twice_is_refused(tmp_path):
    write_images(tmp_path, ["a/0.jpg"])
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(SourceError, match="reached twice"):
        open_all(tmp_path)


def test_file_removed_after_indexing_is_named(tmp_path):
    write_images(tmp_path, ["train/a/0.jpg", "val/a/1.jpg"])
    source = open_all(tmp_path)["train"]
    (tmp_path / "train/a/0.jpg").unlink()
    with pytest.raises(SourceError, match=r"train/a/0\.jpg"):
        source.read(0)
