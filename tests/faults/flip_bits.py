"""Flip bits of a beton one at a time and look at what open, load and verify make of each.

    python flip_bits.py BETON NUM_FLIPS SEED

works on the file in place, which is whole again afterwards, and prints one JSON object: how often
each outcome was met, and the flips after which something happened that must not. A process of its
own, so that a crash is a failed test and not the end of all tests.
"""

import collections
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch

from ffvit.data.beton import open_beton
from ffvit.data.loader import Loader, create_val_loader
from ffvit.data.manifest import load_manifest, manifest_path
from ffvit.data.tables import read_tables
from ffvit.data.verify import verify_beton
from ffvit.errors import BetonError
from ffvit.jpeg.kernel import ThreadPool, decode_batch
from ffvit.options import DataSection, ValidationSection

RESOLUTION = 48
POOL = ThreadPool(1)


def choose_place(rng: random.Random, beton: Path) -> tuple[str, int, int | None]:
    """Choose header or tables, an image or padding, and a byte in it; and whose image it is."""
    tables, size = read_tables(beton), beton.stat().st_size
    first, last = int(tables.pointers.min()), int((tables.pointers + tables.sizes).max())
    has_padding = last < tables.data_end
    weights = [20, 20, 60] if has_padding else [25, 75, 0]
    region = rng.choices(["tables", "image", "padding"], weights)[0]
    if region == "tables":
        places = [*range(tables.data_begin), *range(tables.data_end, size)]
        return region, rng.choice(places), None
    if region == "image":
        sample = rng.randrange(len(tables.labels))
        place = int(tables.pointers[sample]) + rng.randrange(int(tables.sizes[sample]))
        return region, place, sample
    gap = rng.choice([(tables.data_begin, first), (last, tables.data_end)])
    return region, rng.randrange(*gap), None


def load(loader: Loader) -> np.ndarray | int:
    """Load all images; or return which sample the loader complains about."""
    try:
        return np.concatenate([batch.images.clone().numpy() for batch in loader])
    except BetonError as error:
        return int(str(error).split(": sample ")[1].split(":")[0])


def decode_all(beton: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode whole images by the kernel, as the loader's compiled code does, by the file's tables.

    A new loader would be compiled for each flip.
    """
    tables, data = read_tables(beton), np.memmap(beton, np.uint8, "r")
    num_samples = len(tables.labels)
    jobs = np.zeros((num_samples, 10), dtype=np.int64)
    jobs[:, 0] = data.ctypes.data + tables.pointers.astype(np.int64)
    jobs[:, 1], jobs[:, 2] = tables.sizes, tables.modes
    jobs[:, 3], jobs[:, 4] = tables.heights, tables.widths
    jobs[:, 7], jobs[:, 8] = tables.heights, tables.widths
    pixels = np.empty((num_samples, RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    statuses = np.empty(num_samples, dtype=np.int32)
    decode_batch(
        POOL.address,
        num_samples,
        jobs.ctypes.data,
        0,
        RESOLUTION,
        RESOLUTION,
        pixels.ctypes.data,
        statuses.ctypes.data,
    )
    return pixels, statuses


class Flips:
    """What each flip did; `violations` must stay empty."""

    def __init__(self, beton: Path) -> None:
        self.beton = beton
        self.without_manifest = beton.with_name("without_manifest_" + beton.name)
        self.without_manifest.write_bytes(beton.read_bytes())
        device = torch.device("cpu")
        validation = ValidationSection(batch_size=8, resolution=RESOLUTION, ratio=1.0)
        self.loader = create_val_loader(
            DataSection(val_path=str(beton)), validation, 0, 1, 2, device
        )
        self.images = load(self.loader)
        assert isinstance(self.images, np.ndarray)
        self.whole_images, statuses = decode_all(beton)
        assert not statuses.any()
        self.counts: collections.Counter[str] = collections.Counter()
        self.violations: list[str] = []

    def check(self, region: str, sample: int | None) -> str:
        """Look at the flipped file; return the outcome's name."""
        if region == "tables":
            return self._check_tables()
        findings = [finding.sample for finding in verify_beton(self.beton).findings]
        if findings != [sample]:
            return f"VIOLATION: verify found {findings}"
        loaded = load(self.loader)
        if isinstance(loaded, int):
            return "image: refused" if loaded == sample else f"VIOLATION: sample {loaded} is named"
        changed = (loaded != self.images).any(axis=(1, 2, 3))
        if sample is None:
            return "VIOLATION: padding is seen" if changed.any() else "padding: not seen"
        others = np.delete(self.images, sample, axis=0)
        if changed[np.arange(len(changed)) != sample].any():
            return "VIOLATION: another sample changed"
        if (others == loaded[sample]).all(axis=(1, 2, 3)).any():
            return "VIOLATION: another sample's pixels"
        return "image: pixels differ" if changed[sample] else "image: same pixels"

    def _check_tables(self) -> str:
        for refuses in (open_beton, verify_beton):
            try:
                refuses(self.beton)
            except BetonError:
                continue
            return f"VIOLATION: {refuses.__name__} took it"
        try:
            open_beton(self.without_manifest)
        except BetonError:
            return "tables: refused without a manifest, too"
        pixels, statuses = decode_all(self.without_manifest)
        own = (pixels == self.whole_images).all(axis=(1, 2, 3))
        if not (own | (statuses != 0)).all():
            return "VIOLATION: other pixels, no status"
        return "tables: refused by the manifest alone"

    def run(self, num_flips: int, seed: int) -> None:
        """Flip, look, and flip back."""
        rng = random.Random(seed)
        for _ in range(num_flips):
            region, place, sample = choose_place(rng, self.without_manifest)
            bit = rng.randrange(8)
            for path in (self.beton, self.without_manifest):
                flip(path, place, bit)
            outcome = self.check(region, sample)
            for path in (self.beton, self.without_manifest):
                flip(path, place, bit)
            self.counts[outcome] += 1
            if outcome.startswith("VIOLATION"):
                self.violations.append(f"byte {place}, bit {bit}, sample {sample}: {outcome}")


def flip(path: Path, place: int, bit: int) -> None:
    """Flip one bit in place, as a bad disk does: a map of the file sees it, its time stays."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


if __name__ == "__main__":
    beton, num_flips, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    assert load_manifest(beton), manifest_path(beton)
    flips = Flips(beton)
    flips.run(num_flips, seed)
    flips.loader.close()
    json.dump({"counts": flips.counts, "violations": flips.violations}, sys.stdout)
