"""CIFAR-10 and CIFAR-100 in their python version, unpickled without executing anything."""

import io
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ffvit.data.sources.base import MemoryStore, Source
from ffvit.errors import SourceError

_SIDE_PX = 32
_ROW_BYTES = 3 * _SIDE_PX * _SIDE_PX
# Files of each split, the file with the names, and the keys of labels and names.
_KINDS: dict[str, tuple[list[str], list[str], str, str, str]] = {
    "CIFAR-10": (
        [f"data_batch_{number}" for number in range(1, 6)],
        ["test_batch"],
        "batches.meta",
        "labels",
        "label_names",
    ),
    "CIFAR-100": (["train"], ["test"], "meta", "fine_labels", "fine_label_names"),
}
_FOLDERS = ("", "cifar-10-batches-py", "cifar-100-python")


class _ByteArray:
    """Stands for a numpy array while it is read: numpy's own __setstate__ believes what it gets."""

    def __init__(self, *_: Any) -> None:
        self.values: np.ndarray[Any, np.dtype[np.uint8]] = np.empty(0, dtype=np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, _, is_fortran, data = state
        if is_fortran or not isinstance(data, bytes):
            raise pickle.UnpicklingError("it holds an array in an unusual form")
        self.values = np.frombuffer(data, dtype=np.uint8).reshape(shape)


class _ByteType:
    """Stands for numpy.dtype, for the one type these files hold."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"it holds an array of type {code!r}")

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and the like


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, texts, plain containers and byte arrays; every other name is refused."""

    # What numpy 1, numpy 2 and Python 2 call the same three things.
    ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        return _ByteType if name == "dtype" else _ByteArray


def find_cifar(root: Path) -> tuple[Path, str] | None:
    """Find the folder of CIFAR files and which of the two it is."""
    for folder in _FOLDERS:
        for kind, (train, test, meta, _, _) in _KINDS.items():
            if all((root / folder / name).is_file() for name in (train[0], test[0], meta)):
                return root / folder, kind
    return None


def open_cifar(root: Path) -> dict[str, Source]:
    """Open CIFAR-10 or CIFAR-100; the test split is val.

    The pixels are handed on as PPM files, an encoding that loses nothing and costs a header.

    Raises:
        SourceError: Not there, damaged, or a pickle that holds more than arrays.
    """
    found = find_cifar(root)
    if found is None:
        raise SourceError(f"{root}: expected the python version of CIFAR-10 or CIFAR-100.")
    folder, kind = found
    train, test, meta, label_key, names_key = _KINDS[kind]
    names = _read(folder / meta, names_key, list)
    sources = {}
    for split, files in (("train", train), ("val", test)):
        image_names, images, labels = [], [], []
        for name in files:
            pixels = _read(folder / name, "data", np.ndarray)
            found_labels = _read(folder / name, label_key, list)
            if not all(type(label) is int for label in found_labels):
                raise SourceError(f"{folder / name}: expected whole numbers as labels.")
            if pixels.shape != (len(found_labels), _ROW_BYTES):
                raise SourceError(
                    f"{folder / name}: expected ({len(found_labels)}, {_ROW_BYTES}) bytes, "
                    f"got {pixels.shape}; fetch it again."
                )
            images += [_as_ppm(row) for row in pixels]
            image_names += [f"{folder / name}:{row}" for row in range(len(pixels))]
            labels += found_labels
        label_array = np.array(labels, dtype=np.int64)
        if label_array.min() < 0 or label_array.max() >= len(names):
            raise SourceError(f"{folder}: a label outside the {len(names)} classes of {meta}.")
        sources[split] = Source(
            store=MemoryStore(image_names, images),
            keys=np.arange(len(images), dtype=np.int64),
            labels=label_array,
            label_names=tuple(_text(name) for name in names),
            description=f"{kind} in {folder}",
        )
    return sources


def _read(path: Path, key: str, kind: type) -> Any:
    """Read one entry of a pickled dictionary."""
    try:
        record = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        value = record[key.encode()] if key.encode() in record else record[key]
        if isinstance(value, _ByteArray):
            value = value.values
    except OSError as error:
        raise SourceError(f"{path}: cannot read it ({error.strerror}).") from None
    # Unpickling a damaged file raises nearly anything; pickle's documentation promises no less.
    except Exception as error:  # noqa: BLE001
        raise SourceError(f"{path}: expected a CIFAR file with {key!r}, but {error!r}.") from None
    if not isinstance(value, kind):
        raise SourceError(f"{path}: expected {key!r} to be a {kind.__name__}, got {value!r:.40}.")
    return value


def _as_ppm(row: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """Turn (3072,) uint8, three planes, into a binary PPM file."""
    pixels = row.reshape(3, _SIDE_PX, _SIDE_PX).transpose(1, 2, 0)
    return b"P6 %d %d 255\n" % (_SIDE_PX, _SIDE_PX) + pixels.tobytes()


def _text(name: str | bytes) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
