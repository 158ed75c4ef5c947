"""A contact sheet of training images: what the model will see, one row per resolution.

Dimensions: B images, S side in pixels.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ffvit.data.augment import IMAGENET_MEAN, IMAGENET_STD

MARGIN_PX = 24
GAP_PX = 8
CAPTION_SIZE_PX = 18
LABEL_SIZE_PX = 14
TEXT_COLOR = (38, 38, 38)
LABEL_COLOR = (96, 96, 96)
NUM_IMAGES = 8
# A smaller share of a class cannot be seen in the image.
_LEAST_SHARE = 0.005


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
        labels: For each row B texts, drawn under its images, whose lines are cut with an ellipsis
            where they are wider; None for no texts.
        min_cell_px: Smallest side of a cell.

    Returns:
        An RGB image on white.
    """
    largest = max(images.shape[1] for _, images in rows)
    cell = math.ceil(min_cell_px / largest) * largest
    caption_font, label_font = _font(CAPTION_SIZE_PX), _font(LABEL_SIZE_PX)
    num_lines = max((text.count("\n") + 1 for row in labels or [] for text in row), default=0)
    caption_height, line_height = 2 * CAPTION_SIZE_PX, 4 * LABEL_SIZE_PX // 3
    label_height = num_lines * line_height + LABEL_SIZE_PX if labels else 0
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
                position = top + caption_height + cell + LABEL_SIZE_PX // 3
                for line, text in enumerate(labels[row][column].split("\n")):
                    draw.text(
                        (left, position + line * line_height),
                        _fit(text, label_font, cell),
                        LABEL_COLOR,
                        label_font,
                    )
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


def label_texts(labels: Any, names: Sequence[str] | None) -> list[str]:
    """Name the classes of some images.

    Args:
        labels: (B,) int64, or (B, K) float shares of each class.
        names: Of the K classes; None: their numbers.

    Returns:
        For each image its class; where images are mixed, a line for each with its share.
    """

    def name(label: int) -> str:
        return names[label] if names else str(label)

    if labels.ndim == 1:
        return [name(label) for label in labels.tolist()]
    texts = []
    for shares in labels:
        largest = [(float(shares[k]), int(k)) for k in shares.argsort(descending=True)[:2]]
        lines = [f"{share:.0%} {name(k)}" for share, k in largest if share >= _LEAST_SHARE]
        texts.append("\n".join(lines) if len(lines) > 1 else name(largest[0][1]))
    return texts


def denormalize(images: Any) -> np.ndarray:
    """Undo `augment.normalize`, for the eye.

    Args:
        images: (B, 3, H, W) float tensor.

    Returns:
        (B, H, W, 3) uint8 RGB; what lies outside of 0..255 is clipped.
    """
    pixels: np.ndarray = images.float().permute(0, 2, 3, 1).cpu().numpy()
    pixels = pixels * IMAGENET_STD + IMAGENET_MEAN
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def training_rows(
    loader: Any,
    first_epochs: Mapping[int, int],
    augment: Callable[[Any, int], tuple[Any, Any]],
    num_images: int = NUM_IMAGES,
) -> tuple[list[tuple[str, np.ndarray]], list[list[str]]]:
    """Make rows of what the model will see: the same images at each resolution.

    Args:
        loader: Of training batches; left closed. All rows show epoch 0's first images.
        first_epochs: Resolution in pixels -> the first epoch that trains at it, whose augmentation
            is shown.
        augment: Batch and epoch -> normalised images and labels, as the trainer calls it.
        num_images: Of a row, at most.

    Returns:
        Rows and labels, as `contact_sheet` takes them.
    """
    rows, labels = [], []
    for resolution, epoch in first_epochs.items():
        loader.set_epoch(0, resolution)
        images, targets = augment(next(iter(loader)), epoch)
        pixels = denormalize(images[:num_images])
        rows.append((f"{resolution} px, as in epoch {epoch + 1}", pixels))
        labels.append(label_texts(targets[:num_images].cpu(), loader.info.label_names))
    loader.close()
    return rows, labels


def save_contact_sheet(
    folder: Path,
    loader: Any,
    first_epochs: Mapping[int, int],
    augment: Callable[[Any, int], tuple[Any, Any]],
) -> None:
    """Draw `training_rows` into a run's folder, as `contact_sheet.png`."""
    rows, labels = training_rows(loader, first_epochs, augment)
    contact_sheet(rows, labels).save(folder / "contact_sheet.png")
