"""What a trained model sees in images: its five best classes and their probabilities.

Images are prepared as for the model's validation, with Pillow. Folders give a CSV, a line an image.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from ffvit.commands._model import add_model_arguments, load_model
from ffvit.errors import SourceError, UserError, printable

if TYPE_CHECKING:
    from ffvit.models.saved import SavedModel

BATCH_SIZE = 64
NUM_BEST = 5


class Prediction(NamedTuple):
    """The best classes of an image: (label, name, probability), best first."""

    path: str
    best: list[tuple[int, str, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_model_arguments(parser)
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="image file, or folder of images"
    )
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write CSV there; default for folders: printed"
    )


def run(options: argparse.Namespace) -> None:
    """Print or write the predictions.

    Raises:
        UserError: The model cannot be read, there are no images, or some cannot be read: the others
            are predicted first, and each that is left out is named.
    """
    paths = find_images(options.images)
    model = load_model(options)
    failures: list[str] = []
    predictions = predict(model, paths, failures)
    if options.csv is not None:
        try:
            with options.csv.open("w", newline="", encoding="utf-8") as file:
                _write_csv(predictions, file)
        except OSError as error:
            raise UserError(f"{options.csv}: cannot write it ({error.strerror}).") from None
    elif any(path.is_dir() for path in options.images):
        _write_csv(predictions, sys.stdout)
    else:
        for prediction in predictions:
            sys.stdout.write(_as_text(prediction) + "\n")
    if failures:
        raise SourceError(f"{len(failures)} of {len(paths)} images could not be read.")


def find_images(arguments: Sequence[Path]) -> list[str]:
    """List the files that were named, and the images in and below the folders.

    Raises:
        SourceError: One does not exist, or a folder holds no image.
    """
    from ffvit.data.sources.folders import list_images  # noqa: PLC0415

    paths = []
    for path in arguments:
        if path.is_dir():
            found = list_images(path)
            if not found.paths:
                raise SourceError(
                    f"{path}: expected images, found none among {found.num_ignored} files."
                )
            paths += [str(path / name) for name in found.paths]
        elif path.exists():
            paths.append(str(path))
        else:
            raise SourceError(f"{path}: expected an image or a folder, found nothing.")
    return paths


def predict(model: "SavedModel", paths: Sequence[str], failures: list[str]) -> Iterator[Prediction]:
    """Predict images, in their order.

    Args:
        model: On the CPU; used on a GPU if there is one.
        paths: Of image files.
        failures: Gets the path of each image that cannot be read; why is printed on stderr.
    """
    import torch  # noqa: PLC0415
    from tqdm import tqdm  # noqa: PLC0415

    from ffvit.cpus import available_cpus  # noqa: PLC0415
    from ffvit.data.image_files import prepared_batches  # noqa: PLC0415
    from ffvit.data.sources.base import FileStore  # noqa: PLC0415

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.network.to(device)
    batches = prepared_batches(
        FileStore(Path(), paths),
        range(len(paths)),
        model.protocol.transform(),
        BATCH_SIZE,
        available_cpus(),
    )
    is_shown = sys.stderr.isatty() and len(paths) > BATCH_SIZE and not sys.stdout.isatty()
    with tqdm(total=len(paths), unit=" images", disable=not is_shown) as bar:
        for keys, pixels, failed in batches:
            for key, message in failed:
                failures.append(paths[key])
                bar.write(printable(f"left out: {message}"), file=sys.stderr)
            if keys:
                shares = model.logits(pixels.to(device)).softmax(1)
                best = shares.topk(min(NUM_BEST, model.num_classes))
                rows = zip(keys, best.indices.tolist(), best.values.tolist(), strict=True)
                for key, labels, values in rows:
                    pairs = zip(labels, values, strict=True)
                    yield Prediction(paths[key], [(k, _name(model, k), p) for k, p in pairs])
            bar.update(len(keys) + len(failed))


def _name(model: "SavedModel", label: int) -> str:
    return str(label) if model.label_names is None else model.label_names[label]


def _as_text(prediction: Prediction) -> str:
    lines = [printable(prediction.path)]
    lines += [f"  {share:7.2%}  {printable(name)}" for _, name, share in prediction.best]
    return "\n".join(lines)


def _write_csv(predictions: Iterator[Prediction], file: TextIO) -> None:
    """Write a line for each image; labels are numbers, names those of the classes."""
    writer = None
    for path, best in predictions:
        if writer is None:
            writer = csv.writer(file, lineterminator="\n")
            ranks = range(1, len(best) + 1)
            columns = ("label", "name", "probability")
            writer.writerow(
                ["image", *(f"{column}_{rank}" for rank in ranks for column in columns)]
            )
        row = [[label, name, f"{share:.6f}"] for label, name, share in best]
        writer.writerow([path, *(cell for cells in row for cell in cells)])
