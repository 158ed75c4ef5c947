"""One source image, as the beton will hold it: upright, RGB, small enough, and encoded.

Pillow decodes (libjpeg-turbo with its accurate DCT). Embedded colour profiles are not applied, as
in all common ImageNet pipelines.
"""

import dataclasses
import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ffvit.config import WriteSection
from ffvit.errors import SourceError
from ffvit.jpeg.decoders import decode_status
from ffvit.jpeg.header import JpegHeader, read_header

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
        is_original: `data` is the source's own file, byte by byte.
    """

    data: bytes
    height: int
    width: int
    is_jpeg: bool
    is_original: bool = False


def encode_image(data: bytes, name: str, section: WriteSection) -> StoredImage:
    """Turn an image file into what the beton stores.

    Args:
        data: The file's bytes, in one of `FORMATS`.
        name: Where it comes from, for messages.
        section: mode, max_side, short_side, jpeg_quality, chroma and restart_interval count here.

    Raises:
        SourceError: It cannot be decoded completely, or has a pixel format without a defined range.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on harmless metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
                if section.mode == "passthrough" and _may_stay(opened, data, section):
                    return _stored_jpeg(data, is_original=True)
                image = _shrink(_to_rgb(opened), section)
        except SourceError as error:
            raise SourceError(f"{name}: {error}") from None
        except UnidentifiedImageError:
            raise SourceError(
                f"{name}: expected an image in one of {', '.join(FORMATS)}, got {len(data)} bytes "
                "that are none; replace or remove it."
            ) from None
        # On damaged files Pillow's decoders raise nearly anything; the file is at fault.
        except Exception as error:  # noqa: BLE001
            raise SourceError(
                f"{name}: expected a whole image, but {error or error!r}; replace or remove it."
            ) from None
    if max(image.size) > LARGEST_SIDE_PX:
        raise SourceError(
            f"{name}: expected up to {LARGEST_SIDE_PX} pixels a side, got {image.width} x "
            f"{image.height}; set --max_side."
        )
    if section.mode == "raw":
        return StoredImage(image.tobytes(), image.height, image.width, is_jpeg=False)
    return _stored_jpeg(_encode_jpeg(image, section))


def _may_stay(image: Image.Image, data: bytes, section: WriteSection) -> bool:
    """Tell whether passthrough may keep the file: small, upright, and an ordinary baseline JPEG.

    And one that the loader's decoder takes without complaint: it is stricter than Pillow, which
    reads over stray bytes. What it refuses is encoded anew.
    """
    if image.format != "JPEG" or _target_size(image.size, section) != image.size:
        return False
    try:
        header = read_header(data)
    except ValueError:
        return False
    is_upright = image.getexif().get(_ORIENTATION_TAG, _UPRIGHT) == _UPRIGHT
    return _is_plain(header) and is_upright and decode_status(data, image.height, image.width) == 0


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
    """Shrink (width, height) until neither limit is exceeded, keeping the shape."""
    scale = 1.0
    if section.max_side:
        scale = min(scale, section.max_side / max(size))
    if section.short_side:
        scale = min(scale, section.short_side / min(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shrink(image: Image.Image, section: WriteSection) -> Image.Image:
    """Shrink by exact area coverage.

    The box filter is what stock ffcv uses (INTER_AREA), so published recipes meet the images they
    were tuned on. It cannot ring, which would cost JPEG bits, and a later area resize to the
    training resolution is nearly the same as a single one.
    """
    size = _target_size(image.size, section)
    return image if size == image.size else image.resize(size, Image.Resampling.BOX)


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


def _stored_jpeg(data: bytes, is_original: bool = False) -> StoredImage:
    """Take width and height from the file itself, so that they cannot disagree."""
    header = read_header(data)
    return StoredImage(data, header.height, header.width, is_jpeg=True, is_original=is_original)
