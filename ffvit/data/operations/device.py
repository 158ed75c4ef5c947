"""A plan's pixels in torch operations, for a GPU: all images that need the same, at once.

Which images these are is known on the host, so it never waits for the device. Everything is
integer or float32 arithmetic without matrix products, which autocast would round to bfloat16.

Dimensions: B images, of them M that need the same; H rows and W columns of pixels, T turns.
"""

import numpy as np
import numpy.typing as npt
import torch

from ffvit.data.operations.plans import BLUR_TAPS, Kind, Plan, groups
from ffvit.data.operations.warp import ROUNDING

Tensor = torch.Tensor


def change_pixels(images: Tensor, plan: Plan, fill: tuple[int, int, int]) -> None:
    """Do what a plan says.

    Args:
        images: (B, H, W, 3) uint8 RGB; overwritten.
        plan: Of B images.
        fill: Colour of what lies outside of a warped image.
    """
    steps = groups(plan)
    if not steps:
        return
    rows = to_device(np.concatenate([rows for _, _, rows in steps]), images.device)
    factors, tables, blurs, matrices = (to_device(a, images.device) for a in plan[1:])
    begin = 0
    for turn, kind, own_rows in steps:
        chosen = rows[begin : begin + len(own_rows)]
        begin += len(own_rows)
        pixels = images.index_select(0, chosen)
        factor = factors[:, turn].index_select(0, chosen)[:, None, None, None]
        if kind == Kind.TABLE:
            table = tables[:, turn].index_select(0, chosen)
            changed = _look_up(pixels, table[:, None].expand(-1, 3, -1))
        elif kind == Kind.AUTO_CONTRAST:
            changed = _auto_contrast(pixels)
        elif kind == Kind.EQUALIZE:
            changed = _equalize(pixels)
        elif kind == Kind.CONTRAST:
            mean = (_grey(pixels).double().mean((1, 2, 3), keepdim=True) + 0.5).floor()
            changed = _blend(mean, pixels, factor)
        elif kind == Kind.COLOR:
            changed = _blend(_grey(pixels), pixels, factor)
        elif kind == Kind.SHARPNESS:
            changed = _sharpen(pixels, factor)
        elif kind == Kind.BLUR:
            changed = _blur(pixels, blurs[:, turn].index_select(0, chosen))
        else:
            changed = _warp(pixels, matrices[:, turn].index_select(0, chosen), fill)
        images.index_copy_(0, chosen, changed)


def to_device(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy an array to a device, without waiting for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _grey(images: Tensor) -> Tensor:
    """Convert to Pillow's mode L: (M, H, W, 3) uint8 -> (M, H, W, 1) int32."""
    red, green, blue = images.int().unbind(-1)
    grey: Tensor = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
    return grey[..., None]


def _blend(degenerate: Tensor, images: Tensor, factors: Tensor) -> Tensor:
    """Pillow's Image.blend: cuts off the fraction."""
    start = degenerate.float()
    return (start + factors * (images.float() - start)).clamp(0, 255).byte()


def _channels(images: Tensor) -> Tensor:
    """Number each image's channels, times 256: (M, 1, 1, 3) int64."""
    numbers = torch.arange(len(images) * 3, device=images.device)
    return (numbers * 256).reshape(-1, 1, 1, 3)


def _look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replace values by those of (M, 3, 256) tables."""
    return tables.reshape(-1)[images + _channels(images)]


def _auto_contrast(images: Tensor) -> Tensor:
    """Stretch each channel to 0..255: Pillow's ImageOps.autocontrast."""
    low, high = images.amin((1, 2)).double(), images.amax((1, 2)).double()
    # A tensor, as torch divides a number by a tensor as the number times the reciprocal.
    whole = torch.full_like(low, 255)
    scale = torch.where(high > low, whole / (high - low), 1.0)[..., None]
    offset = torch.where(high > low, -low, 0.0)[..., None] * scale
    values = torch.arange(256, device=images.device)
    return _look_up(images, (values * scale + offset).clamp(0, 255).byte())


def _equalize(images: Tensor) -> Tensor:
    """Spread each channel's values evenly: Pillow's ImageOps.equalize."""
    places = (images + _channels(images)).reshape(-1)
    counts = torch.zeros(len(images) * 3 * 256, dtype=torch.int32, device=images.device)
    counts.scatter_add_(0, places, torch.ones_like(places, dtype=torch.int32))
    counts = counts.reshape(-1, 3, 256)
    last = counts.gather(2, images.amax((1, 2)).long()[..., None])
    step = (counts.sum(2, keepdim=True) - last) // 255
    below = counts.cumsum(2) - counts
    spread = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    values = torch.arange(256, device=images.device)
    return _look_up(images, torch.where(step > 0, spread, values).byte())


def _sharpen(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the smoothed image: Pillow's ImageEnhance.Sharpness. The border stays."""
    smooth = images.int()
    if min(images.shape[1:3]) > 2:
        columns = smooth[:, :-2] + smooth[:, 1:-1] + smooth[:, 2:]
        total = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:]
        inner = smooth[:, 1:-1, 1:-1]
        inner.copy_((2 * (total + 4 * inner) + 13) // 26)
    return _blend(smooth, images, factors)


def _blur(images: Tensor, weights: Tensor) -> Tensor:
    """Convolve rows, then columns, with pixels beyond the border as those on it."""
    values = images.float()
    for axis in (2, 1):
        length = values.shape[axis]
        places = torch.arange(length, device=images.device)
        total = torch.zeros_like(values)
        for tap in range(BLUR_TAPS):
            shifted = (places + tap - BLUR_TAPS // 2).clamp(0, length - 1)
            total += weights[:, tap, None, None, None] * values.index_select(axis, shifted)
        values = total
    return (values + 0.5).clamp(0, 255).byte()


def _cubic(offsets: Tensor) -> list[Tensor]:
    """Weights of four neighbours: Pillow's bicubic filter of Image.transform, whose a is -1."""
    d = offsets.float()
    d2, d3 = d * d, d * d * d
    return [2 * d2 - d - d3, 1 - 2 * d2 + d3, d + d2 - d3, d3 - d2]


def _warp(images: Tensor, matrices: Tensor, fill: tuple[int, int, int]) -> Tensor:
    """Resample bicubically: Pillow's Image.transform with AFFINE."""
    height, width = images.shape[1:3]
    device = images.device
    x = torch.arange(width, device=device, dtype=torch.float64) + 0.5
    y = torch.arange(height, device=device, dtype=torch.float64)[:, None] + 0.5
    a, b, c, d, e, f = matrices[:, :, None, None].unbind(1)
    u, v = a * x + b * y + c, d * x + e * y + f  # (M, H, W)
    inside = ((u >= 0) & (u < width) & (v >= 0) & (v < height))[..., None]
    left, top = (u - 0.5).floor(), (v - 0.5).floor()
    across, down = _cubic(u - 0.5 - left), _cubic(v - 0.5 - top)
    pixels = images.reshape(-1, 3)
    first = torch.arange(len(images), device=device)[:, None, None] * (height * width)
    total = torch.full(images.shape, ROUNDING, device=device)
    for j in range(4):
        rows = first + (top.long() - 1 + j).clamp(0, height - 1) * width
        for i in range(4):
            places = rows + (left.long() - 1 + i).clamp(0, width - 1)
            neighbours = pixels.index_select(0, places.reshape(-1)).reshape(images.shape)
            total += (across[i] * down[j])[..., None] * neighbours.float()
    colour = to_device(np.array(fill, dtype=np.uint8), device)
    return torch.where(inside, total.clamp(0, 255).byte(), colour)
