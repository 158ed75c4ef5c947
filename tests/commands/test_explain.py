"""`explain` on a run folder: counts against counting by hand, and pictures of the right images."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ffvit.__main__ import main
from ffvit.checkpoint import CheckpointFolder
from ffvit.config import load_train_config, to_dict
from ffvit.models import create_model
from ffvit.runlog import RunLog

NUM_CLASSES = 8
EPOCH = {
    "epoch": 1,
    "step": 5,
    "images_seen": 64,
    "resolution": 48,
    "learning_rate": 0.1,
    "train_loss": 2.0,
    "top_1": 0.25,
    "top_5": 0.5,
    "loss": 1.5,
    "num_samples": 24,
    "images_per_s": 200.0,
    "data_wait_fraction": 0.02,
    "train_s": 1.5,
    "elapsed_s": 2.0,
    "gpu_hours": 0.0,
}


@pytest.fixture
def make_run(tiny_betons, tmp_path):
    """Write a run folder with the checkpoint of an untrained model."""

    def make(model):
        sections = {
            "data": {"train_path": str(tiny_betons["train"]), "val_path": str(tiny_betons["val"])},
            "model": model,
            "validation": {"resolution": 48, "batch_size": 10, "flip_average": True},
        }
        path = tmp_path / "some.yaml"
        path.write_text(yaml.safe_dump(sections))
        config, _ = load_train_config(["--config", str(path)])
        folder = tmp_path / "run"
        with RunLog.open(folder, to_dict(config), ENVIRONMENT, True) as log:
            log.record("run", world_size=1)
            log.record("epoch", **EPOCH)
        network = create_model(config.model, NUM_CLASSES)
        identity = to_dict(config) | {"data set": {"num_classes": NUM_CLASSES}}
        state = {"step": 5, "config": identity, "model": network.state_dict()}
        checkpoints = CheckpointFolder(folder, keep=1)
        checkpoints.save(state, is_best=True)
        # A later epoch, less good: explained is what `export` and `predict` take.
        later = {name: torch.zeros_like(tensor) for name, tensor in state["model"].items()}
        checkpoints.save(state | {"step": 10, "model": later})
        return folder, network.eval()

    return make


ENVIRONMENT = {
    "git_commit": None,
    "git_is_dirty": None,
    "python": "3",
    "packages": {},
    "cpu": "a CPU",
    "num_cpu_cores": 2,
    "gpus": [],
    "gpu_power_limits_w": None,
}
PICO = {"name": "ff_pico", "image_size": 48, "patch_size": 8, "embed_dim": 24, "depth": 2}


def test_a_feed_forward_run_gets_counts_pictures_and_both_reports(make_run, capsys):
    folder, _ = make_run(PICO)
    main(["explain", str(folder)])
    data = json.loads((folder / "explanation" / "classes.json").read_text())
    assert data["label_names"] == [f"class_{k}" for k in range(NUM_CLASSES)]
    by_true = np.zeros(NUM_CLASSES, int)
    right = 0
    for true, predicted, count in data["confusion"]:
        by_true[true] += count
        right += count * (true == predicted)
    assert by_true.tolist() == [3] * NUM_CLASSES
    assert f"run after step 5: top-1 {right / 24:.2%} of 24 images" in capsys.readouterr().out
    names = {path.name for path in (folder / "explanation").iterdir()}
    assert names == {
        "classes.json",
        "classes.png",
        "confusion.png",
        "most_wrong.png",
        "token_mixing.png",
    }
    report, page = (folder / "report.md").read_text(), (folder / "index.html").read_text()
    for name in names - {"classes.json"}:
        assert f"(explanation/{name})" in report
    assert page.count('<img class="picture"') == 4
    assert "taken for" in report


@pytest.mark.slow
def test_it_measures_what_the_run_measured(make_run):
    """The same predictions as the loader and the model give, put together here by hand."""
    from ffvit.data.augment import normalize  # noqa: PLC0415
    from ffvit.data.loader import create_val_loader  # noqa: PLC0415

    folder, network = make_run(PICO)
    main(["explain", str(folder)])
    config, _ = load_train_config(["--config", str(folder / "config.yaml")])
    loader = create_val_loader(config.data, config.validation, 0, 1, 1, torch.device("cpu"))
    expected = np.zeros((NUM_CLASSES, NUM_CLASSES), int)
    with torch.no_grad():
        for images, labels, *_ in loader:
            inputs = normalize(images)
            logits = (network(inputs) + network(inputs.flip(-1))) / 2
            for row, label in zip(logits, labels.tolist(), strict=True):
                expected[label, row.argmax()] += 1
    loader.close()
    data = json.loads((folder / "explanation" / "classes.json").read_text())
    assert {(a, b): n for a, b, n in data["confusion"]} == {
        (a, b): expected[a, b] for a, b in np.argwhere(expected)
    }


@pytest.mark.slow
def test_another_network_has_no_token_filters(make_run):
    folder, _ = make_run({"name": "resnet18_blurpool"})
    main(["explain", str(folder)])
    assert not (folder / "explanation" / "token_mixing.png").exists()
    with Image.open(folder / "explanation" / "most_wrong.png") as picture:
        assert picture.width > 500


def test_a_run_without_a_checkpoint_is_refused_in_one_line(make_run, capsys):
    folder, _ = make_run(PICO)
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(SystemExit) as stop:
        main(["explain", str(folder)])
    assert stop.value.code == 2
    path = folder / "checkpoints" / "best.pt"
    assert f"error: {path}: expected the best epoch's checkpoint" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["explain", str(tmp_path / "none")])
    assert "no such run folder" in capsys.readouterr().err
