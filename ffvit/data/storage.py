"""Betons held open and mapped into memory, read as one data set.

The tables are read and checked once, and kept at 17 bytes per image and as few as hold the highest
label. A file that is renamed away or deleted stays readable to its end; one that is changed in
place is noticed by `check_unchanged`.
"""

import contextlib
import glob
import mmap
import os
import re
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ffvit.data.beton import JPG, BetonInfo, Tables, check_same_classes, open_beton, read_tables
from ffvit.data.remote import default_folder, expand, is_url, stage
from ffvit.errors import BetonError

# What the decoders read of an image. `address` is one of this process's memory.
IMAGE_TYPE = np.dtype(
    [("address", "<u8"), ("size", "<u4"), ("height", "<u2"), ("width", "<u2"), ("mode", "u1")]
)
# What write_imagenet.py calls the shards of a split.
SHARD_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.beton")
# Linux reads no more at one request, whatever is asked for.
_REQUEST_BYTES = 1 << 19


class _State(NamedTuple):
    """What changes when a file does."""

    device: int
    inode: int
    num_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "_State":
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class MappedBeton:
    """One beton, open and mapped. Make it by `open_mapped`.

    Attributes:
        info: What `open_beton` says of it.
        base: Address of its first byte.
    """

    def __init__(self, info: BetonInfo, descriptor: int, state: _State) -> None:
        self.info = info
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        self._state = state
        self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        self.base = np.frombuffer(self._map, dtype=np.uint8).ctypes.data

    def check_unchanged(self) -> None:
        """Look whether the open file is still what it was.

        Raises:
            BetonError: It was cut off, written to, or cannot be reached any more.
        """
        try:
            state = _State.of(os.fstat(self._descriptor))
        except OSError as error:
            raise BetonError(
                f"{self.info.path}: cannot be reached any more ({error.strerror}).", is_local=True
            ) from None
        if state != self._state:
            raise BetonError(
                f"{self.info.path}: expected the file as it was opened ({self._state.num_bytes} "
                f"bytes), but it was changed in place while it is in use (now {state.num_bytes} "
                "bytes); check it with `python -m ffvit verify` and start again. A beton may be "
                "replaced at any time by renaming another file over it.",
                is_local=True,
            )

    def read(self, address: int, num_bytes: int) -> bytes:
        """Copy a part of the file."""
        start = address - self.base
        return self._map[start : start + num_bytes]

    def read_ahead(self, address: int, num_bytes: int) -> None:
        """Ask the system to read a part of the file before it is needed."""
        begin = (address - self.base) // mmap.PAGESIZE * mmap.PAGESIZE
        end = min(address - self.base + num_bytes, len(self._map))
        for start in range(begin, end, _REQUEST_BYTES):
            self._map.madvise(mmap.MADV_WILLNEED, start, min(_REQUEST_BYTES, end - start))


def open_mapped(path: Path) -> tuple[MappedBeton, Tables]:
    """Open a beton, and read the tables of exactly the file that stays open.

    Raises:
        BetonError: Not a whole beton, or it was replaced at the same time.
    """
    try:
        # Not blocking: a pipe is refused by `open_beton`.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        open_beton(path)  # says what is wrong
        raise
    with contextlib.ExitStack() as on_error:
        on_error.callback(os.close, descriptor)
        state = _State.of(os.fstat(descriptor))
        info, tables = open_beton(path), read_tables(path)
        if _State.of(path.stat()) != state:
            raise BetonError(
                f"{path}: was replaced or changed while it was opened; start when that is done."
            )
        on_error.pop_all()
    return MappedBeton(info, descriptor, state), tables


class Storage:
    """Some betons as one data set; its samples are those of the first, then of the second, ...

    Args:
        paths: What `data.train_path` names: files or URLs, separated by commas; each may be a
            pattern.
        stage_dir: Where betons at URLs are copied to: `data.stage_dir`.

    Attributes:
        info: Of them all; `path` is `paths`.
        images: (num_samples,) records of `IMAGE_TYPE`.
        labels: (num_samples,) unsigned integers.

    Raises:
        BetonError: One is not a whole beton, or their classes differ.
    """

    def __init__(self, paths: str, stage_dir: str = "") -> None:
        opened = [open_mapped(path) for path in find_betons(paths, stage_dir)]
        self._betons = [beton for beton, _ in opened]
        self.info = _joint_info(paths, [beton.info for beton in self._betons])
        self._begins = np.cumsum([0, *(beton.info.num_samples for beton in self._betons)])
        num_samples = int(self._begins[-1])
        self.images = np.empty(num_samples, dtype=IMAGE_TYPE)
        self.labels = np.empty(num_samples, dtype=np.min_scalar_type(self.info.num_classes - 1))
        places = np.empty(num_samples, dtype=np.int32)
        for (beton, tables), begin in zip(opened, self._begins, strict=False):
            _check_sizes(beton.info.path, tables)
            part = slice(begin, begin + len(tables.labels))
            self.images["address"][part] = tables.pointers + np.uint64(beton.base)
            for name in ("size", "height", "width", "mode"):
                self.images[name][part] = getattr(tables, f"{name}s")
            self.labels[part] = tables.labels
            places[part] = begin + np.argsort(tables.pointers, kind="stable")
        self._by_place = places if (places[1:] < places[:-1]).any() else None

    @property
    def num_samples(self) -> int:
        """Count the images."""
        return len(self.images)

    def check_unchanged(self) -> None:
        """Look whether all files are still what they were.

        Raises:
            BetonError: One is not.
        """
        for beton in self._betons:
            beton.check_unchanged()

    def check_labels(self, num_classes: int) -> None:
        """Check that a model with `num_classes` outputs can be trained or measured on this.

        Raises:
            BetonError: A label is not below `num_classes`; names the first such sample.
        """
        outside = np.flatnonzero(self.labels >= num_classes)
        if len(outside):
            raise BetonError(
                f"{self.describe(outside[0])} has the label {self.labels[outside[0]]}, expected 0 "
                f"to {num_classes - 1} ({len(outside)} of {self.num_samples} samples are outside); "
                "set model.num_classes or use another beton."
            )

    def describe(self, sample: int) -> str:
        """Name a sample by its file and its index there."""
        index = self._beton_of(sample)
        return f"{self._betons[index].info.path}: sample {sample - self._begins[index]}"

    def read(self, sample: int) -> bytes | npt.NDArray[np.uint8]:
        """Copy an image as it is stored: a JPEG file, or (height, width, 3) uint8 pixels."""
        image = self.images[sample]
        beton = self._betons[self._beton_of(sample)]
        data = beton.read(int(image["address"]), int(image["size"]))
        if image["mode"] == JPG:
            return data
        return np.frombuffer(data, dtype=np.uint8).reshape(image["height"], image["width"], 3)

    def _beton_of(self, sample: int) -> int:
        return int(np.searchsorted(self._begins, sample, side="right")) - 1

    def by_place(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Find the samples that are stored at these places, counted through all files.

        Writers with several processes store samples out of order.
        """
        return places if self._by_place is None else self._by_place[places].astype(np.int64)

    def read_ahead(self, begin: int, end: int) -> None:
        """Ask the system to read the samples at places `begin` to below `end`."""
        for index, beton in enumerate(self._betons):
            first = max(begin, int(self._begins[index]))
            last = min(end, int(self._begins[index + 1])) - 1
            if first <= last:
                images = self.images[self.by_place(np.array([first, last]))]
                start = int(images["address"][0])
                num_bytes = int(images["address"][1]) + int(images["size"][1]) - start
                beton.read_ahead(start, num_bytes)


def find_betons(paths: str, stage_dir: str = "") -> list[Path]:
    """Split a list of files, URLs and patterns, separated by commas; those of a pattern are sorted.

    What is at a URL is copied to `stage_dir` first, or to a folder in $TMPDIR if that is empty.

    Raises:
        BetonError: A pattern that fits no file or not all shards, a file that is named twice, none
            at all, or a URL that cannot be copied.
    """
    found: list[str] = []
    for part in filter(None, (part.strip() for part in paths.split(","))):
        if is_url(part):
            names = expand(part)
        elif glob.has_magic(part) and not Path(part).exists():
            names = sorted(glob.glob(part))  # noqa: PTH207 - of any folder
            if not names:
                raise BetonError(f"{part}: expected betons, but no file fits this pattern.")
        else:
            names = [part]
        if names != [part]:
            _check_shards(part, names)
        found += names
    twice = {name for name in found if found.count(name) > 1}
    if twice or not found:
        problem = f"names {min(twice)} twice" if twice else "names no file"
        raise BetonError(f"'{paths}': expected one or more betons, but it {problem}.")
    folder = Path(stage_dir) if stage_dir or not any(map(is_url, found)) else default_folder()
    return [stage(name, folder) if is_url(name) else Path(name) for name in found]


def _check_shards(pattern: str, names: Sequence[str]) -> None:
    """Check that a pattern finds all shards of a data set, as written by several processes."""
    shards: dict[tuple[str, int], list[int]] = {}
    for name in names:
        if match := SHARD_NAME.fullmatch(name):
            stem, index, count = match.groups()
            shards.setdefault((stem, int(count)), []).append(int(index))
    for (stem, count), indices in shards.items():
        missing = sorted(set(range(count)) - set(indices))
        if missing:
            raise BetonError(
                f"{pattern}: expected the {count} shards {stem}-*-of-{count:05}.beton, but "
                f"{len(missing)} are missing, such as number {missing[0]}; write them, or name "
                "files instead of a pattern."
            )
    stems = [stem for stem, _ in shards]
    twice = [stem for stem in stems if stems.count(stem) > 1]
    if twice:
        counts = " and ".join(str(count) for stem, count in shards if stem == twice[0])
        raise BetonError(
            f"{pattern}: finds {twice[0]} in {counts} shards, each with all images; add "
            f"-of-{max(c for s, c in shards if s == twice[0]):05} to the pattern, or remove one."
        )


def _joint_info(paths: str, infos: Sequence[BetonInfo]) -> BetonInfo:
    """Describe betons as one; check that they number the same classes."""
    if len(infos) == 1:
        return infos[0]
    named = [info for info in infos if info.label_names is not None]
    for info in named[1:]:
        check_same_classes(named[0], info)
    label_names = named[0].label_names if named else None
    num_classes = max(info.num_classes for info in infos)
    if label_names is not None and num_classes > len(label_names):
        largest = max(infos, key=lambda info: info.num_classes)
        raise BetonError(
            f"{largest.path}: expected labels of the {len(label_names)} classes of "
            f"{named[0].path}, got {num_classes - 1}; write both from one source."
        )
    return BetonInfo(
        path=Path(paths),
        num_samples=sum(info.num_samples for info in infos),
        num_classes=num_classes,
        label_names=label_names,
        max_height=max(info.max_height for info in infos),
        max_width=max(info.max_width for info in infos),
    )


def _check_sizes(path: Path, tables: Tables) -> None:
    largest = int(tables.sizes.max())
    if largest > np.iinfo(IMAGE_TYPE["size"]).max:
        raise BetonError(
            f"{path}: sample {int(tables.sizes.argmax())} has {largest} bytes, expected below "
            "4 GiB; write it again with a smaller --max_side."
        )
