"""What is drawn: its distribution against timm's and torchvision's own classes."""

from itertools import chain

import numpy as np
import pytest
from scipy.stats import kstest
from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
from torchvision.transforms import ColorJitter as TorchvisionJitter

from ffvit.data.operations.policies import (
    ColorJitter,
    Operation,
    RandAugment,
    ThreeAugment,
    parse_policy,
)
from ffvit.errors import ConfigError

PAPER = "rand-m9-mstd0.5-inc1"
NUM_IMAGES = 6000
NAMES = {
    "PosterizeIncreasing": "POSTERIZE",
    "SolarizeIncreasing": "SOLARIZE",
    "TranslateXRel": "TRANSLATE_X",
    "TranslateYRel": "TRANSLATE_Y",
    "AutoContrast": "AUTO_CONTRAST",
    "SolarizeAdd": "SOLARIZE_ADD",
    "ShearX": "SHEAR_X",
    "ShearY": "SHEAR_Y",
    "Desaturate": "COLOR",
    "GaussianBlurRand": "BLUR",
}


def operation_of(name):
    return Operation[NAMES.get(name, name.removesuffix("Increasing").upper())]


def timms_draws(transform, operations, num_images=NUM_IMAGES):
    """Let timm draw, and note what it would do to each image."""
    done = []
    for operation in operations:
        operation.aug_fn = lambda image, *arguments, name=operation.name, **_: (
            done[-1].append((operation_of(name), *arguments)) or image
        )
    for _ in range(num_images):
        done.append([])
        transform(None)
    return done


def our_draws(policy, num_images=NUM_IMAGES, strength=1.0, epoch=4):
    operations, arguments = policy.draw(3, epoch, np.arange(num_images), strength)
    return [
        [(Operation(o), a) for o, a in zip(*row, strict=True) if o != Operation.NONE]
        for row in zip(operations, arguments, strict=True)
    ]


@pytest.mark.parametrize("text", [PAPER, "rand-m7-n3-p0.8-mstd2-mmax12", "rand-mstd1-inc1", "rand"])
def test_randaugment_draws_as_timm(text):
    timm = rand_augment_transform(text, {"img_mean": (124, 116, 104)})
    theirs, ours = timms_draws(timm, timm.ops), our_draws(parse_policy(text))
    turns = timm.num_layers
    for draws in (theirs, ours):  # how many operations an image gets
        counts = np.bincount([len(image) for image in draws], minlength=turns + 1) / NUM_IMAGES
        probability = timm.ops[0].prob
        expected = np.random.default_rng(0).binomial(turns, probability, 100_000)
        assert np.abs(counts - np.bincount(expected, minlength=turns + 1) / 100_000).max() < 0.03
    theirs, ours = (list(chain.from_iterable(draws)) for draws in (theirs, ours))
    for operation in list(Operation)[1:16]:
        their = [arguments for o, *arguments in theirs if o == operation]
        our = [argument for o, argument in ours if o == operation]
        assert abs(len(their) / len(theirs) - 1 / 15) < 0.015
        assert abs(len(our) / len(ours) - 1 / 15) < 0.015
        if their[0]:
            their = np.array(their)[:, 0]
            values = np.unique(their)
            if len(values) < 300 and (values == values.round()).all():  # whole numbers: no KS test
                edges = np.arange(-0.5, 257.5, 16 if len(values) > 10 else 1)
                shares = [np.histogram(v, edges)[0] / len(v) for v in (their, np.array(our))]
                assert np.abs(shares[0] - shares[1]).max() < 0.12, operation
            else:
                assert kstest(our, their).pvalue > 1e-4, operation


def test_strength_scales_the_magnitude():
    policy = RandAugment(magnitude=8, probability=1, is_increasing=True)
    for strength, degrees in ((1.0, 24.0), (0.5, 12.0), (0.0, 0.0)):
        draws = chain.from_iterable(our_draws(policy, strength=strength))
        rotations = [abs(argument) for o, argument in draws if o == Operation.ROTATE]
        assert len(rotations) > 100
        np.testing.assert_allclose(rotations, degrees)


def test_three_augment_draws_as_timm():
    timm = auto_augment_transform("3a", {})
    operations = [operation for policy in timm.policy for operation in policy]
    theirs, ours = timms_draws(timm, operations), our_draws(ThreeAugment())
    for operation in (Operation.SOLARIZE, Operation.COLOR, Operation.BLUR):
        counts = [
            sum(o == operation for ((o, _),) in draws) / NUM_IMAGES for draws in (theirs, ours)
        ]
        assert abs(counts[0] - 1 / 3) < 0.03
        assert abs(counts[1] - 1 / 3) < 0.03
    argument = {o: {a for ((p, a),) in theirs if p == o} for o in Operation}
    assert {a for ((o, a),) in ours if o == Operation.SOLARIZE} == argument[Operation.SOLARIZE]
    assert {a for ((o, a),) in ours if o == Operation.COLOR} == {0.0}  # timm desaturates by 1
    deviations = [a for ((o, a),) in ours if o == Operation.BLUR]
    assert kstest(deviations, "uniform", args=(0.1, 1.9)).pvalue > 1e-4


@pytest.mark.parametrize("width", [0.3, 1.5])
def test_color_jitter_draws_as_torchvision(width):
    low, high = TorchvisionJitter(width).brightness
    operations, factors = ColorJitter(width).draw(3, 0, np.arange(NUM_IMAGES), 1.0)
    for operation in (Operation.BRIGHTNESS, Operation.CONTRAST, Operation.COLOR):
        assert ((operations == operation).sum(axis=1) == 1).all()
        chosen = factors[operations == operation]
        assert kstest(chosen, "uniform", args=(low, high - low)).pvalue > 1e-4
    orders, counts = np.unique(operations, axis=0, return_counts=True)
    assert len(orders) == 6
    assert np.abs(counts / NUM_IMAGES - 1 / 6).max() < 0.02


def test_draws_depend_on_seed_epoch_and_position_alone():
    policy = parse_policy(PAPER)
    whole = policy.draw(7, 2, np.arange(100, 160), 1.0)
    piece = policy.draw(7, 2, np.arange(130, 140), 1.0)
    for ours, theirs in zip(piece, whole, strict=True):
        assert (ours == theirs[30:40]).all()
    for changed in ((8, 2, 100), (7, 3, 100), (7, 2, 101)):
        other = policy.draw(*changed[:2], np.arange(60) + changed[2], 1.0)
        assert (other.operations != whole.operations).mean() > 0.3


def test_draws_never_change():
    """Golden values: a change here changes every published run."""
    operations, arguments = parse_policy(PAPER).draw(3, 5, np.arange(11, 16), 1.0)
    assert operations.tolist() == [[2, -1], [-1, -1], [-1, 11], [-1, 5], [14, -1]]
    assert arguments[operations >= 0].round(4).tolist() == [0, -0.2735, 30, -0.417]


def test_the_papers_string_is_read():
    assert parse_policy(PAPER) == RandAugment(
        magnitude=9,
        num_turns=2,
        probability=0.5,
        magnitude_std=0.5,
        max_magnitude=10,
        is_increasing=True,
    )
    assert parse_policy("") is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("v0", "got 'v0'"),
        ("randm9", "got 'randm9'"),
        ("rand-m9-w0", "'w0' is unknown"),
        ("rand-9", "'9' is unknown"),
        ("rand--m9", "'' is unknown"),
        ("rand-m9.5", "m expects a whole number"),
        ("rand-m", "m expects a whole number from 0 on, got ''"),
        ("rand-p1.5", "p expects a number from 0 to 1, got '1.5'"),
        ("rand-mstd-1", "mstd expects a number from 0 to 100, got ''"),
        ("rand-mstdnan", "mstd expects|'mstdnan' is unknown"),
        ("rand-mstd101", "mstd expects"),
        ("rand-inc2", "inc expects 0 or 1"),
        ("rand-n0", "n expects"),
        ("rand-m9-m8", "m stands twice"),
    ],
)
def test_strings_that_cannot_be_read_are_refused_with_the_wrong_part(text, part):
    with pytest.raises(ConfigError, match=f"augment.policy={text}: .*{part}"):
        parse_policy(text)
