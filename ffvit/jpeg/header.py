"""What a JPEG says about itself before its first scan; parsed without decoding, every read bounded.

It does not look at the entropy-coded data: a file with a sound header may still be damaged.
"""

import dataclasses

# Markers of ITU-T T.81, table B.1.
_START_OF_IMAGE = b"\xff\xd8"
_BASELINE = 0xC0
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_QUANTIZATION, _RESTART_INTERVAL = 0xDB, 0xDD
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclasses.dataclass(frozen=True)
class JpegHeader:
    """The frame of a JPEG file.

    Attributes:
        width: Pixels.
        height: Pixels.
        components: Number of colour components.
        precision: Bits per component.
        is_baseline: Sequential DCT with Huffman coding and at most two tables of each kind (SOF0).
        is_interleaved: The first scan holds all components.
        is_ycbcr: Three components that are to be read as YCbCr, by libjpeg's rules.
        sampling: (horizontal, vertical) sampling factors of each component.
        restart_interval: MCUs between restart markers; 0: none.
        has_app1: EXIF or XMP is there, which may say that the image is to be turned.
        quantization: 64 divisors of the first component, in the file's zigzag order; empty: none
            before the first scan.
    """

    width: int
    height: int
    components: int
    precision: int
    is_baseline: bool
    is_interleaved: bool
    is_ycbcr: bool
    sampling: tuple[tuple[int, int], ...]
    restart_interval: int
    has_app1: bool
    quantization: tuple[int, ...]


def read_header(data: bytes) -> JpegHeader:
    """Read the markers up to the first scan.

    Args:
        data: A JPEG file, or as much of its beginning as holds the first scan's header.

    Raises:
        ValueError: Not a JPEG file, or its markers are damaged.

    Source: ITU-T T.81, annex B; the colour space by libjpeg's default_decompress_parms.
    """
    if data[:2] != _START_OF_IMAGE:
        raise ValueError("expected a JPEG start marker")
    frame_marker, frame, restart_interval = 0, b"", 0
    has_jfif, adobe_transform, has_app1 = False, None, False
    tables: dict[int, tuple[int, ...]] = {}
    position = 2
    while True:
        marker, segment, position = _next_segment(data, position)
        if marker in _START_OF_FRAME:
            if frame:
                raise ValueError("two frame headers")
            frame_marker, frame = marker, segment
        elif marker == _RESTART_INTERVAL:
            if len(segment) != 2:
                raise ValueError("restart interval of the wrong length")
            restart_interval = int.from_bytes(segment, "big")
        elif marker == _QUANTIZATION:
            tables |= _parse_quantization(segment)
        # As libjpeg: a shorter one says nothing.
        elif marker == _APP0 and segment[:5] == b"JFIF\0" and len(segment) >= 14:
            has_jfif = True
        elif marker == _APP1:
            has_app1 = True
        elif marker == _APP14 and segment[:5] == b"Adobe" and len(segment) >= 12:
            adobe_transform = segment[11]
        elif marker == _END_OF_IMAGE:
            raise ValueError("no scan")
        elif marker == _START_OF_SCAN:
            break
    width, height, precision, ids, sampling = _parse_frame(frame)
    return JpegHeader(
        width=width,
        height=height,
        components=len(sampling),
        precision=precision,
        is_baseline=frame_marker == _BASELINE,
        is_interleaved=segment[:1] == bytes([len(sampling)]),
        is_ycbcr=_is_ycbcr(ids, has_jfif, adobe_transform),
        sampling=sampling,
        restart_interval=restart_interval,
        has_app1=has_app1,
        quantization=tables.get(frame[8], ()),
    )


def _next_segment(data: bytes, position: int) -> tuple[int, bytes, int]:
    """Return the marker at `position`, its payload, and where the next one begins."""
    if data[position : position + 1] != b"\xff":
        raise ValueError(f"expected a marker at byte {position}")
    while data[position : position + 1] == b"\xff":  # any number of fill bytes may precede it
        position += 1
    if position >= len(data):
        raise ValueError("the file ends within its headers")
    marker = data[position]
    position += 1
    if marker in _WITHOUT_LENGTH or marker == _END_OF_IMAGE:
        return marker, b"", position
    length = int.from_bytes(data[position : position + 2], "big")
    segment = data[position + 2 : position + length]
    if length < 2 or len(segment) != length - 2:
        raise ValueError("the file ends within its headers")
    return marker, segment, position + length


def _parse_frame(frame: bytes) -> tuple[int, int, int, bytes, tuple[tuple[int, int], ...]]:
    """Split a frame header into width, height, precision, component ids and sampling factors."""
    if len(frame) < 6 or len(frame) != 6 + 3 * frame[5]:
        raise ValueError("no frame header, or one of the wrong length")
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    sampling = tuple((byte >> 4, byte & 15) for byte in frame[7::3])
    if not (width and height and sampling):
        raise ValueError("a frame without size or components")
    if not all(1 <= factor <= 4 for pair in sampling for factor in pair):
        raise ValueError("a sampling factor outside 1 to 4")
    return width, height, frame[0], frame[6::3], sampling


def _parse_quantization(segment: bytes) -> dict[int, tuple[int, ...]]:
    """Split a segment into its tables, by number."""
    tables = {}
    while segment:
        num_bytes = 1 + (segment[0] >> 4)
        values = segment[1 : 1 + 64 * num_bytes]
        if num_bytes > 2 or len(values) != 64 * num_bytes:
            raise ValueError("a quantization table of the wrong length")
        tables[segment[0] & 15] = tuple(
            int.from_bytes(values[at : at + num_bytes], "big")
            for at in range(0, len(values), num_bytes)
        )
        segment = segment[1 + 64 * num_bytes :]
    return tables


def _is_ycbcr(ids: bytes, has_jfif: bool, adobe_transform: int | None) -> bool:
    if len(ids) != 3:
        return False
    if has_jfif:
        return True
    if adobe_transform is not None:
        return adobe_transform != 0
    return ids != b"RGB"
