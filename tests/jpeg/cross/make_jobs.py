"""Write the jobs that driver.cpp runs: `make_jobs.py FILE`.

The images are noise over gradients, so that no two blocks are alike. Noise that is stored with
small quantizers and read with large ones drives the transform into saturation. What begins with
"damaged" must not decode, what begins with "vivid" may be left to libjpeg-turbo for its colours,
which the driver does without; all else must.
"""

import io
import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image

JPEG, RAW = 0, 1
AREA, BICUBIC = 0, 1
SAMPLINGS = {"444": "4:4:4", "422": "4:2:2", "420": "4:2:0"}


def picture(generator, height, width, noise, contrast=0.5):
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([255 * y / height, 255 * x / width, 255 - 127 * (y + x) / height], axis=-1)
    pixels = ramps + noise * generator.normal(size=ramps.shape)
    pixels = 128 + contrast * (pixels.clip(0, 255) - 128)
    return Image.fromarray(pixels.astype(np.uint8))


def encode(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def with_tall_luma(data):
    """Turn 4:2:2 of an image into 4:4:0 of another one, with as many MCUs."""
    start = data.index(b"\xff\xc0")
    height, width = struct.unpack_from(">HH", data, start + 5)
    header = struct.pack(">HH", 2 * height, width // 2)
    data = data[: start + 5] + header + data[start + 9 :]
    return data[: start + 11] + b"\x12" + data[start + 12 :]


def with_coarse_tables(data):
    """Set every quantizer to 255."""
    data, start = bytearray(data), -1
    while (start := data.find(b"\xff\xdb", start + 1)) >= 0:
        size = int.from_bytes(data[start + 2 : start + 4], "big")
        for table in range(start + 4, start + 2 + size, 65):
            data[table + 1 : table + 65] = b"\xff" * 64
    return bytes(data)


def job(name, data, mode, size, box, flip, filter_number, output):
    numbers = (len(name), 0, len(data), mode, *size, *box, flip, filter_number, *output)
    return struct.pack("<14q", *numbers) + name.encode() + data


def jobs():
    generator = np.random.default_rng(11)

    def random_box(height, width):
        box_height, box_width = (int(generator.integers(1, n + 1)) for n in (height, width))
        top = int(generator.integers(0, height - box_height + 1))
        return top, int(generator.integers(0, width - box_width + 1)), box_height, box_width

    def crops_of(name, data, mode, size):
        boxes = [(0, 0, *size), random_box(*size), random_box(*size)]
        for number, box in enumerate(boxes):
            output = tuple(int(n) for n in generator.integers(1, 131, 2))
            for filter_number in (AREA, BICUBIC):
                flip = (number + filter_number) % 2
                full_name = f"{name}-{number}-{('area', 'bicubic')[filter_number]}"
                yield job(full_name, data, mode, size, box, flip, filter_number, output)

    for sampling, subsampling in SAMPLINGS.items():
        for quality in (30, 75, 92, 100):
            for interval in (0, 1, 5):
                height, width = (int(n) for n in generator.integers(17, 211, 2))
                noise = float(generator.integers(0, 60))
                image = picture(generator, height, width, noise)
                data = encode(
                    image,
                    quality=quality,
                    subsampling=subsampling,
                    restart_marker_blocks=interval,
                    optimize=quality == 75,
                )
                name = f"{sampling}-q{quality}-restart{interval}"
                yield from crops_of(name, data, JPEG, (height, width))
        for height, width in ((8, 8), (16, 16), (1, 5), (9, 6), (257, 7), (7, 259)):
            image = picture(generator, height, width, 30)
            data = encode(image, quality=90, subsampling=subsampling)
            yield from crops_of(f"{sampling}-{height}x{width}", data, JPEG, (height, width))

        for number in range(6):
            image = picture(generator, 131, 203, 10 * number, contrast=1)
            data = encode(image, quality=90, subsampling=subsampling, restart_marker_blocks=4)
            yield from crops_of(f"vivid-{sampling}-{number}", data, JPEG, (131, 203))

        image = picture(generator, 97, 113, 90, contrast=1)
        data = encode(image, quality=98, subsampling=subsampling)
        # Not resized, no colours are clipped before the end.
        whole = ((97, 113), (0, 0, 97, 113), 0, AREA, (97, 113))
        coarse = with_coarse_tables(data)
        yield job(f"{sampling}-saturated", coarse, JPEG, *whole)
        yield from crops_of(f"vivid-{sampling}-saturated", coarse, JPEG, (97, 113))
        data = data[: len(data) // 2] + data[len(data) // 2 + 1000 :]
        whole = ((97, 113), (0, 0, 97, 113), 0, AREA, (50, 40))
        yield job(f"damaged-{sampling}", data, JPEG, *whole)

    image = picture(generator, 64, 160, 30)
    data = with_tall_luma(encode(image, quality=90, subsampling="4:2:2"))
    yield from crops_of("440", data, JPEG, (128, 80))
    for height, width in ((1, 1), (23, 301), (150, 131)):
        image = picture(generator, height, width, 50)
        yield from crops_of(f"raw-{height}x{width}", image.tobytes(), RAW, (height, width))


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(b"".join(jobs()))
