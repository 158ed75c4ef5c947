"""Write the fuzzer's first inputs: small JPEG files of every kind, each behind its options.

python tests/fuzz/make_seeds.py FOLDER
"""

import io
import itertools
import sys
from pathlib import Path

import numpy as np
from PIL import Image

NUM_OPTIONS = 8  # kNumOptions of input.h
SIZES = [(1, 1), (3, 5), (8, 8), (16, 16), (17, 33), (31, 47), (64, 9), (9, 64), (50, 70)]
SAMPLINGS = ["4:4:4", "4:2:2", "4:2:0"]


def picture(height: int, width: int, rng: np.random.Generator) -> Image.Image:
    """Make a gradient under noise of random strength, so that runs of all lengths occur."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([3 * x, 4 * y, 2 * (x + y)], axis=2) % 256
    noise = rng.normal(0, rng.choice([0, 4, 60]), smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def encode(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def turned_sampling(data: bytes) -> bytes:
    """Make 4:4:0 of a 4:2:2 file, height and width swapped: it has as many MCUs."""
    frame = data.index(b"\xff\xc0\x00\x11")
    height, width = data[frame + 5 : frame + 7], data[frame + 7 : frame + 9]
    sampling = data[frame + 9 : frame + 11] + b"\x12" + data[frame + 12 :]
    return data[: frame + 5] + width + height + sampling


def files(rng: np.random.Generator) -> list[bytes]:
    made = []
    for number, (size, sampling) in enumerate(itertools.product(SIZES, SAMPLINGS)):
        quality = [5, 30, 75, 90, 100][number % 5]
        image = picture(*size, rng)
        options: dict[str, object] = {"quality": quality, "subsampling": sampling}
        made.append(encode(image, **options))
        made.append(encode(image, **options, restart_marker_blocks=1 + number % 8))
        made.append(encode(image, **options, restart_marker_rows=1, optimize=True))
        if sampling == "4:2:2":
            made += [turned_sampling(data) for data in made[-3:]]
    image = picture(40, 48, rng)
    made.append(encode(image.convert("L"), quality=80))
    made.append(encode(image.convert("CMYK"), quality=80))
    made.append(encode(image, quality=80, progressive=True))
    made.append(encode(image, quality=80, keep_rgb=True))
    made.append(encode(image, quality=80, comment=b"a comment", icc_profile=b"profile"))
    return made


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number, data in enumerate(files(rng)):
        options = rng.integers(0, 256, NUM_OPTIONS, dtype=np.uint8).tobytes()
        (folder / f"seed_{number:03d}").write_bytes(options + data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
