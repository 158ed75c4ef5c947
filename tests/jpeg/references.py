"""What the kernel's tests share: pictures, calls of the kernel, and Pillow with exact resizing."""

import ctypes
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ffvit.jpeg.kernel import FILTERS, JOB_FIELDS, ThreadPool, decode_batch

JPEG, RAW = 0, 1
SAMPLINGS = ["4:4:4", "4:2:2", "4:4:0", "4:2:0"]


@dataclass(frozen=True)
class Job:
    """One image and what becomes of it; the defaults give the whole image at its own size."""

    data: bytes
    height: int
    width: int
    box: tuple[int, int, int, int] | None = None  # top, left, height, width
    flip: bool = False
    mode: int = JPEG

    def row(self, address: int) -> tuple[int, ...]:
        box = self.box or (0, 0, self.height, self.width)
        size = (self.height, self.width)
        return (address, len(self.data), self.mode, *size, *box, int(self.flip))


def decode(jobs, height, width, filter_name="area", pool=None, before=77):
    """Decode a batch into a buffer full of `before`; return the images and the statuses."""
    # Exactly as large as the data: behind those of a bytes object there is always a zero, which
    # would hide a read too far from AddressSanitizer.
    buffers = [(ctypes.c_uint8 * len(job.data)).from_buffer_copy(job.data) for job in jobs]
    rows = [job.row(ctypes.addressof(data)) for job, data in zip(jobs, buffers, strict=True)]
    table = np.array(rows, dtype=np.int64).reshape(len(jobs), len(JOB_FIELDS))
    images = np.full((len(jobs), height, width, 3), before, dtype=np.uint8)
    statuses = np.full(len(jobs), 99, dtype=np.int32)
    pool = pool or ThreadPool(1)
    num_failed = decode_batch(
        pool.address,
        len(jobs),
        table.ctypes.data,
        FILTERS[filter_name],
        height,
        width,
        images.ctypes.data,
        statuses.ctypes.data,
    )
    assert num_failed == np.count_nonzero(statuses)
    return images, statuses


def decode_one(job, height=None, width=None, filter_name="area", pool=None):
    """Decode one job, which must succeed; at the size of its box if none is given."""
    box = job.box or (0, 0, job.height, job.width)
    images, statuses = decode([job], height or box[2], width or box[3], filter_name, pool)
    assert statuses.tolist() == [0]
    return images[0]


def gradient(height, width):
    """Two gradients and a mark in the top left corner: no crop, flip or shift looks alike."""
    y, x = np.mgrid[:height, :width]
    image = np.stack(
        [255 * y / max(1, height - 1), 255 * x / max(1, width - 1), 128 + 0 * x], axis=-1
    ).round()
    image[: height // 5, : width // 7] = (250, 10, 240)
    return image.astype(np.uint8)


def photograph(height, width, seed=0):
    """Noise whose strength falls with its frequency, as in photographs, under coloured edges."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    noise = np.fft.fft2(rng.normal(size=(height, width, 3)), axes=(0, 1))
    smooth = np.fft.ifft2(noise / (frequency + 0.02)[..., None], axes=(0, 1)).real
    smooth *= 45 / max(smooth.std(), 1e-9)
    y, x = np.mgrid[:height, :width]
    edges = np.stack([(x // 23 % 2), (y // 19 % 2), ((x + y) // 29 % 2)], axis=-1) * 60
    return np.clip(100 + smooth + edges, 0, 255).astype(np.uint8)


def noise(height, width, seed=0):
    """Every coefficient of every block, the last one too."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def muted(image):
    """Take out contrast: no colour comes near the border of RGB, where clipping has a say."""
    return (128 + (image.astype(float) - 128) * 0.4).round().astype(np.uint8)


def noisy_blue(height, width, noise_levels):
    """Make an image whose noise drives blue out of RGB once it is quantised."""
    noise = np.random.default_rng(0).normal(0, noise_levels, (height, width, 1))
    return np.clip(np.array([20, 40, 230]) + noise, 0, 255).astype(np.uint8)


def encode(image, sampling="4:2:0", **options):
    """Encode pixels with Pillow, which has no 4:4:0: that is 4:2:2 of the transposed image."""
    if sampling == "4:4:0":
        return transposed(encode(image.transpose(1, 0, 2), "4:2:2", **options))
    buffer = io.BytesIO()
    options = {"quality": 92, "subsampling": sampling} | options
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def transposed(data):
    """Swap the axes of the frame: the same blocks, as if they were of a 4:4:0 file.

    The MCUs keep their order, so what comes out is another image, but a sound one.
    """
    frame = data.index(b"\xff\xc0\x00\x11")
    sampling = bytes([data[frame + 11] >> 4 | (data[frame + 11] & 15) << 4])
    swapped = data[frame + 7 : frame + 9] + data[frame + 5 : frame + 7]
    return (
        data[: frame + 5] + swapped + data[frame + 9 : frame + 11] + sampling + data[frame + 12 :]
    )


def pillow(data, mode="RGB"):
    """Decode the whole image with Pillow's libjpeg-turbo: accurate DCT, smooth upsampling."""
    image = Image.open(io.BytesIO(data))
    if mode == "YCbCr":
        image.draft("YCbCr", image.size)
    assert image.mode == mode or mode == "RGB"
    return np.asarray(image.convert(mode))


def coverage_matrix(size, output):
    """Exact area coverage, (output, size), rows summing to one."""
    edges = np.arange(output + 1) * size / output
    pixels = np.arange(size)
    low = np.maximum(edges[:-1, None], pixels)
    high = np.minimum(edges[1:, None], pixels + 1)
    return np.maximum(high - low, 0) / (size / output)


def triangle(x):
    return np.maximum(1 - np.abs(x), 0)


def cubic(x):
    """Keys (1981), a = -1/2."""
    x = np.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, inner, np.where(x < 2, outer, 0))


def interpolation_matrix(function, size, output):
    """Weights by distance, widened where the axis shrinks, scaled to a sum of one."""
    scale = size / output
    centers = (np.arange(output) + 0.5) * scale
    weights = function((np.arange(size) + 0.5 - centers[:, None]) / max(scale, 1))
    return weights / weights.sum(axis=1, keepdims=True)


def resize_matrix(filter_name, size, output):
    """What docs/decode.md promises for one axis."""
    if filter_name == "bicubic":
        return interpolation_matrix(cubic, size, output)
    if size >= output:
        return coverage_matrix(size, output)
    return interpolation_matrix(triangle, size, output)


def to_rgb(ycc):
    """JFIF's conversion, clipped, in float64."""
    y, cb, cr = ycc[..., 0], ycc[..., 1] - 128, ycc[..., 2] - 128
    rgb = [y + 1.402 * cr, y - 0.344136286 * cb - 0.714136286 * cr, y + 1.772 * cb]
    return np.clip(np.stack(rgb, axis=-1), 0, 255)


def exact(job, height, width, filter_name):
    """Decode everything with Pillow, cut, resize in float64, then convert to RGB and clip."""
    top, left, box_height, box_width = job.box or (0, 0, job.height, job.width)
    planes = pillow(job.data, "YCbCr").astype(float)
    crop = planes[top : top + box_height, left : left + box_width]
    rows = resize_matrix(filter_name, box_height, height)
    columns = resize_matrix(filter_name, box_width, width)
    resized = np.einsum("yh,hwc,xw->yxc", rows, crop, columns, optimize=True)
    return to_rgb(resized[:, ::-1] if job.flip else resized)


def clipped_first(job, height, width):
    """Decode to RGB with Pillow, which clips each pixel, and average areas in float64."""
    crop = pillow(job.data).astype(float)
    rows, columns = coverage_matrix(job.height, height), coverage_matrix(job.width, width)
    return np.einsum("yh,hwc,xw->yxc", rows, crop, columns, optimize=True)


def all_boxes(height, width):
    """Some boxes of every alignment modulo 16, among them single pixels and the whole image."""
    rng = np.random.default_rng(height * width)
    yield 0, 0, height, width
    yield height - 1, width - 1, 1, 1
    for alignment in range(16):
        top = min(alignment + 16 * int(rng.integers(0, 2)), height - 1)
        left = min((5 * alignment) % 16 + 16 * int(rng.integers(0, 2)), width - 1)
        box_height = int(rng.integers(1, height - top + 1))
        yield top, left, box_height, int(rng.integers(1, width - left + 1))
