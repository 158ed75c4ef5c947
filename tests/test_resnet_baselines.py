"""The ResNet recipes run from beton to report, and train as ffcv-imagenet's program does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import train_imagenet
from ffvit.assembly import assemble
from ffvit.checkpoint import CheckpointFolder
from ffvit.config import load_train_config
from ffvit.data.augment import normalize
from ffvit.distributed import Ranks
from ffvit.runlog import load_run

RECIPES = sorted((Path(__file__).resolve().parents[1] / "rn_configs").glob("*.yaml"))
RANKS = Ranks(0, 0, 1, 1, torch.device("cpu"))
BATCH_SIZE, EPOCHS = 32, 3


@pytest.fixture
def small(tiny_betons):
    """Load a recipe, cut to 64 images, 3 epochs of 2 updates, and a fifth of the resolution."""

    def load(path, *options):
        words = [
            f"--config={path}",
            f"--data.train_path={tiny_betons['train']}",
            f"--data.val_path={tiny_betons['val']}",
            "--data.num_workers=1",
            f"--training.epochs={EPOCHS}",
            f"--training.global_batch_size={BATCH_SIZE}",
            "--resolution.min_res=32",
            "--resolution.max_res=64",
            "--resolution.start_ramp=1",
            "--resolution.end_ramp=2",
            "--validation.resolution=64",
            "--run.keep=1",
            *options,
        ]
        return load_train_config(words)[0]

    return load


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_runs_from_beton_to_report(path, small, tmp_path):
    train_imagenet.main(small(path), tmp_path, RANKS)
    epochs = load_run(tmp_path).epochs
    assert [epoch["resolution"] for epoch in epochs] == [32, 32, 64]
    assert [epoch["step"] for epoch in epochs] == [2, 4, 6]
    assert all(np.isfinite(epoch["train_loss"]) for epoch in epochs)
    assert all(epoch["num_samples"] == 24 for epoch in epochs)
    assert (tmp_path / "report.md").is_file()
    assert (tmp_path / "checkpoints" / "best.pt").is_file()


@pytest.mark.slow
def test_a_run_is_ffcv_imagenets_loop_written_out(small, tmp_path):
    """Same batches, same initial weights; decay as there but for what the configs' headers say."""
    path = next(path for path in RECIPES if path.stem == "rn18_16_epochs")
    config = small(path, "--lr.base_batch_size=0", "--lr.lr=0.01", "--lr.warmup_lr=1e-6")
    train_imagenet.main(config, tmp_path, RANKS)
    state = CheckpointFolder(tmp_path, keep=1).load_latest("auto", {})

    parts = assemble(config, RANKS)
    loader, model = parts.train_loader, parts.model
    no_decay = [p for name, p in model.named_parameters() if is_norm(name) or name == "fc.bias"]
    decay = [p for name, p in model.named_parameters() if not is_norm(name) and name != "fc.bias"]
    optimizer = torch.optim.SGD(
        [{"params": no_decay, "weight_decay": 0.0}, {"params": decay, "weight_decay": 5e-5}],
        lr=1,
        momentum=0.9,
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    rates_by_epoch = np.interp(np.arange(EPOCHS + 1), [0, 2, EPOCHS], [1e-4 * 0.01, 0.01, 0])
    for epoch in range(EPOCHS):
        size = int(np.round(np.interp(epoch, [1, 2], [32, 64]) / 32)) * 32
        loader.load_state_dict({"epoch": epoch, "resolution": size, "batch": 0})
        rates = np.interp(np.arange(2), [0, 2], rates_by_epoch[epoch : epoch + 2])
        for rate, batch in zip(rates, loader, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss_of(model(normalize(batch.images)), batch.labels).backward()
            optimizer.step()
    parts.close()

    expected = model.state_dict()
    assert list(state["model"]) == list(expected)
    for name, tensor in state["model"].items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def is_norm(name):
    return "bn" in name or "downsample.1" in name
