"""Predictions are those of timm's model with timm's own image preparation."""

import csv
import io
import shutil

import pytest
import timm
import torch
from conftest import gradient
from PIL import Image
from trained_run import NUM_CLASSES, write_run

from ffvit.__main__ import main


def predict(*arguments):
    main(["predict", *map(str, arguments)])


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture(scope="module")
def reference(exported_folder):
    """Return a function: path of an image -> (K,) probabilities, all by timm."""
    model = timm.create_model(f"local-dir:{exported_folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))

    def probabilities(path):
        with torch.inference_mode():
            return model(transform(Image.open(path).convert("RGB"))[None])[0].softmax(0)

    return probabilities


def check(row, expected):
    best = expected.topk(5)
    assert [int(row[f"label_{rank}"]) for rank in range(1, 6)] == best.indices.tolist()
    assert row["name_1"] == f"class_{row['label_1']}"
    shares = torch.tensor([float(row[f"probability_{rank}"]) for rank in range(1, 6)])
    torch.testing.assert_close(shares, best.values, atol=2e-6, rtol=0)


@pytest.mark.parametrize("source", ["run_folder", "exported_folder"])
def test_a_folder_gives_a_line_for_each_image(source, image_folder, reference, request, capsys):
    folder = image_folder / "train"  # 64 images, a whole batch
    predict(request.getfixturevalue(source), folder)
    found = rows(capsys.readouterr().out)
    assert [row["image"] for row in found] == sorted(map(str, folder.rglob("*.jpg")))
    for row in found:
        check(row, reference(row["image"]))


def test_several_batches_come_in_order(run_folder, image_folder, reference, tmp_path):
    paths = sorted(image_folder.rglob("*.jpg"))  # 88 images
    predict(run_folder, *paths, "--csv", tmp_path / "out.csv")
    found = rows((tmp_path / "out.csv").read_text())
    assert [row["image"] for row in found] == list(map(str, paths))
    check(found[-1], reference(paths[-1]))


def test_files_give_text(run_folder, image_folder, reference, capsys):
    path = image_folder / "val" / "class_1" / "001.jpg"
    predict(run_folder, path)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == str(path)
    best = reference(path).topk(5)
    pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    assert [line.split() for line in lines] == [[f"{p:.2%}", f"class_{k}"] for p, k in pairs]


def test_averaged_weights_are_others(run_folder, image_folder, capsys):
    path = image_folder / "val" / "class_1" / "001.jpg"
    predict(run_folder, path)
    raw = capsys.readouterr().out
    predict(run_folder, path, "--weights=averaged")
    assert capsys.readouterr().out != raw


def test_images_lie_as_their_camera_says(run_folder, tmp_path, capsys):
    upright = gradient(60, 90)
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    predict(run_folder, tmp_path)
    first, second = rows(capsys.readouterr().out)
    assert first.pop("image") != second.pop("image")
    # In a batch, sums are rounded by an image's place.
    assert [first[f"label_{rank}"] for rank in range(1, 6)] == [
        second[f"label_{rank}"] for rank in range(1, 6)
    ]
    for rank in range(1, 6):
        shares = [float(row[f"probability_{rank}"]) for row in (first, second)]
        assert shares[0] == pytest.approx(shares[1], abs=2e-6)


def test_fewer_than_five_classes(tiny_betons, image_folder, tmp_path, capsys):
    run = write_run(tmp_path / "run", {k: tmp_path / k for k in tiny_betons}, num_classes=3)
    predict(run, image_folder / "val" / "class_0")
    row = rows(capsys.readouterr().out)[0]
    assert {row[f"name_{rank}"] for rank in (1, 2, 3)} == {"0", "1", "2"}
    assert "label_4" not in row


def test_what_cannot_be_read_is_named_and_the_rest_predicted(
    run_folder, image_folder, tmp_path, capsys
):
    folder = tmp_path / "images"
    shutil.copytree(image_folder / "val" / "class_2", folder)
    good = sorted(path.name for path in folder.iterdir())
    (folder / "000_cut.jpg").write_bytes((folder / good[0]).read_bytes()[:300])
    (folder / "001_text.png").write_text("no image")
    gradient(3, 900).save(folder / "002_hair.png")
    (folder / "notes.txt").write_text("no image either, and not taken for one")
    with pytest.raises(SystemExit, match="2"):
        predict(run_folder, folder, "--csv", tmp_path / "out.csv")
    found = rows((tmp_path / "out.csv").read_text())
    assert [row["image"] for row in found] == [str(folder / name) for name in good]
    *lines, last = capsys.readouterr().err.splitlines()
    assert last == "error: 3 of 6 images could not be read."
    for line, name in zip(lines, ("000_cut.jpg", "001_text.png", "002_hair.png"), strict=True):
        assert line.startswith(f"left out: {folder / name}: expected")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.jpg", "found nothing"),
        (lambda folder: folder, "expected images, found none among 1 files"),
    ],
)
def test_no_images_are_one_line(run_folder, tmp_path, capsys, make, message):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(SystemExit, match="2"):
        predict(run_folder, make(tmp_path))
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_csv_that_cannot_be_written_is_one_line(run_folder, image_folder, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        predict(run_folder, image_folder, "--csv", tmp_path / "no" / "out.csv")
    assert "cannot write it" in capsys.readouterr().err


def test_the_number_of_classes_is_the_runs(exported_folder):
    assert timm.create_model(f"local-dir:{exported_folder}").num_classes == NUM_CLASSES
