"""The paper's recipe against timm's own classes, called as DeiT's program called them."""

import dataclasses
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.data import Mixup
from timm.scheduler import CosineLRScheduler
from torch import nn

from ffvit import schedules
from ffvit.config import load_train_config, to_dict
from ffvit.data.order import train_order

ROOT = Path(__file__).resolve().parents[1]
SIZES = ("tiny", "base", "large")
NUM_IMAGES = 1_281_167  # of ImageNet's training set

# The defaults of facebookresearch/deit@2f76ec6, main.py, with the batch size and the dropout of the
# author's command.
DEIT = types.SimpleNamespace(
    world_size=8,
    batch_size=128,
    epochs=300,
    input_size=224,
    drop=0.1,
    drop_path=0.1,
    model_ema_decay=0.99996,
    clip_grad=None,
    weight_decay=0.05,
    lr=5e-4,
    warmup_lr=1e-6,
    min_lr=1e-5,
    warmup_epochs=5,
    smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    mixup_prob=1.0,
    mixup_switch_prob=0.5,
    mixup_mode="batch",
)


@pytest.fixture(params=SIZES)
def recipe(request):
    path = ROOT / "ff_configs" / f"{request.param}_300_paper.yaml"
    return load_train_config(["--config", str(path)])[0]


def steps_per_epoch(recipe):
    return NUM_IMAGES // recipe.training.global_batch_size


def test_learning_rates_of_the_300_epochs_are_those_of_timms_scheduler(recipe):
    """DeiT scales the rate with the batch, and steps the scheduler after each epoch."""
    peak = DEIT.lr * DEIT.batch_size * DEIT.world_size / 512
    optimizer = torch.optim.AdamW(nn.Linear(2, 3).parameters(), lr=peak)
    scheduler = CosineLRScheduler(
        optimizer,
        t_initial=DEIT.epochs,
        lr_min=DEIT.min_lr,
        warmup_lr_init=DEIT.warmup_lr,
        warmup_t=DEIT.warmup_epochs,
        cycle_limit=1,
        t_in_epochs=True,
    )
    theirs = []
    for epoch in range(DEIT.epochs):
        theirs.append(optimizer.param_groups[0]["lr"])
        scheduler.step(epoch)

    steps = steps_per_epoch(recipe)
    scale = recipe.training.global_batch_size / recipe.lr.base_batch_size
    for step_in_epoch in (0, 1, steps - 1):
        ours = [
            schedules.learning_rate(
                epoch * steps + step_in_epoch, steps, recipe.lr, recipe.training.epochs, scale
            )
            for epoch in range(recipe.training.epochs)
        ]
        assert ours == pytest.approx(theirs, rel=0, abs=1e-12)


def test_an_epoch_has_deits_number_of_images(recipe):
    """Its sampler takes whole multiples of 256 images, its loader drops what is left of a batch."""
    per_rank = NUM_IMAGES // 256 * 256 // DEIT.world_size
    updates = per_rank // DEIT.batch_size
    assert steps_per_epoch(recipe) == updates == 1251
    batch_size = recipe.training.global_batch_size
    order = train_order(np.arange(NUM_IMAGES), batch_size, batch_size // 8, rank=3, world_size=8)
    assert len(order.samples) == per_rank
    assert len(order.positions) == updates


def test_mixing_is_timms_for_each_batch_of_a_gpu(recipe):
    theirs = Mixup(
        mixup_alpha=DEIT.mixup,
        cutmix_alpha=DEIT.cutmix,
        prob=DEIT.mixup_prob,
        switch_prob=DEIT.mixup_switch_prob,
        mode=DEIT.mixup_mode,
        label_smoothing=DEIT.smoothing,
    )
    ours = recipe.augment
    assert (ours.mixup, ours.cutmix) == (theirs.mixup_alpha, theirs.cutmix_alpha)
    assert (ours.mixup_prob, ours.mixup_switch_prob) == (theirs.mix_prob, theirs.switch_prob)
    assert ours.mixup_group == DEIT.batch_size
    assert recipe.training.label_smoothing == theirs.label_smoothing


def test_the_rest_is_deits(recipe):
    training, model = recipe.training, recipe.model
    assert training.global_batch_size == DEIT.batch_size * DEIT.world_size
    assert training.epochs == DEIT.epochs
    assert (model.drop_rate, model.drop_path_rate) == (DEIT.drop, DEIT.drop_path)
    assert (training.optimizer, training.momentum) == ("adamw", 0.9)
    assert training.weight_decay == DEIT.weight_decay
    assert training.decay_positions
    assert training.ema_decay == DEIT.model_ema_decay
    assert training.clip_grad == 0
    assert schedules.resolutions(recipe.resolution, training.epochs) == [DEIT.input_size]
    validation = recipe.validation
    assert (validation.resolution, validation.ratio) == (224, 224 / 256)
    assert (validation.filter, validation.flip_average) == ("bicubic", False)
    assert (recipe.data.min_scale, recipe.data.flip) == (0.08, True)


def test_the_three_sizes_differ_in_the_model_alone():
    recipes = []
    for size in SIZES:
        path = ROOT / "ff_configs" / f"{size}_300_paper.yaml"
        config, _ = load_train_config(["--config", str(path)])
        model = dataclasses.replace(config.model, name="")
        recipes.append(to_dict(dataclasses.replace(config, model=model)))
    assert recipes[0] == recipes[1] == recipes[2]
