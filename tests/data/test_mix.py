import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kstest
from timm.data.mixup import Mixup, cutmix_bbox_and_lam, mixup_target
from timm.loss import SoftTargetCrossEntropy

from ffvit.data.mix import Mixing, check_mixing
from ffvit.errors import ConfigError
from ffvit.options import AugmentSection

GROUP = 4
CLASSES = 10
SHAPE = (3, 24, 32)


def section(**options):
    return AugmentSection(**{"mixup_group": GROUP, **options})


def batch(num_images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(num_images, *SHAPE, generator=generator)
    return images, torch.randint(0, CLASSES, (num_images,), generator=generator)


def mix(options, num_images=8, epoch=3, position=40, seed=7):
    images, labels = batch(num_images)
    return images, labels, *Mixing(options, CLASSES, seed)(images, labels, epoch, position)


def shares_of_first_label(options, num_groups=2000):
    """Share of the first image's own label in each of many groups."""
    images = torch.zeros(num_groups * GROUP, 1, 16, 16)
    labels = torch.arange(GROUP).repeat(num_groups)
    targets = Mixing(options, GROUP, 1)(images, labels, 0, 0)[1]
    return targets[::GROUP, 0].numpy()


def test_mixup_is_a_weighted_mean_with_the_group_reversed():
    images, labels, mixed, targets = mix(section(mixup=0.8))
    for begin in (0, GROUP):
        group = slice(begin, begin + GROUP)
        share = (targets[begin, labels[begin]]).item()
        assert 0 < share < 1
        expected = share * images[group] + (1 - share) * images[group].flip(0)
        torch.testing.assert_close(mixed[group], expected)
        own = torch.eye(CLASSES)[labels[group]]
        torch.testing.assert_close(targets[group], share * own + (1 - share) * own.flip(0))


def test_cutmix_pastes_one_box_and_labels_follow_its_area():
    for epoch in range(30):
        images, labels, mixed, targets = mix(section(cutmix=1.0), epoch=epoch)
        for begin in (0, GROUP):
            group = slice(begin, begin + GROUP)
            pasted = (mixed[group] != images[group]).any(dim=1)
            assert torch.equal(pasted, pasted[:1].expand_as(pasted))
            box = pasted[0]
            rows, columns = box.any(dim=1), box.any(dim=0)
            assert torch.equal(box, rows[:, None] & columns[None])
            assert torch.equal(mixed[group][:, :, box], images[group].flip(0)[:, :, box])
            share = 1 - box.float().mean()
            own = torch.eye(CLASSES)[labels[group]]
            torch.testing.assert_close(targets[group], share * own + (1 - share) * own.flip(0))


def test_the_result_is_timms_for_the_same_draw():
    images, labels, mixed, targets = mix(section(mixup=0.3), num_images=GROUP)
    share = ((mixed - images.flip(0)) / (images - images.flip(0)))[0, 0, 0, 0].item()
    timm = Mixup(mixup_alpha=0.3, label_smoothing=0.0, num_classes=CLASSES)
    timm._params_per_batch = lambda: (share, False)
    theirs, their_targets = timm(images.clone(), labels)
    torch.testing.assert_close(mixed, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(targets, their_targets, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["pair", "elem"])
@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}])
def test_pair_and_elem_are_timms_for_the_same_draws(mode, options, monkeypatch):
    size = 6
    images, labels, mixed, targets = mix(
        section(mixup_mode=mode, mixup_group=size, **options), num_images=size
    )
    shares = targets[torch.arange(size), labels].numpy()
    assert len(set(shares.round(6).tolist())) == (size if mode == "elem" else size // 2)
    timm = Mixup(0.8, 0.0, mode=mode, label_smoothing=0.0, num_classes=CLASSES)
    if "cutmix" in options:
        timm = Mixup(0.0, 1.0, mode=mode, label_smoothing=0.0, num_classes=CLASSES)
        boxes = iter([box(own, other) for own, other in zip(mixed, images, strict=True)])
        monkeypatch.setattr("timm.data.mixup.rand_bbox", lambda *_, **__: next(boxes))
    count = size if mode == "elem" else size // 2
    timm._params_per_elem = lambda _: (shares[:count].copy(), np.full(count, "cutmix" in options))
    theirs, their_targets = timm(images.clone(), labels)
    torch.testing.assert_close(mixed, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(targets, their_targets, rtol=1e-4, atol=1e-5)


def box(mixed, image):
    """Find what was pasted: top, bottom, left, right, as timm gives it."""
    rows, columns = (mixed != image).any(dim=0).nonzero().T
    return rows.min().item(), rows.max().item() + 1, columns.min().item(), columns.max().item() + 1


def test_the_loss_with_label_smoothing_is_timms():
    """timm smooths its targets; the trainer gives torch's loss shares without, and smoothing."""
    images, labels = batch(GROUP)
    _, targets = Mixing(section(mixup=0.3), CLASSES, 7)(images, labels, 3, 40)
    share = targets[0, labels[0]].item()
    theirs = mixup_target(labels, CLASSES, share, smoothing=0.1)
    logits = torch.randn(GROUP, CLASSES, generator=torch.Generator().manual_seed(1))
    loss = F.cross_entropy(logits, targets, label_smoothing=0.1)
    torch.testing.assert_close(loss, SoftTargetCrossEntropy()(logits, theirs))


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_shares_of_mixup_follow_its_beta_distribution(alpha):
    shares = shares_of_first_label(section(mixup=alpha))
    assert kstest(shares, "beta", args=(alpha, alpha)).pvalue > 1e-3


def test_boxes_of_cutmix_are_as_large_as_timms():
    shares = shares_of_first_label(section(cutmix=1.0))
    drawn = np.random.default_rng(0).beta(1.0, 1.0, 2000)
    theirs = np.array([cutmix_bbox_and_lam((1, 1, 16, 16), share)[1] for share in drawn])
    for power in (1, 2):
        assert abs((shares**power).mean() - (theirs**power).mean()) < 0.03


def test_probabilities_of_mixing_and_of_either_way():
    options = section(mixup=0.8, cutmix=1.0, mixup_prob=0.5, mixup_switch_prob=0.25)
    images = torch.arange(GROUP).float().repeat(4000)[:, None, None, None].expand(-1, 1, 8, 8)
    labels = torch.arange(GROUP).repeat(4000)
    mixed, _ = Mixing(options, GROUP, 5)(images, labels, 0, 0)
    first = mixed[::GROUP, 0]  # of zeros, partner of threes
    is_mixup = (first > 0).all(dim=(1, 2)) & (first < 3).all(dim=(1, 2))
    is_cutmix = ((first == 0) | (first == 3)).all(dim=(1, 2)) & (first == 3).any(dim=2).any(dim=1)
    # Of the unmixed half no pixel changes; nor where CutMix's box is empty (its share is near 1).
    assert abs(is_mixup.float().mean().item() - 0.375) < 0.03
    assert 0.09 < is_cutmix.float().mean().item() < 0.14


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_a_batch_cut_in_pieces_is_mixed_alike(mode):
    options = section(mixup=0.8, cutmix=1.0, mixup_mode=mode)
    images, labels = batch(6 * GROUP)
    mixing = Mixing(options, CLASSES, 2)
    whole = mixing(images, labels, 1, 100)
    for begin, end in ((0, GROUP), (GROUP, 3 * GROUP), (3 * GROUP, 6 * GROUP)):
        piece = mixing(images[begin:end], labels[begin:end], 1, 100 + begin)
        assert torch.equal(piece[0], whole[0][begin:end])
        assert torch.equal(piece[1], whole[1][begin:end])


def test_draws_change_with_seed_epoch_and_position():
    reference = mix(section(mixup=0.8))[3]
    for change in ({"seed": 8}, {"epoch": 4}, {"position": 48}):
        assert not torch.allclose(mix(section(mixup=0.8), **change)[3], reference)


def test_result_is_channels_last_and_keeps_its_type():
    images, labels = batch(GROUP)
    mixed, targets = Mixing(section(mixup=1.0), CLASSES, 0)(images.bfloat16(), labels, 0, 0)
    assert mixed.dtype == torch.bfloat16
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"mixup": -0.1},
        {"cutmix": -1.0},
        {"mixup_prob": 1.5},
        {"mixup_switch_prob": -0.5},
        {"mixup_group": 1},
        {"mixup_mode": "half"},
        {"mixup": 0.2, "mixup_group": 3},
    ],
)
def test_options_out_of_range_are_refused_by_name(options):
    name = f"augment.{'mixup_group' if 'mixup_group' in options else next(iter(options))}"
    with pytest.raises(ConfigError, match=name):
        check_mixing(section(**options), batch_size=8)


def test_a_group_that_does_not_fill_the_batch_is_no_matter_where_nothing_is_mixed():
    check_mixing(section(mixup_group=3), batch_size=8)
