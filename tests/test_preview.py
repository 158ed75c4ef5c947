"""The picture of a config's data shows what the model gets, and what it is cut from."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ffvit.__main__ import main
from ffvit.contact_sheet import denormalize, label_texts, training_rows
from ffvit.data.augment import normalize
from ffvit.data.loader import create_train_loader
from ffvit.data.storage import Storage
from ffvit.options import DataSection


@pytest.fixture
def options(tiny_betons):
    return [
        f"--data.train_path={tiny_betons['train']}",
        f"--data.val_path={tiny_betons['val']}",
        "--data.num_workers=1",
        "--resolution.min_res=32",
        "--resolution.max_res=64",
        "--resolution.multiple=32",
        "--resolution.start_ramp=1",
        "--resolution.end_ramp=4",
        "--training.epochs=6",
        "--training.global_batch_size=32",
        "--validation.resolution=64",
    ]


def draw(options, out):
    main(["preview", f"--out={out}", *options])
    with Image.open(out) as sheet:
        return np.asarray(sheet.convert("RGB"))


def train_loader(path, **sections):
    return create_train_loader(
        DataSection(train_path=str(path), **sections),
        resolution=32,
        global_batch_size=8,
        batch_size=8,
        seed=0,
        rank=0,
        world_size=1,
        num_threads=1,
        device=torch.device("cpu"),
    )


def contains(sheet, picture):
    height, width = picture.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (height, width))
    places = np.nonzero(
        (windows[..., 0, 0] == picture[0, 0, 0]) & (windows[..., -1, -1] == picture[-1, -1, 0])
    )
    return any(
        np.array_equal(sheet[top : top + height, left : left + width], picture)
        for top, left in zip(*places, strict=True)
    )


@pytest.mark.slow
def test_the_picture_shows_the_models_own_images(options, tiny_beton, tmp_path, capsys):
    sheet = draw(options, tmp_path / "sheet.png")
    assert "sheet.png" in capsys.readouterr().out
    loader = train_loader(tiny_beton)
    for resolution in (32, 64):
        loader.set_epoch(0, resolution)
        images = next(iter(loader)).images.numpy().copy()
        cells = images.repeat(192 // resolution, 1).repeat(192 // resolution, 2)
        for cell in cells:
            assert contains(sheet, cell)
    loader.close()


def test_rows_show_augmentation_as_of_the_first_epoch_of_a_resolution(tiny_beton):
    epochs = []

    def augment(batch, epoch):
        epochs.append(epoch)
        return normalize(255 - batch.images), batch.labels

    loader = train_loader(tiny_beton, flip=False)
    rows, labels = training_rows(loader, {32: 0, 48: 5}, augment)
    assert epochs == [0, 5]
    loader.set_epoch(0, 32)
    expected = 255 - next(iter(loader)).images.numpy()
    np.testing.assert_array_equal(rows[0][1], expected)
    assert [text for text, _ in rows] == ["32 px, as in epoch 1", "48 px, as in epoch 6"]
    assert labels[0] == labels[1]
    assert set(labels[0]) <= {f"class_{label}" for label in range(8)}
    loader.close()


def test_normalisation_is_undone_exactly_and_more_is_clipped():
    images = torch.arange(256, dtype=torch.uint8).repeat(3, 1).T.reshape(1, 16, 16, 3)
    np.testing.assert_array_equal(denormalize(normalize(images)), images)
    assert denormalize(torch.full((1, 3, 1, 1), 9.0)).tolist() == [[[[255, 255, 255]]]]


def test_mixed_labels_show_each_class_with_its_share():
    shares = torch.tensor([[0.63, 0.37, 0.0], [0.0, 1.0, 0.0], [0.2, 0.001, 0.799]])
    assert label_texts(shares, ["cat", "dog", "owl"]) == [
        "63% cat\n37% dog",
        "dog",
        "80% owl\n20% cat",
    ]
    assert label_texts(shares[:1], None) == ["63% 0\n37% 1"]
    assert label_texts(torch.tensor([2, 0]), ["cat", "dog", "owl"]) == ["owl", "cat"]


@pytest.mark.slow
def test_mixup_is_drawn(options, tmp_path):
    plain = draw(options, tmp_path / "plain.png")
    mixed = draw(
        [*options, "--augment.mixup=0.8", "--augment.mixup_group=16"], tmp_path / "mixed.png"
    )
    assert not np.array_equal(plain, mixed[: len(plain)])


def test_samples_are_read_as_they_are_stored(tiny_beton, tiny_val_beton):
    storage = Storage(f"{tiny_beton},{tiny_val_beton}")
    for sample in (0, 63, 64, 87):
        with Image.open(io.BytesIO(storage.read(sample))) as image:
            assert image.size == (storage.images["width"][sample], storage.images["height"][sample])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--training.epohcs=3", "did you mean 'training.epochs'?"),
        ("--data.train_path=no.beton", "no.beton"),
        ("--out=no/folder/x.png", "in a folder that exists"),
        ("--out=x.doc", "--out=x.doc: expected a name with .png"),
    ],
)
def test_what_is_wrong_is_one_line(options, tmp_path, monkeypatch, capsys, extra, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["preview", *options, extra])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path("preview.png").exists()


def test_a_misspelt_argument_of_another_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "x.beton", "--smaple=3"])
    assert stop.value.code == 2
    assert "--smaple=3" in capsys.readouterr().err
