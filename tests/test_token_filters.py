"""Token filters as pictures: which unit, which patch, and what the two figures mean.

Dimensions: M hidden units, G patches along a side, N = 1 + G*G tokens.
"""

import numpy as np
import pytest
from matplotlib.figure import Figure

from ffvit.token_filters import draw_token_filters, token_filters

SIDE = 6
TOKENS = 1 + SIDE**2


def filters(patches, listening=None, scale=None):
    """Filters of (M, G, G) patch weights, with a class token's weight that no picture shows."""
    num_units = len(patches)
    fc1 = np.concatenate([np.full((num_units, 1), 99.0), patches.reshape(num_units, -1)], axis=1)
    fc2 = np.ones((TOKENS, num_units)) * (np.ones(num_units) if listening is None else listening)
    return token_filters(fc1, fc2, np.ones(TOKENS) if scale is None else scale)


def test_patches_lie_as_in_the_image_and_the_layer_norms_scale_counts():
    patches = np.random.default_rng(0).normal(size=(1, SIDE, SIDE))
    scale = np.arange(TOKENS, dtype=float)
    (image,) = filters(patches, scale=scale).images
    assert image[2, 3] == patches[0, 2, 3] * (1 + 2 * SIDE + 3)


def test_units_that_are_listened_to_come_first():
    patches = np.arange(1, 4)[:, None, None] * np.ones((3, SIDE, SIDE))
    images = filters(patches, listening=np.array([1.0, 100.0, 2.0])).images
    assert images[:, 0, 0].tolist() == [2, 3, 1]


def test_a_wave_is_of_low_frequency_and_a_chessboard_is_not():
    row, column = np.mgrid[:SIDE, :SIDE]
    wave = np.cos(np.pi * (row + 0.5) / SIDE)
    board = np.where((row + column) % 2, 1.0, -1.0)
    assert filters(wave[None]).low_share == pytest.approx(1)
    assert filters(board[None]).low_share < 0.2


def test_reach_is_the_share_of_patches_that_count():
    one = np.zeros((1, SIDE, SIDE))
    one[0, 1, 2] = -3
    assert filters(one).reach == pytest.approx(1 / SIDE**2)
    assert filters(np.ones((1, SIDE, SIDE)) + np.eye(SIDE) * 1e-9).reach == pytest.approx(1)


def test_random_weights_have_the_figures_that_the_picture_names():
    found = filters(np.random.default_rng(0).normal(size=(4000, SIDE, SIDE)))
    assert found.low_share == pytest.approx((3 * 3 - 1) / (SIDE**2 - 1), abs=0.01)
    assert found.reach == pytest.approx(1 / 3, abs=0.05)


def test_each_block_is_a_row_of_pictures_with_its_own_scale(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: taken.append(figure))
    rng = np.random.default_rng(0)
    layers = [filters(rng.normal(size=(5, SIDE, SIDE)) * size) for size in (1.0, 100.0)]
    draw_token_filters(layers, "a $run$", tmp_path / "x.png")
    (figure,) = taken
    assert len(figure.axes) == 2 * 5
    for axes, image in zip(figure.axes, [*layers[0].images, *layers[1].images], strict=True):
        (shown,) = axes.images
        assert np.array_equal(shown.get_array(), image)
        assert shown.norm.vmax == -shown.norm.vmin == np.abs(image).max()
