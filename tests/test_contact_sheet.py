"""The contact sheet: every pixel in its place, every text inside."""

import numpy as np
import pytest

from ffvit.contact_sheet import GAP_PX, MARGIN_PX, contact_sheet


def images(count, side, seed=0):
    return np.random.default_rng(seed).integers(0, 200, (count, side, side, 3), dtype=np.uint8)


def find(sheet, picture):
    """Return (top, left) of the one place where a picture stands in a sheet."""
    height, width = picture.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], (height, width))
    corners = (windows[..., 0, 0] == picture[0, 0, 0]) & (windows[..., -1, 0] == picture[-1, 0, 0])
    places = [
        (top, left)
        for top, left in zip(*np.nonzero(corners), strict=True)
        if np.array_equal(sheet[top : top + height, left : left + width], picture)
    ]
    assert len(places) == 1
    return places[0]


def enlarge(image, side):
    index = ((np.arange(side) + 0.5) * len(image) / side).astype(int)
    return image[index][:, index]


@pytest.fixture(scope="module")
def rows():
    return [("64 px, epoch 1", images(3, 64, 1)), ("96 px, epoch 5", images(2, 96, 2))]


def test_images_are_enlarged_to_one_cell_by_repeating_pixels(rows):
    sheet = np.asarray(contact_sheet(rows, min_cell_px=100))
    tops = {}
    for row, (_, batch) in enumerate(rows):
        for column, image in enumerate(batch):
            top, left = find(sheet, enlarge(image, 192))
            assert left == MARGIN_PX + column * (192 + GAP_PX)
            tops.setdefault(row, set()).add(top)
    assert [len(values) for values in tops.values()] == [1, 1]
    assert tops[1].pop() >= tops[0].pop() + 192


def test_large_images_are_drawn_pixel_by_pixel():
    batch = images(2, 224)
    sheet = np.asarray(contact_sheet([("224 px", batch)]))
    for image in batch:
        find(sheet, image)


def test_captions_and_labels_are_dark_text_on_white_inside_the_margins(rows):
    long = "a class with a name that is much too long for its cell, " * 3
    labels = [["cat", "Käfer", long], [long, "dog"]]
    without = np.asarray(contact_sheet([(c, np.full_like(b, 255)) for c, b in rows]))
    sheet = np.asarray(contact_sheet([(c, np.full_like(b, 255)) for c, b in rows], labels))
    for drawn in (without, sheet):
        assert drawn.min() < 80
        inside = drawn[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
        assert (drawn < 255).sum() == (inside < 255).sum()
    assert (sheet < 128).sum() > (without < 128).sum()
    # The gap between two cells stays empty, so no label runs into its neighbour.
    gap = MARGIN_PX + 192
    assert (sheet[:, gap : gap + GAP_PX] == 255).all()


def test_a_caption_wider_than_the_images_widens_the_sheet():
    narrow = contact_sheet([("64 px", images(1, 64))])
    wide = contact_sheet([("a long caption for a single image " * 2, images(1, 64))])
    assert wide.width > narrow.width
    assert (np.asarray(wide)[:, -MARGIN_PX:] == 255).all()


def test_labels_that_fit_are_not_cut():
    white = np.full((1, 64, 64, 3), 255, dtype=np.uint8)
    sheets = [
        np.asarray(contact_sheet([("64 px", white)], [[label]]))
        for label in ("cat", "catalogue of everything there is", "catalogue of everything there")
    ]
    assert not np.array_equal(sheets[0], sheets[1])
    assert np.array_equal(sheets[1], sheets[2])
