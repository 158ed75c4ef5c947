"""Each digit is in one split, the same for the same seed, and stands out from its frame."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ffvit.data import sample
from ffvit.data.sample import CONTRAST, draw_scene, write_sample
from ffvit.errors import SourceError


@pytest.fixture
def few_digits(monkeypatch):
    """Make the sample of the first 60 digits only."""
    digits, labels = load_digits(return_X_y=True)
    monkeypatch.setattr(sample, "load_digits", lambda **_: (digits[:60], labels[:60]))
    return labels[:60]


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jpg")}


def test_each_digit_is_in_one_split_and_in_its_class(tmp_path, few_digits):
    write_sample(tmp_path / "digits")
    written = files(tmp_path / "digits")
    numbers = sorted(int(name[-8:-4]) for name in written)
    assert numbers == list(range(60))
    for name in written:
        split, label, file = name.split("/")
        assert split in ("train", "val")
        assert int(label) == few_digits[int(file[-8:-4])]


def test_a_fifth_of_each_class_is_held_out():
    _, labels = load_digits(return_X_y=True)
    splits = np.array(sample._splits(labels, seed=0))
    counts = np.bincount(labels[splits == "val"]) / np.bincount(labels)
    assert np.abs(counts - 0.2).max() < 0.005
    assert (splits == "train").sum() + (splits == "val").sum() == 1797


@pytest.mark.usefixtures("few_digits")
def test_same_seed_gives_the_same_files(tmp_path):
    (tmp_path / "b").mkdir()  # an empty folder may be there
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_sample(tmp_path / name, seed)
    a, b, c = (files(tmp_path / name) for name in "abc")
    assert a == b
    assert not a.items() & c.items()


@pytest.mark.usefixtures("few_digits")
def test_images_are_decodable_colour_photographs_of_varying_sides(tmp_path):
    write_sample(tmp_path / "digits")
    sizes = set()
    for data in files(tmp_path / "digits").values():
        image = Image.open(io.BytesIO(data))
        image.load()
        sizes.add(image.size)
        assert image.mode == "RGB"
    assert all(96 <= side <= 160 for size in sizes for side in size)
    assert len(sizes) > 50


def test_digit_stands_out_against_its_frame():
    digit = np.zeros((8, 8), np.float32)
    digit[1:7, 3:5] = 16
    for seed in range(20):
        image = np.asarray(draw_scene(digit, np.random.default_rng(seed))).astype(float)
        luma = image @ [0.299, 0.587, 0.114]
        height, width = luma.shape
        middle = luma[height // 2 - 4 : height // 2 + 4, width // 2 - 3 : width // 2 + 3].mean()
        frame = np.concatenate([luma[:, :8].ravel(), luma[:, -8:].ravel()]).mean()
        assert middle - frame > CONTRAST / 3


def test_scenes_differ_though_the_digit_is_the_same():
    digit = load_digits().images[0].astype(np.float32)
    scenes = [draw_scene(digit, np.random.default_rng(seed)).resize((32, 32)) for seed in (0, 1)]
    difference = np.asarray(scenes[0]).astype(int) - np.asarray(scenes[1])
    assert np.abs(difference).mean() > 20


def test_used_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SourceError, match="remove it"):
        write_sample(tmp_path)


@pytest.mark.usefixtures("few_digits")
def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample, "draw_scene", fail)
    with pytest.raises(SourceError, match="No space left"):
        write_sample(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []
