"""The whole of what is done to a batch: what it depends on, and in which order it is done."""

import numpy as np
import pytest
import torch

from ffvit.data.augment import Augmentation, check_augmentation, normalize
from ffvit.data.epoch_iterator import Batch
from ffvit.data.loader import create_train_loader
from ffvit.errors import ConfigError
from ffvit.options import AugmentSection, DataSection

PAPER = "rand-m9-mstd0.5-inc1"
CLASSES = 8
EVERYTHING = {
    "policy": PAPER,
    "color_jitter": 0.3,
    "erasing": 0.5,
    "mixup": 0.8,
    "cutmix": 1.0,
    "mixup_group": 4,
}


def augmentation(strength=lambda _: 1.0, **options):
    section = AugmentSection(**options)
    check_augmentation(section, 8)
    return Augmentation(section, CLASSES, 7, strength)


def batch(num_images=24, position=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num_images, 24, 32, 3), generator=generator).byte()
    labels = torch.randint(0, CLASSES, (num_images,), generator=generator)
    return Batch(images, labels, np.arange(num_images), position)


def test_normalize_is_torchvisions_on_each_channel():
    images = torch.randint(0, 256, (3, 5, 7, 3), dtype=torch.uint8)
    result = normalize(images)
    expected = (images.numpy() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert result.shape == (3, 3, 5, 7)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_normalize_keeps_channels_last_in_memory():
    images = torch.zeros(2, 5, 7, 3, dtype=torch.uint8)
    assert normalize(images).is_contiguous(memory_format=torch.channels_last)


def test_without_options_a_batch_is_only_normalised():
    whole = batch()
    images, labels = augmentation()(whole, 0)
    assert torch.equal(images, normalize(whole.images))
    assert labels is whole.labels


def test_a_batch_cut_in_pieces_becomes_the_same():
    augment, whole = augmentation(**EVERYTHING), batch()
    images, targets = augment(whole, 3)
    for begin, end in ((0, 4), (4, 16), (16, 24)):
        piece = Batch(*(field[begin:end] for field in whole[:3]), whole.position + begin)
        pieces, piece_targets = augment(piece, 3)
        assert torch.equal(pieces, images[begin:end])
        assert torch.equal(piece_targets, targets[begin:end])


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    options = {name: EVERYTHING[name] for name in ("policy", "color_jitter", "erasing")}
    augment, whole, other = augmentation(**options), batch(), batch(seed=1)
    other.images[5], other.images[17] = whole.images[5], whole.images[17]
    ours, theirs = augment(whole, 3)[0], augment(other, 3)[0]
    assert torch.equal(ours[[5, 17]], theirs[[5, 17]])
    assert not torch.equal(ours, theirs)


def test_the_loaders_images_are_left_alone():
    whole = batch()
    before = whole.images.clone()
    augmentation(**EVERYTHING)(whole, 0)
    assert torch.equal(whole.images, before)


@pytest.mark.parametrize("name", ["policy", "color_jitter", "erasing"])
def test_each_option_changes_images_anew_in_each_epoch_and_place(name):
    augment = augmentation(**{name: EVERYTHING[name]})
    first, plain = augment(batch(), 0)[0], normalize(batch().images)
    assert not torch.equal(first, plain)
    assert torch.equal(augment(batch(), 0)[0], first)
    assert not torch.equal(augment(batch(), 1)[0], first)
    assert not torch.equal(augment(batch(position=64), 0)[0], first)
    section = AugmentSection(**{name: EVERYTHING[name]})
    assert not torch.equal(Augmentation(section, CLASSES, 8)(batch(), 0)[0], first)


def test_erased_pixels_are_noise_that_no_policy_touches():
    """Erasing comes after normalisation: its values are none that a pixel can have."""
    levels = normalize(
        torch.arange(256, dtype=torch.uint8).reshape(1, 1, 256, 1).repeat(1, 1, 1, 3)
    )
    images = augmentation(policy=PAPER, erasing=1.0)(batch(), 0)[0]
    for image in images:
        is_level = torch.isclose(image[0, ..., None], levels[0, 0, 0], atol=1e-6).any(dim=-1)
        assert 0.01 < (~is_level).float().mean() < 0.4


def test_strength_scales_randaugment_and_erasing():
    def changed(strength, **options):
        images = augmentation(lambda _: strength, **options)(batch(num_images=400), 0)[0]
        return (images != normalize(batch(num_images=400).images)).any(dim=(1, 2, 3)).float().mean()

    assert changed(0.0, erasing=0.5) == 0
    assert changed(0.5, erasing=0.5) == pytest.approx(0.25, abs=0.07)
    assert changed(1.0, erasing=0.5) == pytest.approx(0.5, abs=0.07)
    assert changed(0.0, policy="rand-m9-p1-inc1") < changed(1.0, policy="rand-m9-p1-inc1")


def test_ranks_and_threads_do_not_change_the_augmented_global_batches(tiny_betons):
    def augmented(rank, world_size, num_threads):
        loader = create_train_loader(
            DataSection(train_path=str(tiny_betons["train"]), repeats=3),
            resolution=32,
            global_batch_size=16,
            batch_size=16 // world_size,
            seed=5,
            rank=rank,
            world_size=world_size,
            num_threads=num_threads,
            device=torch.device("cpu"),
        )
        augment = augmentation(**EVERYTHING)
        return [augment(item, 0) for item in loader]

    alone = augmented(0, 1, 1)
    shares = [augmented(rank, 4, 2) for rank in range(4)]
    assert len(alone) == 4
    for index, (images, targets) in enumerate(alone):
        assert torch.equal(torch.cat([share[index][0] for share in shares]), images)
        assert torch.equal(torch.cat([share[index][1] for share in shares]), targets)


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "rand-m9-x3"},
        {"color_jitter": -0.1},
        {"erasing": 1.5},
        {"ramp_start": -0.5},
        {"mixup": -1.0},
    ],
)
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(ConfigError, match=f"augment.{next(iter(options))}"):
        augmentation(**options)
