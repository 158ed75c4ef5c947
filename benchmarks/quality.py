"""How near crops come to an exact decode and resize: ours, and stock ffcv's for comparison.

The reference decodes the whole image with Pillow (libjpeg-turbo's accurate DCT, smooth chroma) and
resizes the crop with float64 matrices: exact area coverage along an axis that shrinks, a triangle
of one crop pixel to either side along one that grows; then it rounds to uint8.
"""

import functools
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.betons import OURS, stored_images
from ffvit.jpeg import crops
from ffvit.jpeg.header import read_header
from ffvit.jpeg.kernel import FILTERS, JOB_FIELDS, ThreadPool, decode_batch

Pixels = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]  # top, left, height, width

RESOLUTIONS = (224, 128)
KINDS = ("shrinking", "mixed", "enlarging")  # both axes shrink, one of them, none
NUM_WORST = 5
# PSNR of equal images is infinite; none that differ can be above this at these sizes.
EQUAL_DB = 101.0
_JPEG = 0


def measure(num_images: int) -> dict[str, Any]:
    """Compare one random crop of each image, at each resolution.

    Returns:
        By resolution, what is compared with and decoder: PSNR (mean, 1st percentile, lowest) and
        mean absolute difference, of all crops and of each kind, and the worst crops.
    """
    images = stored_images(OURS)[:num_images]
    decoders: dict[str, Callable[[bytes, Box, int], Pixels]] = {
        "ffvit": decode_ours,
        "stock": decode_stock,
    }
    results: dict[str, Any] = {"num_images": len(images)}
    for resolution in RESOLUTIONS:
        rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for index, data, box in random_boxes(images, resolution):
            crop = _decode_whole(data)[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
            outputs = {name: decode(data, box, resolution) for name, decode in decoders.items()}
            place = {"image": index, "box": box, "kind": _kind(box, resolution)}
            exact, pillow = resize_exactly(crop, resolution), resize_by_pillow(crop, resolution)
            pairs = [
                ("reference", exact, outputs | {"pillow": pillow}),
                ("pillow", pillow, outputs),
            ]
            for against, expected, compared in pairs:
                for name, output in compared.items():
                    row = place | difference(output, expected)
                    rows.setdefault((against, name), []).append(row)
        by_target: dict[str, dict[str, Any]] = {}
        for (against, name), differences in rows.items():
            by_target.setdefault(against, {})[name] = _summary(differences)
        results[str(resolution)] = by_target
    return results


def decode_ours(data: bytes, box: Box, resolution: int) -> Pixels:
    """Decode a crop with our kernel; the only caller of its C interface here."""
    header = read_header(data)
    encoded = np.frombuffer(data, dtype=np.uint8)
    values = dict(zip(("top", "left", "crop_height", "crop_width"), box, strict=True))
    values |= {"data": encoded.ctypes.data, "size": len(data), "mode": _JPEG, "flip": 0}
    values |= {"height": header.height, "width": header.width}
    jobs = np.array([[values[name] for name in JOB_FIELDS]], dtype=np.int64)
    image = np.empty((resolution, resolution, 3), dtype=np.uint8)
    status = np.empty(1, dtype=np.int32)
    decode_batch(
        _pool().address,
        1,
        jobs.ctypes.data,
        FILTERS["area"],
        resolution,
        resolution,
        image.ctypes.data,
        status.ctypes.data,
    )
    if status[0] != 0:
        raise ValueError(f"expected a decoded image, got status {status[0]}")
    return image


def decode_stock(data: bytes, box: Box, resolution: int) -> Pixels:
    """Decode a crop with the two library calls of stock ffcv's decoder."""
    from ffcv.libffcv import imdecode, resize_crop  # noqa: PLC0415 - late, as for all of ffcv

    header = read_header(data)
    height, width = header.height, header.width
    whole = np.empty((height, width, 3), dtype=np.uint8)
    encoded = np.frombuffer(data, dtype=np.uint8)
    imdecode(encoded, whole, height, width, height, width, 0, 0, 1, 1, False, False)
    image = np.empty((resolution, resolution, 3), dtype=np.uint8)
    top, left, crop_height, crop_width = box
    resize_crop(whole, top, top + crop_height, left, left + crop_width, image)
    return image


def resize_exactly(crop: Pixels, resolution: int) -> Pixels:
    """Resize (H, W, 3) to a square in float64, by the definition in the module's docstring."""
    rows, columns = (resize_matrix(size, resolution) for size in crop.shape[:2])
    planes = crop.transpose(2, 0, 1).astype(np.float64)
    resized = rows @ planes @ columns.T
    return np.clip(np.floor(resized + 0.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)


@functools.lru_cache(maxsize=2048)
def resize_matrix(size: int, resolution: int) -> Matrix:
    """Weights of `size` pixels in each of `resolution` outputs; rows sum to one."""
    scale = size / resolution
    pixels = np.arange(size)
    if scale >= 1:
        edges = np.arange(resolution + 1) * scale
        low = np.maximum(edges[:-1, None], pixels)
        high = np.minimum(edges[1:, None], pixels + 1)
        weights = np.maximum(high - low, 0)
    else:
        centres = (np.arange(resolution)[:, None] + 0.5) * scale
        weights = np.maximum(1 - np.abs(pixels + 0.5 - centres), 0)
    matrix: Matrix = weights / weights.sum(axis=1, keepdims=True)
    return matrix


def resize_by_pillow(crop: Pixels, resolution: int) -> Pixels:
    """Resize with Pillow, each axis with its filter: box where it shrinks, else bilinear.

    Pillow itself resizes along one axis after the other and rounds in between. Its box takes or
    leaves whole pixels, so unless the scale is a whole number it is not exact coverage.
    """
    image = Image.fromarray(crop)
    for size in ((resolution, crop.shape[0]), (resolution, resolution)):
        shrinks = size[0] <= image.width and size[1] <= image.height
        resampling = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
        image = image.resize(size, resampling)
    return np.asarray(image)


def difference(output: Pixels, expected: Pixels) -> dict[str, float]:
    """Compare two images: PSNR in dB and mean absolute difference in levels."""
    error = output.astype(np.int32) - expected
    mean_square = float(np.mean(error * error))
    psnr_db = 10 * np.log10(255**2 / mean_square) if mean_square else EQUAL_DB
    return {"psnr_db": float(psnr_db), "mean_abs": float(np.mean(np.abs(error)))}


@functools.cache
def _pool() -> ThreadPool:
    return ThreadPool(1)


def _decode_whole(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def random_boxes(images: list[bytes], resolution: int) -> Iterator[tuple[int, bytes, Box]]:
    """Draw a training crop of each image, another one at each resolution."""
    for index, data in enumerate(images):
        header = read_header(data)
        box = crops.random_resized_crop(
            header.height, header.width, 0.08, 1.0, 3 / 4, 4 / 3, 0, resolution, index
        )
        yield index, data, box


def _kind(box: Box, resolution: int) -> str:
    return KINDS[sum(side < resolution for side in box[2:])]


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {"all": _statistics(rows)}
    for kind in KINDS:
        of_kind = [row for row in rows if row["kind"] == kind]
        if of_kind:
            summary[kind] = _statistics(of_kind)
    worst = sorted(rows, key=lambda row: row["psnr_db"])[:NUM_WORST]
    summary["worst"] = [
        {**row, "psnr_db": round(row["psnr_db"], 2), "mean_abs": round(row["mean_abs"], 3)}
        for row in worst
    ]
    return summary


def _statistics(rows: list[dict[str, Any]]) -> dict[str, float]:
    psnr_db = np.array([row["psnr_db"] for row in rows])
    return {
        "num_crops": len(rows),
        "psnr_db_mean": round(float(psnr_db.mean()), 2),
        "psnr_db_1st_percentile": round(float(np.percentile(psnr_db, 1)), 2),
        "psnr_db_min": round(float(psnr_db.min()), 2),
        "mean_abs": round(float(np.mean([row["mean_abs"] for row in rows])), 3),
    }
