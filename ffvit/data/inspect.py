"""What is inside a beton, as text for a terminal; and one of its images as a file."""

import collections
import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ffvit.data.beton import open_beton, read_sample
from ffvit.data.manifest import Manifest, load_manifest
from ffvit.data.tables import JPG, Tables, read_tables
from ffvit.errors import BetonError, ConfigError, printable
from ffvit.jpeg.header import JpegHeader, read_header

# JPEGs whose headers are looked at, and classes that are listed unless all are asked for.
_LOOKED_AT = 1000
_LISTED = 20
_NUM_BINS = 8
_BAR_WIDTH = 40
_LINE_WIDTH = 100
_CHROMA: dict[tuple[tuple[int, int], ...], str] = {
    ((1, 1), (1, 1), (1, 1)): "4:4:4",
    ((2, 1), (1, 1), (1, 1)): "4:2:2",
    ((1, 2), (1, 1), (1, 1)): "4:4:0",
    ((2, 2), (1, 1), (1, 1)): "4:2:0",
    ((4, 1), (1, 1), (1, 1)): "4:1:1",
}
# What libjpeg scales by its quality, in zigzag order. Source: ITU-T T.81, table K.1.
# fmt: off
_LUMA_DIVISORS = np.array([
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40,
    26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51,
    56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87,
    95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
])
# fmt: on
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


def describe_beton(path: Path, all_classes: bool = False) -> str:
    """Lay out samples, sizes, JPEG settings, classes and origin of a beton, several lines.

    Control characters in texts from the file are escaped.

    Args:
        path: The beton.
        all_classes: List every class, else the largest part of them is left out.

    Raises:
        BetonError: `open_beton` refuses it.
    """
    info = open_beton(path)
    tables, manifest = read_tables(path), load_manifest(path)
    sides = np.stack([tables.widths, tables.heights]).astype(np.int64)
    lines = [
        *_summary(path, tables, info.num_classes),
        *_histogram("bytes per image", tables.sizes.astype(np.int64)),
        *_histogram("longer side, pixels", sides.max(axis=0)),
        *_histogram("shorter side, pixels", sides.min(axis=0)),
        *_jpeg_settings(path, tables),
        *_classes(tables.labels, info.num_classes, info.label_names, all_classes),
        *_origin(manifest),
    ]
    return "\n".join(printable(line) for line in lines)


def save_sample(path: Path, sample: int, out: Path) -> str:
    """Save one image: its stored JPEG as it is to .jpg, everything else encoded by Pillow.

    Returns:
        What was saved, one line.

    Raises:
        ConfigError: No such sample, or another suffix than .jpg, .jpeg and .png.
        BetonError: `open_beton` refuses the beton, the image cannot be decoded, or `out` not be
            written.
    """
    if out.suffix.lower() not in IMAGE_SUFFIXES:
        raise ConfigError(f"--out={out}: expected a name with {', '.join(IMAGE_SUFFIXES)}.")
    info = open_beton(path)
    if not 0 <= sample < info.num_samples:
        raise ConfigError(
            f"--sample={sample}: expected 0 to {info.num_samples - 1}, the samples of {path}."
        )
    stored, label = read_sample(path, sample)
    try:
        if isinstance(stored, bytes) and out.suffix.lower() != ".png":
            out.write_bytes(stored)
        else:
            decode_stored(stored, f"{path}: sample {sample}").save(out)
    except OSError as error:
        raise BetonError(f"{out}: cannot write it ({error.strerror or error}).") from None
    name = f" ({info.label_names[label]})" if info.label_names else ""
    return printable(f"{out}: sample {sample} of {path}, label {label}{name}")


def decode_stored(stored: bytes | npt.NDArray[np.uint8], name: str) -> Image.Image:
    """Decode an image as a beton stores it, by Pillow.

    Args:
        stored: A JPEG file, or (height, width, 3) uint8 pixels.
        name: Of the sample, for the error.

    Raises:
        BetonError: It cannot be decoded.
    """
    if not isinstance(stored, bytes):
        return Image.fromarray(stored)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(stored), formats=["JPEG"]).convert("RGB")
        except Exception as error:  # noqa: BLE001 - on damaged files Pillow raises nearly anything
            raise BetonError(
                f"{name} cannot be decoded ({error}); save it as .jpg to get its bytes."
            ) from None


def _summary(path: Path, tables: Tables, num_classes: int) -> list[str]:
    """Say how much there is of everything."""
    num_samples, num_jpegs = len(tables.labels), int(np.count_nonzero(tables.modes == JPG))
    total, images = path.stat().st_size, int(tables.sizes.sum())
    num_raw = num_samples - num_jpegs
    kinds = [f"{num_jpegs:,} JPEGs"] * (num_jpegs > 0) + [f"{num_raw:,} of raw pixels"] * (
        num_raw > 0
    )
    parts = f"images {_bytes(images)}, tables and padding {_bytes(total - images)}"
    return [
        f"{path}",
        f"  {num_samples:,} images of {num_classes:,} classes: {', '.join(kinds)}",
        f"  {_bytes(total)}: {parts}; pages of {tables.page_size >> 20} MiB",
    ]


def _histogram(title: str, values: npt.NDArray[np.int64]) -> list[str]:
    """Draw how often values occur, and say their mean, median and extremes."""
    low, high = int(values.min()), int(values.max())
    if low == high:
        return ["", f"{title}: all {low:,}"]
    step = _round_step((high - low + 1) / _NUM_BINS)
    bins = values // step
    counts = np.bincount(bins - bins.min())
    begins = range(int(bins.min()) * step, high + 1, step)
    width = len(f"{begins[-1] + step - 1:,}")
    return [
        "",
        f"{title}: {low:,} to {high:,}, median {np.median(values):,.0f}, mean {values.mean():,.0f}",
    ] + [
        f"  {begin:>{width},} to {begin + step - 1:>{width},}  {count:>9,}  "
        f"{'#' * round(_BAR_WIDTH * count / counts.max())}".rstrip()
        for begin, count in zip(begins, counts.tolist(), strict=True)
    ]


def _round_step(least: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, ... that is not below `least`."""
    power = 1
    while True:
        for step in (power, 2 * power, 5 * power):
            if step >= least:
                return step
        power *= 10


def _jpeg_settings(path: Path, tables: Tables) -> list[str]:
    """Count settings over the headers of JPEGs that are spread evenly over the beton."""
    jpegs = np.flatnonzero(tables.modes == JPG)
    if not len(jpegs):
        return []
    picks = jpegs[np.linspace(0, len(jpegs) - 1, min(len(jpegs), _LOOKED_AT)).astype(int)]
    settings: dict[str, list[str]] = collections.defaultdict(list)
    with path.open("rb") as file:
        for sample in picks:
            file.seek(int(tables.pointers[sample]))
            try:
                header = read_header(file.read(int(tables.sizes[sample])))
            except ValueError:
                settings["damaged"].append("header")
                continue
            for name, value in _settings(header).items():
                settings[name].append(value)
    many = "all" if len(picks) == len(jpegs) else f"{len(picks):,} of the {len(jpegs):,}"
    lines = ["", f"JPEG settings, of {many} JPEGs"]
    return lines + [f"  {name:<17}{_shares(values)}" for name, values in settings.items()]


def _settings(header: JpegHeader) -> dict[str, str]:
    interval = header.restart_interval
    return {
        "quality": estimate_quality(header.quantization),
        "chroma": _CHROMA.get(
            header.sampling, "grey" if header.components == 1 else f"{header.sampling}"
        ),
        "coding": "baseline" if header.is_baseline else "progressive or another",
        "restart markers": f"every {interval} MCUs" if interval else "none",
    }


def estimate_quality(quantization: Sequence[int]) -> str:
    """Find libjpeg's quality that gives these luma divisors, or comes nearest.

    Args:
        quantization: 64 divisors, in zigzag order; or none.

    Returns:
        "90", "about 90" where another encoder's tables are only near it, or "unknown".
    """
    if len(quantization) != 64:
        return "unknown"
    qualities = np.arange(1, 101)
    scales = np.where(qualities < 50, 5000 // qualities, 200 - 2 * qualities)
    divisors = np.clip((scales[:, None] * _LUMA_DIVISORS + 50) // 100, 1, 255)
    distances = np.abs(divisors - np.array(quantization)).sum(axis=1)
    nearest = int(np.argmin(distances))
    return f"{'about ' if distances[nearest] else ''}{qualities[nearest]}"


def _shares(values: Iterable[str]) -> str:
    """List the most frequent values with their shares; "90" where there is no other."""
    counts = collections.Counter(values)
    shown = counts.most_common(5)
    if len(counts) == 1:
        return shown[0][0]
    rest = counts.total() - sum(count for _, count in shown)
    texts = [f"{value} ({count / counts.total():.1%})" for value, count in shown]
    return ", ".join(texts) + (f", others ({rest / counts.total():.1%})" if rest else "")


def _classes(
    labels: npt.NDArray[np.int64],
    num_classes: int,
    names: Sequence[str] | None,
    all_classes: bool,
) -> list[str]:
    """List classes by number, name and number of images."""
    counts = np.bincount(labels, minlength=num_classes)
    listed = list(range(num_classes))
    if not all_classes and num_classes > _LISTED:
        listed = listed[: _LISTED // 2]
    width = len(str(num_classes - 1))
    few, many = counts.min(), counts.max()
    lines = [
        "",
        "classes: " + (f"{few:,}" if few == many else f"{few:,} to {many:,}") + " images each",
    ]
    if names is None:
        lines[-1] += "; no manifest, so they have no names"
    lines += [
        f"  {label:>{width}}  {counts[label]:>9,}  {names[label] if names else ''}".rstrip()
        for label in listed
    ]
    if len(listed) < num_classes:
        lines.append(f"  and {num_classes - len(listed):,} more; --all_classes lists them")
    return lines


def _origin(manifest: Manifest | None) -> list[str]:
    """Say where the images come from and how they were written."""
    if manifest is None:
        return ["", "no manifest: origin, options and checksums are not known"]
    options = [f"{name}={value}" for name, value in manifest.options.items()]
    versions = [f"{name} {version}" for name, version in manifest.versions.items()]
    return [
        "",
        "manifest",
        f"  split      {manifest.split}",
        f"  source     {manifest.source}",
        f"  originals  {manifest.num_originals:,} images are their source's files, byte for byte",
        f"  skipped    {len(manifest.skipped):,} images of the source",
        *(f"             {name}: {reason}" for name, reason in manifest.skipped[:_LISTED]),
        *_listed("  options    ", options),
        *_listed("  versions   ", versions),
    ]


def _listed(title: str, texts: Sequence[str]) -> list[str]:
    """Put texts behind a title, in lines that fit a terminal."""
    lines = [title]
    for text in texts:
        if len(lines[-1]) + len(text) > _LINE_WIDTH and lines[-1].strip():
            lines.append(" " * len(title))
        lines[-1] += text + "  "
    return [line.rstrip() for line in lines]


def _bytes(count: int) -> str:
    """Say a number of bytes in the unit that fits."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"
