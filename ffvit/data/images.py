"""One source image, as the beton will hold it: upright, RGB, small enough, and encoded.

Ordinary JPEGs, nearly all of ImageNet, are kept or encoded anew by the kernel (transcode.py);
Pillow decodes everything else (libjpeg-turbo with its accurate DCT). Embedded colour profiles are
not applied, as in all common ImageNet pipelines.
"""

import contextlib
import dataclasses
import io
import re
import warnings
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ffvit.errors import SourceError
from ffvit.jpeg.decoders import decode_status
from ffvit.jpeg.header import JpegHeader, read_header
from ffvit.jpeg.transcode import shrink_jpeg, shrink_pixels
from ffvit.options import WriteSection

# Formats that hold photographs (MPO, several JPEGs in a row, counts as JPEG). Pillow's others
# include one that starts a program (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# The most that libjpeg encodes; a beton's 16-bit fields hold a little more.
LARGEST_SIDE_PX = 65_500
CHROMA = {"420": "4:2:0", "422": "4:2:2", "444": "4:4:4"}

_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1
# Sampling factors of 4:4:4, 4:2:2, 4:4:0 and 4:2:0.
_ORDINARY_SAMPLINGS = frozenset((luma, (1, 1), (1, 1)) for luma in ((1, 1), (2, 1), (1, 2), (2, 2)))
_WHITE = (255, 255, 255, 255)


@dataclasses.dataclass(frozen=True)
class StoredImage:
    """What goes into a beton for one image.

    Attributes:
        data: A JPEG file, or (height, width, 3) uint8 RGB pixels.
        height: Pixels.
        width: Pixels.
        is_jpeg: Which of the two `data` is.
        crc32: zlib.crc32 of `data`, made where the image was encoded.
        is_original: `data` is the source's own file, byte by byte.
    """

    data: bytes | memoryview
    height: int
    width: int
    is_jpeg: bool
    crc32: int
    is_original: bool = False


class SkippedImage(NamedTuple):
    """An image that is left out: its name, and why."""

    name: str
    reason: str


def stored_image(
    data: bytes, size: tuple[int, int], is_jpeg: bool, is_original: bool = False
) -> StoredImage:
    """Add the checksum to encoded `data` of (height, width) pixels."""
    return StoredImage(data, *size, is_jpeg, zlib.crc32(data), is_original)


def encode_image(data: bytes, name: str, section: WriteSection) -> StoredImage:
    """Turn an image file into what the beton stores.

    Args:
        data: The file's bytes, in one of `FORMATS`.
        name: Where it comes from, for messages.
        section: mode, max_side, short_side, jpeg_quality, chroma, restart_interval and max_pixels
            count here.

    Raises:
        SourceError: It has more than max_pixels (found before anything is decoded), cannot be
            decoded completely, or has a pixel format without a defined range.
    """
    if section.mode != "raw" and (stored := _from_ordinary_jpeg(data, section)):
        return stored
    image = _shrink(decode_image(data, name, section.max_pixels), section)
    if max(image.size) > LARGEST_SIDE_PX:
        raise SourceError(
            f"{name}: expected up to {LARGEST_SIDE_PX} pixels a side, got {image.width} x "
            f"{image.height}; set --max_side."
        )
    if section.mode == "raw":
        return stored_image(image.tobytes(), (image.height, image.width), is_jpeg=False)
    return stored_image(_encode_jpeg(image, section), (image.height, image.width), is_jpeg=True)


def decode_image(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Decode an image file with Pillow: upright, RGB, transparency on white.

    Args:
        data: The file's bytes, in one of `FORMATS`.
        name: Where it comes from, for messages.
        max_pixels: The most that are decoded.

    Raises:
        SourceError: As `encode_image`.
    """
    with _pillow_settings(max_pixels):
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                return _to_rgb(opened)
        except SourceError as error:
            raise SourceError(f"{name}: {error}") from None
        except UnidentifiedImageError:
            raise SourceError(
                f"{name}: expected an image in one of {', '.join(FORMATS)}, got {len(data)} bytes "
                "that are none; replace or remove it."
            ) from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            found = re.search(r"\((\d+) pixels\)", str(error))
            raise SourceError(
                f"{name}: expected up to {max_pixels} pixels, got "
                f"{found[1] if found else 'more'}; leave it out or, if you trust it, shrink it or "
                "write it with --max_pixels."
            ) from None
        except MemoryError:
            raise
        # On damaged files Pillow's decoders raise nearly anything; the file is at fault.
        except Exception as error:  # noqa: BLE001
            raise SourceError(
                f"{name}: expected a whole image, but {error or error!r}; replace or remove it."
            ) from None


def _from_ordinary_jpeg(data: bytes, section: WriteSection) -> StoredImage | None:
    """Keep a file, where passthrough may, or encode it anew without a detour over pixels.

    Returns:
        None: it is no ordinary JPEG, is turned, or libjpeg-turbo complains about it. Pillow reads
        over stray bytes, and says what is wrong with the rest.
    """
    try:
        header = read_header(data)
    except ValueError:
        return None
    size = header.height, header.width
    if not _is_plain(header) or size[0] * size[1] > section.max_pixels:
        return None
    if header.has_app1 and not _is_upright(data):
        return None
    new_size = _target_size(size, section)
    if section.mode == "passthrough" and new_size == size and _decodes(data, size):
        return stored_image(data, size, is_jpeg=True, is_original=True)
    if section.chroma != "420":
        return None
    try:
        data = shrink_jpeg(data, size, new_size, section.jpeg_quality, section.restart_interval)
    except ValueError:
        return None
    return stored_image(data, new_size, is_jpeg=True)


@contextlib.contextmanager
def _pillow_settings(max_pixels: int) -> Iterator[None]:
    """Let Pillow refuse larger images wherever it meets a size, and say nothing of metadata."""
    previous = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on harmless metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = previous


def _is_upright(data: bytes) -> bool:
    """Ask Pillow, which knows EXIF and XMP, whether a JPEG is to be turned."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return bool(image.getexif().get(_ORIENTATION_TAG, _UPRIGHT) == _UPRIGHT)
    except Exception:  # noqa: BLE001 - on damaged files Pillow raises nearly anything
        return False


def _decodes(data: bytes, size: tuple[int, int]) -> bool:
    """Tell whether the loader's decoder takes a file without complaint."""
    return decode_status(data, *size) == 0


def _is_plain(header: JpegHeader) -> bool:
    return (
        header.is_baseline
        and header.precision == 8
        and header.is_interleaved
        and header.is_ycbcr
        and header.sampling in _ORDINARY_SAMPLINGS
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation and convert to RGB; transparency shows white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips everything above 255.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise SourceError(
            f"expected 8 or 16 bits per channel, got Pillow mode {image.mode} (32 bits), whose "
            "range is not defined; convert it."
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    return image.convert("RGB")


def _target_size(size: tuple[int, int], section: WriteSection) -> tuple[int, int]:
    """Shrink (height, width) until neither limit is exceeded, keeping the shape."""
    scale = 1.0
    if section.max_side:
        scale = min(scale, section.max_side / max(size))
    if section.short_side:
        scale = min(scale, section.short_side / min(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shrink(image: Image.Image, section: WriteSection) -> Image.Image:
    """Shrink by exact area coverage.

    It is what stock ffcv uses (INTER_AREA), so published recipes meet the images they were tuned
    on. It cannot ring, which would cost JPEG bits, and a later area resize to the training
    resolution is nearly the same as a single one. Pillow's box filter is not that: it takes or
    leaves whole pixels.
    """
    size = image.height, image.width
    new_size = _target_size(size, section)
    if new_size == size:
        return image
    return Image.fromarray(shrink_pixels(np.asarray(image), new_size))


def _encode_jpeg(image: Image.Image, section: WriteSection) -> bytes:
    """Encode as baseline JPEG with the standard Huffman tables, which decoders keep ready."""
    buffer = io.BytesIO()
    image.info.clear()  # Pillow would copy comments
    image.save(
        buffer,
        "JPEG",
        quality=section.jpeg_quality,
        subsampling=CHROMA[section.chroma],
        optimize=False,
        restart_marker_blocks=section.restart_interval,
    )
    return buffer.getvalue()
