"""Parquet files as Hugging Face writes them: columns `image` of {bytes, path}, and `label`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ffvit.data.sources.base import Indices, Source
from ffvit.data.sources.shards import splits_of_files
from ffvit.data.tables import MAX_CLASSES
from ffvit.errors import SourceError


class ParquetStore:
    """Rows of Parquet files. A read decodes a whole row group, so the last one is kept."""

    def __init__(self, files: list[Path], row_groups: list[tuple[int, int, int]]) -> None:
        """`row_groups`: file number, row group in it, and its first row's number in this store."""
        self._files = files
        self._row_groups = row_groups
        self._first_rows = np.array([first for _, _, first in row_groups], dtype=np.int64)
        self._kept: tuple[int, Any] = (-1, None)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": (-1, None)}

    def blocks(self, keys: Indices) -> Indices:
        """Tell each row's row group."""
        return np.searchsorted(self._first_rows, keys, side="right") - 1

    def name(self, key: int) -> str:
        """Return the file's path, the row group and the row in it."""
        group = int(np.searchsorted(self._first_rows, key, side="right")) - 1
        file, row_group, first = self._row_groups[group]
        return f"{self._files[file]}:row group {row_group}:row {key - first}"

    def read(self, key: int) -> bytes:
        """Read the image's bytes."""
        group = int(np.searchsorted(self._first_rows, key, side="right")) - 1
        file, row_group, first = self._row_groups[group]
        if self._kept[0] != group:
            try:
                with pq.ParquetFile(self._files[file]) as parquet:
                    table = parquet.read_row_group(
                        row_group, columns=["image.bytes"], use_threads=False
                    )
            except (OSError, pa.ArrowException) as error:
                raise SourceError(f"{self.name(key)}: cannot read it ({error}).") from None
            self._kept = (group, table.column("image").combine_chunks().field("bytes"))
        data = self._kept[1][key - first].as_py()
        if not isinstance(data, bytes):
            raise SourceError(f"{self.name(key)}: expected the image's bytes, got {data!r}.")
        return data


def find_parquet(path: Path) -> list[Path]:
    """List the Parquet files of a folder or of its folder `data`; or the one that is given."""
    if path.is_file():
        return [path]
    return sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))


def open_parquet(path: Path) -> dict[str, Source]:
    """Open Parquet files; train-*.parquet, validation-*.parquet and so on tell the split.

    Raises:
        SourceError: None there, unreadable, without the two columns, or labels that do not fit.
    """
    files: dict[str, list[Path]] = {}
    for file, split in splits_of_files(find_parquet(path), path.parent if path.is_file() else path):
        files.setdefault(split or "train", []).append(file)
    if not files:
        raise SourceError(f"{path}: expected Parquet files, found none.")
    read = {split: _read_labels(files[split]) for split in sorted(files)}
    names = next((names for _, _, names in read.values() if names), None)
    top = max(int(labels.max()) for labels, _, _ in read.values())
    if top >= MAX_CLASSES:
        raise SourceError(f"{path}: label {top}, expected labels up to {MAX_CLASSES - 1}.")
    names = names or tuple(str(label) for label in range(top + 1))
    if top >= len(names):
        raise SourceError(f"{path}: label {top}, but only {len(names)} label names in the schema.")
    sources = {}
    for split, (labels, row_groups, _) in read.items():
        if labels.min() < 0:
            raise SourceError(
                f"{files[split][0]}: label {labels.min()}; this split's labels are withheld, use "
                "another."
            )
        store = ParquetStore(files[split], row_groups)
        keys = np.arange(len(labels), dtype=np.int64)
        description = f"{len(files[split])} Parquet files in {path}"
        sources[split] = Source(store, keys, labels, names, description, store.blocks(keys))
    return sources


def _read_labels(
    files: list[Path],
) -> tuple[Indices, list[tuple[int, int, int]], tuple[str, ...] | None]:
    """Read the label column, the row groups and the schema's label names."""
    labels, row_groups, num_rows = [], [], 0
    names = None
    for number, file in enumerate(files):
        try:
            with pq.ParquetFile(file) as parquet:
                schema = parquet.schema_arrow
                _check_schema(file, schema)
                names = names or _label_names(schema)
                column = parquet.read(columns=["label"], use_threads=False).column("label")
                for group in range(parquet.num_row_groups):
                    row_groups.append((number, group, num_rows))
                    num_rows += parquet.metadata.row_group(group).num_rows
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{file}: expected a whole Parquet file, but {error}.") from None
        if column.null_count:
            raise SourceError(f"{file}: {column.null_count} rows have no label.")
        labels.append(column.to_numpy().astype(np.int64))
    if not num_rows:
        raise SourceError(f"{files[0]}: a Parquet file without rows.")
    return np.concatenate(labels), row_groups, names


def _check_schema(file: Path, schema: pa.Schema) -> None:
    """Expect `image: {bytes, ...}` and a whole-number `label`."""
    types = {name: schema.field(name).type for name in schema.names}
    image, label = types.get("image"), types.get("label")
    if not (
        image is not None
        and pa.types.is_struct(image)
        and image.get_field_index("bytes") >= 0
        and label is not None
        and pa.types.is_integer(label)
    ):
        columns = ", ".join(f"{name}: {kind}" for name, kind in types.items())
        raise SourceError(
            f"{file}: expected the columns image: {{bytes, path}} and label: int, got {columns}."
        )


def _label_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """Read the class names that Hugging Face keeps in the schema's metadata, where they are."""
    text = (schema.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(text)["info"]["features"]["label"]["names"] if text else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return tuple(str(name) for name in names) if names else None
