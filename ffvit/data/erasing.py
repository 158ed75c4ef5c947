"""Random erasing (Zhong et al., arXiv:1708.04896): a box of some images becomes noise.

Semantics are timm's in its mode "pixel", after normalisation. Where timm draws new noise for each
box, boxes here are pieces of one million normal numbers, from a place that is drawn: a slice costs
nothing, and depends on counters alone.
"""

import functools
import math

import numpy as np
import torch
from scipy.special import ndtri

from ffvit.data.operations.policies import Floats, Ints
from ffvit.jpeg.crops import PURPOSE_ERASE, PURPOSE_NOISE, uniforms

MIN_AREA, MAX_AREA = 0.02, 1 / 3  # of the image
MIN_RATIO = 0.3  # of height to width, and of width to height
_MAX_TRIES = 10
_NOISE_LENGTH = 1 << 20


def erase(images: torch.Tensor, probability: float, seed: int, epoch: int, position: int) -> None:
    """Overwrite a box of some of the images with noise of mean 0 and deviation 1.

    Args:
        images: (B, C, H, W) float, normalised; changed in place.
        probability: That an image is erased.
        seed: Of the run.
        epoch: Pass over the data.
        position: Of the first image in the epoch's global order.
    """
    channels, height, width = images.shape[1:]
    positions = np.arange(position, position + len(images))
    boxes, places = draw_boxes(height, width, probability, seed, epoch, positions)
    noise = _noise(seed, max(_NOISE_LENGTH, channels * height * width), images.device)
    for row in np.flatnonzero(boxes[:, 2]).tolist():
        top, left, box_height, box_width = boxes[row].tolist()
        shape = (box_height, box_width, channels)
        begin = int(places[row] * (len(noise) - math.prod(shape)))
        piece = noise[begin : begin + math.prod(shape)].reshape(shape).permute(2, 0, 1)
        images[row, :, top : top + box_height, left : left + box_width] = piece


def draw_boxes(
    height: int, width: int, probability: float, seed: int, epoch: int, positions: Ints
) -> tuple[Ints, Floats]:
    """Draw what is erased of images at (B,) positions.

    Returns:
        (B, 4) int64 top, left, height and width of the box, of which both sizes are 0 where
        nothing is erased; and (B,) float64 from [0, 1): where its noise is taken from.
    """
    draws = uniforms(seed, epoch, positions, PURPOSE_ERASE, 4 + 2 * _MAX_TRIES)
    applied, down, right, places = draws[:, :4].T
    area = (MIN_AREA + draws[:, 4::2] * (MAX_AREA - MIN_AREA)) * (height * width)
    ratio = np.exp(math.log(MIN_RATIO) * (1 - 2 * draws[:, 5::2]))
    heights = np.rint(np.sqrt(area * ratio)).astype(np.int64)
    widths = np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (heights < height) & (widths < width)
    rows, first = np.arange(len(draws)), fits.argmax(axis=1)  # timm tries one after the other
    is_erased = fits.any(axis=1) & (applied < probability)
    box_height, box_width = heights[rows, first] * is_erased, widths[rows, first] * is_erased
    top = (down * (height - box_height + 1)).astype(np.int64)
    left = (right * (width - box_width + 1)).astype(np.int64)
    return np.stack([top, left, box_height, box_width], axis=1), places


@functools.cache
def _noise(seed: int, length: int, device: torch.device) -> torch.Tensor:
    """Draw (length,) normal numbers, once."""
    draws = uniforms(seed, 0, np.arange(length), PURPOSE_NOISE, 1)[:, 0]
    noise = ndtri(draws.clip(min=2.0**-54)).astype(np.float32)
    return torch.from_numpy(noise).to(device)
