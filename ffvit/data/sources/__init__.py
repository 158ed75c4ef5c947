"""Where images come from: finds out how they are laid out and opens each split.

Nothing is extracted or copied: archives are read in place, by byte range.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ffvit.data.manifest import CONTROL_CHARACTERS
from ffvit.data.sources.base import Indices, Source, Store, shown
from ffvit.data.sources.cifar import find_cifar, open_cifar
from ffvit.data.sources.folders import open_folders
from ffvit.data.sources.imagenet import (
    TRAIN_ARCHIVE,
    VAL_ARCHIVE,
    kaggle_root,
    open_imagenet,
    open_kaggle,
)
from ffvit.data.sources.parquet import find_parquet, open_parquet
from ffvit.data.sources.shards import find_shards, open_shards
from ffvit.errors import ConfigError, SourceError
from ffvit.options import WriteSection

__all__ = ["LAYOUTS", "Indices", "Source", "Store", "detect_layout", "hold_out", "open_sources"]

LAYOUTS = {
    "folders": "class folders, below train/ and val/ or alone",
    "imagenet": f"the official {TRAIN_ARCHIVE}, {VAL_ARCHIVE} and devkit",
    "kaggle": "Kaggle's ILSVRC/Data/CLS-LOC",
    "shards": "tar archives: WebDataset or packed class folders",
    "parquet": "Parquet with image: {bytes, path} and label",
    "cifar": "the python version of CIFAR-10 or CIFAR-100",
}
SPLITS = ("all", "train", "val")


def open_sources(section: WriteSection) -> dict[str, Source]:
    """Open the splits that are to be written.

    A source without a val split has a part of its train split held out, the same for the same seed.

    Args:
        section: What to read: data_dir, source, split, val_labels, val_fraction and seed count
        here.

    Returns:
        "train" and "val", or the one that `section.split` names. A val_fraction of 0 leaves out the
        val split of a source that has none.

    Raises:
        ConfigError: An option with an impossible value.
        SourceError: Nothing there, an unknown or ambiguous layout, or images without labels.
    """
    _check_options(section)
    path = Path(section.data_dir)
    if not path.exists():
        raise SourceError(
            f"{path}: expected a folder or archive with images, found nothing{_nearest(path)}"
        )
    try:
        sources = _open(path, section)
    except OSError as error:
        raise SourceError(f"{error.filename or path}: cannot read it ({error.strerror}).") from None
    for source in sources.values():
        _check_names(path, source.label_names)
    if section.split == "all":
        return sources
    if section.split not in sources:
        raise SourceError(
            f"{path}: expected a {section.split} split, found {shown(sorted(sources))} only."
        )
    return {section.split: sources[section.split]}


def _open(path: Path, section: WriteSection) -> dict[str, Source]:
    """Open all splits; hold out a val split where there is none."""
    layout = detect_layout(path) if section.source == "auto" else section.source
    if section.val_labels and layout not in ("folders", "shards"):
        raise ConfigError(
            f"--val_labels={section.val_labels}: the layout {layout} has labels of its own; leave "
            "it out."
        )
    openers = {
        "folders": lambda: open_folders(path, section.val_labels),
        "imagenet": lambda: open_imagenet(path, section.split),
        "kaggle": lambda: open_kaggle(path),
        "shards": lambda: open_shards(path, section.val_labels),
        "parquet": lambda: open_parquet(path),
        "cifar": lambda: open_cifar(path),
    }
    sources = openers[layout]()
    if sources.keys() == {"train"} and section.val_fraction > 0 and layout != "imagenet":
        sources["train"], sources["val"] = hold_out(
            sources["train"], section.val_fraction, section.seed
        )
    return sources


def detect_layout(path: Path) -> str:
    """Tell how the images below a folder, or in one archive, are laid out.

    Returns:
        A key of `LAYOUTS`.

    Raises:
        SourceError: None of them fits, or several do.
    """
    if path.is_file():
        layout = {".tar": "shards", ".parquet": "parquet"}.get(path.suffix)
        if layout is None:
            raise SourceError(f"{path}: expected a folder, a .tar or a .parquet file; {_known()}")
        return layout
    official = [path / name for name in (TRAIN_ARCHIVE, VAL_ARCHIVE)]
    is_official = any(archive.is_file() for archive in official)
    is_kaggle = kaggle_root(path) is not None
    tests = {
        "imagenet": is_official,
        "kaggle": is_kaggle,
        "shards": bool({shard for shard, _ in find_shards(path)} - set(official)),
        "parquet": bool(find_parquet(path)),
        "cifar": find_cifar(path) is not None,
    }
    fitting = [layout for layout, fits in tests.items() if fits]
    if not fitting and any(entry.is_dir() for entry in path.iterdir()):
        return "folders"
    if len(fitting) == 1:
        return fitting[0]
    entries = sorted(entry.name for entry in path.iterdir())
    if fitting:
        raise SourceError(
            f"{path}: could be read as {' or as '.join(fitting)}; say which with --source."
        )
    found = shown(entries) if entries else "an empty folder"
    raise SourceError(f"{path}: expected images, found {found}; {_known()}")


def hold_out(source: Source, fraction: float, seed: int) -> tuple[Source, Source]:
    """Split a source in two: of each class, a share goes to val.

    A class of two images or more gives at least one and keeps at least one.

    Args:
        source: All images.
        fraction: Share of each class, between 0 and 1.
        seed: The same seed holds out the same images.

    Returns:
        The remaining source and the held-out one, both in the given order.

    Raises:
        SourceError: Nothing would be held out, as each class has a single image.
    """
    counts = np.bincount(source.labels, minlength=len(source.label_names))
    shares = np.clip(np.round(counts * fraction), 1, np.maximum(counts - 1, 0)).astype(np.int64)
    is_val = _rank_in_class(source.labels, seed) < shares[source.labels]
    if not is_val.any():
        raise SourceError(
            f"{source.description}: no val split there, and none can be held out of classes with a "
            "single image; write train only, with --val_fraction=0."
        )
    held_out = source.select(np.flatnonzero(is_val))
    return source.select(np.flatnonzero(~is_val)), held_out


def take_evenly(source: Source, num_samples: int, seed: int) -> Source:
    """Keep so many images, the classes in turn; all of them if there are not so many."""
    ranks = _rank_in_class(source.labels, seed)
    chosen = np.argsort(ranks, kind="stable")[:num_samples]
    return source.select(np.sort(chosen))


def _rank_in_class(labels: Indices, seed: int) -> Indices:
    """Give the images of each class the numbers 0, 1, ... in random order."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    ranks = np.empty(len(labels), dtype=np.int64)
    ranks[by_class] = np.arange(len(labels)) - starts
    return ranks


def _check_names(path: Path, label_names: Sequence[str]) -> None:
    """Refuse class names that no manifest may hold, before anything is written."""
    name = next((name for name in label_names if CONTROL_CHARACTERS.search(name)), None)
    if name is not None:
        raise SourceError(
            f"{path}: expected class names of printable text, got {name!r}; rename the class."
        )


def _check_options(section: WriteSection) -> None:
    if not section.data_dir:
        raise ConfigError(
            "no source images given; use --data_dir=FOLDER or set IMAGENET_DIR, see --help."
        )
    if section.source != "auto" and section.source not in LAYOUTS:
        raise ConfigError(
            f"--source={section.source}: expected auto, {', '.join(LAYOUTS)}; check the spelling."
        )
    if section.split not in SPLITS:
        raise ConfigError(f"--split={section.split}: expected {', '.join(SPLITS)}.")
    if not 0 <= section.val_fraction < 1:
        raise ConfigError(f"--val_fraction={section.val_fraction}: expected 0 up to below 1.")


def _nearest(path: Path) -> str:
    """Name the entry that a misspelt path may have meant."""
    parent = path.parent
    entries = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    close = difflib.get_close_matches(path.name, entries, n=1)
    return f"; did you mean {parent / close[0]}?" if close else "; check the path."


def _known() -> str:
    return "known are " + "; ".join(f"{name}: {text}" for name, text in LAYOUTS.items()) + "."
