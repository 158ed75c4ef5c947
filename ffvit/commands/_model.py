"""What the commands that take a trained model have in common: how it is named, and its classes."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ffvit.models.saved import SavedModel


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which model, and which of its weights."""
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="run folder (its best epoch), one of its checkpoints (.pt), a folder that `export` "
        "wrote, or one of the author's files (.pth)",
    )
    parser.add_argument(
        "--weights",
        default="raw",
        metavar="raw|averaged",
        help="of a run or of the author's file [raw]",
    )
    parser.add_argument(
        "--name",
        default="",
        help="of the model in a .pth file; default: the FF model that its tensors fit",
    )


def load_model(options: argparse.Namespace) -> "SavedModel":
    """Load the model; a run's label names are those of its training beton, if that is still there.

    Raises:
        UserError: No model there, a damaged one, or one whose beton has other classes.
    """
    import dataclasses  # noqa: PLC0415

    from ffvit.models.loading import load_saved_model, with_words  # noqa: PLC0415

    model = load_saved_model(options.model, options.weights, options.name)
    if model.label_names is not None or model.run is None:
        return model
    names = _names_of_training_beton(model)
    return dataclasses.replace(model, label_names=names and with_words(names))


def _names_of_training_beton(model: "SavedModel") -> tuple[str, ...] | None:
    """Read the manifest of the first beton that a run was trained on; None: there is none."""
    from ffvit.data.manifest import load_manifest  # noqa: PLC0415
    from ffvit.data.storage import find_betons  # noqa: PLC0415
    from ffvit.errors import BetonError  # noqa: PLC0415

    assert model.run is not None
    try:
        beton = find_betons(model.run.config["data"]["train_path"])[0]
    except BetonError:  # none fits the pattern any more
        return None
    manifest = load_manifest(beton) if beton.is_file() else None
    if manifest is None:
        return None
    if len(manifest.label_names) != model.num_classes:
        raise BetonError(
            f"{beton}: expected the {model.num_classes} classes of {model.origin}, got "
            f"{len(manifest.label_names)}; put there what it was trained on, or nothing."
        )
    return manifest.label_names
