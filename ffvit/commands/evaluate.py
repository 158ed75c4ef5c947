"""How often a trained model is right: top-1 and top-5 on betons and on class folders.

Betons are read by the kernel, as in training. Folders (or archives) of images are read through
Pillow, as the paper did: resized bicubically, then cut.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ffvit.commands._model import add_model_arguments, load_model
from ffvit.errors import CheckpointError, ConfigError, SourceError, check_option, printable
from ffvit.label_names import match_classes

if TYPE_CHECKING:
    import torch

    from ffvit.models.saved import SavedModel

BATCH_SIZE = 64


class Row(NamedTuple):
    """What was measured on one data set."""

    data: str
    num_images: int
    top_1: float
    top_5: float
    protocol: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_model_arguments(parser)
    parser.add_argument(
        "data",
        nargs="*",
        metavar="DATA",
        help="beton, class folders or archive (its val split, if it has one); default: the "
        "validation beton of the model's run",
    )
    parser.add_argument(
        "--resolution", type=int, metavar="PX", help="side of the images; default: the model's own"
    )
    parser.add_argument(
        "--ratio",
        type=float,
        help="side of the centre crop over the image's shorter side; default: the model's own",
    )


def run(options: argparse.Namespace) -> None:
    """Measure on each data set, and print a table.

    Raises:
        UserError: Model or data cannot be read, or their classes differ.
    """
    import torch  # noqa: PLC0415

    from ffvit.models import check_resolutions  # noqa: PLC0415

    model = load_model(options)
    changes = {
        name: getattr(options, name)
        for name in ("resolution", "ratio")
        if getattr(options, name) is not None
    }
    model = dataclasses.replace(model, protocol=dataclasses.replace(model.protocol, **changes))
    ratio = model.protocol.ratio
    check_option("--ratio", ratio, "a share above 0 and at most 1", 0 < ratio <= 1)
    check_resolutions(model.name, model.network, [model.protocol.resolution])
    data = options.data or ([model.run.config["data"]["val_path"]] if model.run else [])
    if not data:
        raise ConfigError(f"{options.model}: no data given; name a beton or class folders.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.network.to(device)
    rows = [measure(model, name, device) for name in data]
    sys.stdout.write(f"{model.name}, {model.origin}; float32 on {device.type}\n\n{table(rows)}\n")


def measure(model: "SavedModel", data: str, device: "torch.device") -> Row:
    """Measure a model on every image of one data set.

    Args:
        model: Its network lies on `device`.
        data: Path of a beton, or of something that `write_imagenet.py` could make one of.
        device: Where to compute.

    Raises:
        CheckpointError: The logits are not finite.
        UserError: The data cannot be read, down to the last image, or have other classes.
    """
    from ffvit.metrics import Evaluation  # noqa: PLC0415

    is_beton = data.endswith(".beton")
    batches = _beton_batches if is_beton else _image_batches
    evaluation = Evaluation(model.num_classes, device)
    for pixels, labels in batches(model, data, device):
        evaluation.update(model.logits(pixels), labels)
    result = evaluation.compute()
    if not math.isfinite(result["loss"]):
        raise CheckpointError(
            f"{model.origin}: expected finite logits, got a loss of {result['loss']} on {data}; "
            "these weights are of no use."
        )
    return Row(
        data,
        int(result["num_samples"]),
        result["top_1"],
        result["top_5"],
        describe_protocol(model, is_beton),
    )


def _beton_batches(
    model: "SavedModel", data: str, device: "torch.device"
) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
    """Give pixels (B, 3, S, S) uint8 and the model's labels (B,) of each image of a beton."""
    import torch  # noqa: PLC0415

    from ffvit.cpus import available_cpus  # noqa: PLC0415
    from ffvit.data.loader import create_val_loader  # noqa: PLC0415
    from ffvit.options import DataSection, ValidationSection  # noqa: PLC0415

    protocol = model.protocol
    loader = create_val_loader(
        DataSection(val_path=data),
        ValidationSection(BATCH_SIZE, protocol.resolution, protocol.ratio, protocol.filter),
        rank=0,
        world_size=1,
        num_threads=available_cpus(),
        device=device,
    )
    if loader.info.label_names is None:
        loader.check_labels(model.num_classes)
        labels = list(range(loader.info.num_classes))
    else:
        labels = _labels_in_model(model, loader.info.label_names, data)
    label_of = torch.tensor(labels, device=device)
    for batch in _shown(loader, data):
        yield batch.images.permute(0, 3, 1, 2), label_of[batch.labels]
    loader.close()


def _image_batches(
    model: "SavedModel", data: str, device: "torch.device"
) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
    """Give the same of images that Pillow reads."""
    import torch  # noqa: PLC0415

    from ffvit.cpus import available_cpus  # noqa: PLC0415
    from ffvit.data.image_files import prepared_batches  # noqa: PLC0415
    from ffvit.data.sources import open_sources  # noqa: PLC0415
    from ffvit.options import WriteSection  # noqa: PLC0415

    sources = open_sources(WriteSection(data_dir=data, val_fraction=0.0))
    source = sources.get("val") or sources["train"]
    label_of = np.array(_labels_in_model(model, source.label_names, data))
    labels = label_of[source.labels]
    batches = prepared_batches(
        source.store, source.keys, model.protocol.transform(), BATCH_SIZE, available_cpus()
    )
    num_done = 0
    for keys, pixels, failures in _shown(batches, data, math.ceil(len(source) / BATCH_SIZE)):
        if failures:
            # A figure for fewer images would not be one of this data set.
            raise SourceError(failures[0][1])
        num_before, num_done = num_done, num_done + len(keys)
        yield pixels.to(device), torch.from_numpy(labels[num_before:num_done]).to(device)


def _labels_in_model(model: "SavedModel", names: Sequence[str], origin: str) -> list[int]:
    """Return the model's label of each class of the data: by name, or by number without names."""
    if model.label_names is not None:
        return match_classes(names, model.label_names, origin)
    if len(names) != model.num_classes:
        raise ConfigError(
            f"{origin}: expected the {model.num_classes} classes of the model, whose names are not "
            f"known, got {len(names)}; evaluate on data with the same classes."
        )
    return list(range(len(names)))


def _shown(batches: Iterable[Any], title: str, total: int | None = None) -> Iterator[Any]:
    """Show the progress on a terminal."""
    from tqdm import tqdm  # noqa: PLC0415

    yield from tqdm(batches, title, total, leave=False, disable=not sys.stderr.isatty())


def describe_protocol(model: "SavedModel", is_beton: bool) -> str:
    """Say how images are prepared; figures of different protocols do not compare."""
    protocol = model.protocol
    size = f"{protocol.resolution} px"
    flip = ", flip average" if protocol.flip_average else ""
    if is_beton:
        return f"beton: centre {protocol.ratio:g} to {size}, {protocol.filter}{flip}"
    side, how = protocol.resize_side, protocol.interpolation
    return f"Pillow: shorter side to {side}, {how}, centre {size}{flip}"


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out in columns."""
    lines = [["data", "images", "top-1", "top-5", "protocol"]]
    for row in rows:
        shares = [
            f"{share:.2%} ({round(share * row.num_images):,})" for share in (row.top_1, row.top_5)
        ]
        lines.append([printable(row.data), f"{row.num_images:,}", *shares, row.protocol])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [
                f"{line[0]:<{widths[0]}}",
                *(f"{cell:>{width}}" for cell, width in zip(line[1:4], widths[1:4], strict=True)),
                line[4],
            ]
        )
        for line in lines
    )
