import random

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from timm.data.random_erasing import RandomErasing

from ffvit.data.erasing import draw_boxes, erase

HEIGHT, WIDTH = 90, 120


def boxes_of(images):
    """Find what was erased of zeros: (number, 2) heights and widths."""
    sizes = []
    for image in images:
        rows, columns = image.any(dim=(0, 2)), image.any(dim=(0, 1))
        assert (image[:, rows][:, :, columns] != 0).all()  # a box, all of it
        sizes.append((rows.sum().item(), columns.sum().item()))
    return np.array(sizes)


def test_boxes_are_as_large_as_timms_and_anywhere():
    timm = RandomErasing(1.0, mode="pixel", device="cpu")
    theirs = boxes_of(timm(torch.zeros(500, 1, HEIGHT, WIDTH)))
    boxes, _ = draw_boxes(HEIGHT, WIDTH, 1.0, 3, 1, np.arange(20_000))
    top, left, heights, widths = boxes[:10_000].T
    for ours, their in (
        (heights * widths, theirs[:, 0] * theirs[:, 1]),
        (heights / widths, theirs[:, 0] / theirs[:, 1]),
    ):
        assert kstest(ours, their).pvalue > 1e-3
    assert (top + heights <= HEIGHT).all()
    assert (left + widths <= WIDTH).all()
    assert kstest((top + 0.5) / (HEIGHT - heights + 1), "uniform").pvalue > 1e-4
    assert (top + heights == HEIGHT).any()
    assert (top == 0).any()


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_the_share_of_erased_images_is_the_probability(probability):
    boxes, _ = draw_boxes(32, 32, probability, 3, 1, np.arange(4000))
    assert (boxes[:, 2] > 0).mean() == pytest.approx(probability, abs=0.03)


def test_erased_pixels_are_normal_and_differ_between_images():
    images = torch.zeros(60, 3, HEIGHT, WIDTH).to(memory_format=torch.channels_last)
    erase(images, 1.0, 3, 1, 500)
    boxes_of(images)
    values = images[images != 0].numpy()
    assert kstest(values[::37], "norm").pvalue > 1e-4
    assert abs(values.mean()) < 0.02
    firsts = {image[image != 0][0].item() for image in images}
    assert len(firsts) == 60


def test_what_is_not_erased_stays():
    images = torch.randn(40, 3, 24, 24)
    erased = images.clone()
    erase(erased, 0.5, 3, 1, 0)
    changed = (erased != images).any(dim=(1, 2, 3))
    assert 10 < changed.sum() < 30
    assert ((erased != images).float().mean(dim=(1, 2, 3))[changed] < 0.5).all()


def test_a_box_that_fits_nowhere_is_left_out():
    """As in timm: ten tries, then none."""
    random.seed(0)
    timm = RandomErasing(1.0, mode="pixel", device="cpu")
    theirs = timm(torch.zeros(300, 1, 1, 40)).any()
    boxes, _ = draw_boxes(1, 40, 1.0, 0, 0, np.arange(300))
    assert not theirs
    assert not boxes[:, 2].any()
