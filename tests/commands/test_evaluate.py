"""Accuracies are counted over every image, with the labels of the model."""

import shutil

import pytest
import timm
import torch
from PIL import Image
from trained_run import NUM_CLASSES, write_run

from ffvit.__main__ import main
from ffvit.data.augment import normalize
from ffvit.data.loader import create_val_loader
from ffvit.models.loading import load_saved_model
from ffvit.options import DataSection, ValidationSection


def evaluate(capsys, *arguments):
    """Return the columns of each row of the table: data, images, top-1, top-5, protocol."""
    main(["evaluate", *map(str, arguments)])
    rows = capsys.readouterr().out.splitlines()[3:]
    return [[cell.strip() for cell in row.split("  ") if cell.strip()] for row in rows]


def cells(num_right, num_images):
    return [
        f"{num_images}",
        *(f"{count / num_images:.2%} ({count})" for count in num_right),
    ]


def fail(capsys, *arguments):
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", *map(str, arguments)])
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert output.out == ""
    return output.err


def count_right(logits, labels):
    best = logits.topk(5).indices == labels[:, None]
    return int(best[:, 0].sum()), int(best.sum())


@pytest.fixture(scope="module")
def constant_run(tiny_betons, tmp_path_factory):
    """Return a run whose model always says class_3, then 4, 5, 6, 7, 0, 1, 2."""
    run = write_run(tmp_path_factory.mktemp("runs") / "constant", tiny_betons)
    path = run / "checkpoints" / "best.pt"
    state = torch.load(path, weights_only=True)
    state["model"]["head.weight"].zero_()
    ranks = (torch.arange(NUM_CLASSES) - 3) % NUM_CLASSES
    state["model"]["head.bias"] = -ranks.float()
    torch.save(state, path)
    return run


def test_a_folder_is_measured_as_by_timm(run_folder, exported_folder, image_folder, capsys):
    model = timm.create_model(f"local-dir:{exported_folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    paths = sorted((image_folder / "val").rglob("*.jpg"))
    images = torch.stack([transform(Image.open(path)) for path in paths])
    with torch.inference_mode():
        logits = model(images)
    expected = count_right(logits, torch.tensor([int(path.parent.name[-1]) for path in paths]))
    (row,) = evaluate(capsys, run_folder, image_folder)  # train and val: val counts
    assert row[1:4] == cells(expected, 24)
    assert row[4] == "Pillow: shorter side to 45, bicubic, centre 40 px"


def test_a_beton_is_measured_as_in_training(run_folder, tiny_betons, capsys):
    loader = create_val_loader(
        DataSection(val_path=str(tiny_betons["train"])),
        ValidationSection(batch_size=64, resolution=40),
        rank=0,
        world_size=1,
        num_threads=1,
        device=torch.device("cpu"),
    )
    (batch,) = loader
    with torch.inference_mode():
        logits = load_saved_model(run_folder).network(normalize(batch.images))
    expected = count_right(logits, batch.labels)
    (row,) = evaluate(capsys, run_folder, tiny_betons["train"])
    assert row == [
        str(tiny_betons["train"]),
        *cells(expected, 64),
        "beton: centre 0.875 to 40 px, area",
    ]


def test_several_sources_side_by_side(constant_run, tiny_betons, image_folder, capsys):
    rows = evaluate(capsys, constant_run, image_folder / "train", tiny_betons["val"])
    assert [row[1:4] for row in rows] == [cells((8, 40), 64), cells((3, 15), 24)]


def test_without_data_a_run_is_measured_on_its_own(constant_run, tiny_betons, capsys):
    (row,) = evaluate(capsys, constant_run)
    assert row[:2] == [str(tiny_betons["val"]), "24"]


def test_classes_are_found_by_name(constant_run, image_folder, tmp_path, capsys):
    """Two of eight classes; their numbers among themselves are 0 and 1."""
    for name in ("class_3", "class_2"):
        shutil.copytree(image_folder / "val" / name, tmp_path / "two" / name)
    (row,) = evaluate(capsys, constant_run, tmp_path / "two")
    assert row[1:4] == cells((3, 3), 6)


def test_a_beton_without_names_is_taken_by_number(constant_run, tiny_betons, tmp_path, capsys):
    shutil.copy(tiny_betons["val"], tmp_path / "x.beton")
    (row,) = evaluate(capsys, constant_run, tmp_path / "x.beton")
    assert row[1:4] == cells((3, 15), 24)


def test_a_model_without_names_needs_as_many_classes(tiny_betons, image_folder, tmp_path, capsys):
    away = {split: tmp_path / f"{split}.beton" for split in tiny_betons}
    run = write_run(tmp_path / "run", away, num_classes=9)
    assert "expected the 9 classes" in fail(capsys, run, tiny_betons["val"])
    assert "expected the 9 classes" in fail(capsys, run, image_folder)


def test_other_classes_are_refused(constant_run, image_folder, tmp_path, capsys):
    shutil.copytree(image_folder / "val" / "class_3", tmp_path / "x" / "cat")
    assert "1 of 1 are not, such as 'cat'" in fail(capsys, constant_run, tmp_path / "x")


def test_no_figure_for_fewer_images(constant_run, image_folder, tmp_path, capsys):
    shutil.copytree(image_folder / "val", tmp_path / "val")
    path = tmp_path / "val" / "class_5" / "005.jpg"
    path.write_bytes(path.read_bytes()[:200])
    assert f"{path}: expected a whole image" in fail(capsys, constant_run, tmp_path / "val")


def test_another_resolution_and_crop(constant_run, tiny_betons, image_folder, capsys):
    rows = evaluate(
        capsys, constant_run, tiny_betons["val"], image_folder, "--resolution=24", "--ratio=0.5"
    )
    assert [row[4] for row in rows] == [
        "beton: centre 0.5 to 24 px, area",
        "Pillow: shorter side to 48, bicubic, centre 24 px",
    ]


def test_logits_of_the_mirror_image_are_averaged(run_folder, tiny_betons, tmp_path, capsys):
    model = load_saved_model(run_folder)
    pixels = torch.randint(0, 256, (3, 3, 40, 40), dtype=torch.uint8)
    path = tmp_path / "flip.pt"
    state = torch.load(run_folder / "checkpoints" / "best.pt", weights_only=True)
    state["config"]["validation"]["flip_average"] = True
    torch.save(state, path)
    expected = (model.logits(pixels) + model.logits(pixels.flip(-1))) / 2
    torch.testing.assert_close(load_saved_model(path).logits(pixels), expected)
    (row,) = evaluate(capsys, path, tiny_betons["val"])
    assert row[4].endswith("area, flip average")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resolution=41"], "resolution 41 does not suit ff_pico"),
        (["--ratio=0"], "--ratio=0.0: expected a share above 0"),
        (["none.beton"], "none.beton"),
        (["none"], "found nothing"),
    ],
)
def test_wrong_input_is_one_line(constant_run, capsys, arguments, message):
    assert message in fail(capsys, constant_run, *arguments)


def test_a_model_without_a_run_needs_data(exported_folder, capsys):
    assert "no data given" in fail(capsys, exported_folder)


def test_weights_that_give_no_numbers(constant_run, tmp_path, capsys):
    state = torch.load(constant_run / "checkpoints" / "best.pt", weights_only=True)
    state["model"]["head.bias"][2] = float("nan")
    torch.save(state, tmp_path / "x.pt")
    assert "expected finite logits" in fail(capsys, tmp_path / "x.pt")
