"""Write images of 70 by 50 pixels for threads.cpp: sound ones, some for libjpeg-turbo, one damaged.

python tests/sanitize/make_images.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        image = Image.fromarray(rng.integers(0, 256, (50, 70, 3), dtype=np.uint8))
        path = folder / f"{number:02d}.jpg"
        # Tables of their own, so that the caches of tables turn over.
        image.save(path, quality=10 + 7 * number, progressive=number % 4 == 3, optimize=True)
    path = folder / "damaged.jpg"
    path.write_bytes((folder / "00.jpg").read_bytes()[:-200])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
