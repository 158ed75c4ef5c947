"""A contact sheet of training images: what the model saw, one row per resolution.

Dimensions: B images, S side in pixels.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

MARGIN_PX = 24
GAP_PX = 8
CAPTION_SIZE_PX = 18
LABEL_SIZE_PX = 14
TEXT_COLOR = (38, 38, 38)
LABEL_COLOR = (96, 96, 96)


def contact_sheet(
    rows: Sequence[tuple[str, np.ndarray]],
    labels: Sequence[Sequence[str]] | None = None,
    min_cell_px: int = 160,
) -> Image.Image:
    """Draw rows of images under their captions.

    All cells have one size, a multiple of the largest image's, and images are enlarged to it
    without interpolation, so that a low resolution shows its pixels.

    Args:
        rows: A caption such as "64 px, epoch 0", and [B, S, S, 3] uint8 RGB images; B and S may
            differ between rows. At least one row.
        labels: For each row B texts, drawn under its images and cut with an ellipsis where they
            are wider; None for no texts.
        min_cell_px: Smallest side of a cell.

    Returns:
        An RGB image on white.
    """
    largest = max(images.shape[1] for _, images in rows)
    cell = math.ceil(min_cell_px / largest) * largest
    caption_font, label_font = _font(CAPTION_SIZE_PX), _font(LABEL_SIZE_PX)
    caption_height, label_height = 2 * CAPTION_SIZE_PX, 2 * LABEL_SIZE_PX if labels else 0
    pitch = caption_height + cell + label_height + GAP_PX
    widths = [len(images) * (cell + GAP_PX) - GAP_PX for _, images in rows]
    widths += [math.ceil(caption_font.getlength(caption)) for caption, _ in rows]
    sheet = Image.new(
        "RGB",
        (max(widths) + 2 * MARGIN_PX, len(rows) * pitch - GAP_PX + 2 * MARGIN_PX),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for row, (caption, images) in enumerate(rows):
        top = MARGIN_PX + row * pitch
        draw.text((MARGIN_PX, top), caption, TEXT_COLOR, caption_font)
        for column, pixels in enumerate(images):
            left = MARGIN_PX + column * (cell + GAP_PX)
            image = Image.fromarray(pixels).resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(image, (left, top + caption_height))
            if labels:
                text = _fit(labels[row][column], label_font, cell)
                position = (left, top + caption_height + cell + LABEL_SIZE_PX // 3)
                draw.text(position, text, LABEL_COLOR, label_font)
    return sheet


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """Load the font of the charts, which covers more of the world's class names than Pillow's."""
    return ImageFont.truetype(
        Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size_px
    )


def _fit(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    """Cut a text with an ellipsis so that it is at most so wide."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text.rstrip(" ,") + "…"


def save_contact_sheet(folder: Path, loader: Any, resolutions: Sequence[int]) -> None:
    """Draw what the model will see: the same images' crops at each resolution.

    Args:
        folder: Gets `contact_sheet.png`.
        loader: Of training batches; left closed.
        resolutions: In pixels.
    """
    rows, labels = [], []
    names = loader.info.label_names
    for resolution in resolutions:
        loader.set_epoch(0, resolution)
        batch = next(iter(loader))
        rows.append((f"{resolution} px", batch.images[:8].cpu().numpy().copy()))
        labels.append([names[k] if names else str(k) for k in batch.labels[:8].tolist()])
    loader.close()
    contact_sheet(rows, labels).save(folder / "contact_sheet.png")
