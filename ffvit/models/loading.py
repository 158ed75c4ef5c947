"""Load a trained model from wherever it lies: a run, an exported folder, or the author's file.

Nothing in a file is executed, and no size that a file states is believed before it is checked.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor

from ffvit.checkpoint import BEST, load_checkpoint
from ffvit.errors import CheckpointError, ConfigError, first_line
from ffvit.models import MODEL_ERRORS, OUR_MODELS, create_with_options
from ffvit.models.author_checkpoints import check_fit, read_author_checkpoint
from ffvit.models.hub_folder import CONFIG_NAME, read_hub_folder
from ffvit.models.saved import EvalProtocol, RunState, SavedModel
from ffvit.options import ModelSection, ValidationSection

WEIGHTS = ("raw", "averaged")
IMAGENET_CLASSES = 1_000
# A ResNet's tensors do not tell whether it blurs.
_TOLD_BY_TENSORS = tuple(name for name in OUR_MODELS if name.startswith("ff_"))
# They matter to training only.
_RATES = ("drop_rate", "drop_path_rate")


def load_saved_model(source: Path, weights: str = "raw", name: str = "") -> SavedModel:
    """Load a model onto the CPU.

    Args:
        source: A run folder (its best checkpoint), one of its checkpoints (.pt), a folder that
            `export` wrote, or another file of weights, such as the author's (.pth).
        weights: Of a run or of the author's file: raw or averaged.
        name: Of the model in such a file; empty: the FF model that its tensors fit.

    Raises:
        CheckpointError: Nothing there, or nothing that can be read as one of these.
        ConfigError: An option out of its range, or one that this source has no use for.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"--weights={weights}: expected {' or '.join(WEIGHTS)}.")
    is_checkpoint = source.suffix == ".pt" and source.is_file()
    is_foreign = source.is_file() and not is_checkpoint
    if name and source.exists() and not is_foreign:
        raise ConfigError(f"--name={name}: {source} says itself which model it is; leave it out.")
    if (source / "checkpoints").is_dir():
        return _from_checkpoint(_best_checkpoint(source), weights)
    if is_checkpoint:
        return _from_checkpoint(source, weights)
    if (source / CONFIG_NAME).is_file():
        if weights != "raw":
            raise ConfigError(f"--weights={weights}: {source} holds one set only; leave it out.")
        return read_hub_folder(source)
    if is_foreign:
        return _from_author(source, weights, name)
    raise CheckpointError(
        f"{source}: expected a run folder, a folder that `python -m ffvit export` wrote, or a file "
        f"of weights, found {'none of these' if source.exists() else 'nothing'}; check the path."
    )


def _best_checkpoint(run_folder: Path) -> Path:
    """Return a run's `best.pt`."""
    path = run_folder / "checkpoints" / BEST
    if not path.is_file():
        raise CheckpointError(
            f"{path}: expected the best epoch's checkpoint, found none; wait for the run's first "
            "epoch, or name one of its checkpoints."
        )
    return path


def _from_checkpoint(path: Path, weights: str) -> SavedModel:
    """Load one of our checkpoints, which holds the run's options."""
    state = load_checkpoint(path)
    tensors = state["model"] if weights == "raw" else state["ema"]
    if tensors is None:
        raise CheckpointError(
            f"{path}: expected averaged weights, but the run kept none (training.ema_decay=0); "
            "take --weights=raw."
        )
    config = state["config"]
    try:
        section = ModelSection(**config["model"])
        validation = ValidationSection(**config["validation"])
        num_classes = config["data set"]["num_classes"]
        network, options = create_with_options(section, num_classes)
        network.load_state_dict(tensors)
    except MODEL_ERRORS as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint of this version, but its options or tensors are of "
            f"another ({first_line(error)}); use the version that wrote it."
        ) from None
    return SavedModel(
        network.eval(),
        section.name,
        {key: value for key, value in options.items() if key not in _RATES},
        num_classes,
        f"{path}, {weights} weights after update {state['step']:,}",
        EvalProtocol(
            validation.resolution,
            validation.ratio,
            validation.filter,
            flip_average=validation.flip_average,
        ),
        run=RunState(path.absolute().parents[1], state["step"], weights, config),
    )


def _from_author(path: Path, weights: str, name: str) -> SavedModel:
    """Load a state dict in one of the author's forms; DeiT's protocol and ImageNet are assumed."""
    state = read_author_checkpoint(path, ema=weights == "averaged")
    name = name or _fitting_name(path, state)
    if "." in name or not timm.is_model(name):
        raise ConfigError(f"--name={name} is neither ours nor timm's; see docs/models.md.")
    num_classes = _num_classes(name, state)
    network = timm.create_model(name, num_classes=num_classes)
    check_fit(network, state, path)
    network.load_state_dict(state)
    return SavedModel(
        network.eval(),
        name,
        {},
        num_classes,
        f"{path.name}, {weights} weights",
        EvalProtocol(),
        imagenet_names() if num_classes == IMAGENET_CLASSES else None,
    )


def _fitting_name(path: Path, state: Mapping[str, Tensor]) -> str:
    """Find the model of ours that has exactly these tensors; nothing is computed."""
    shapes = {key: value.shape for key, value in state.items()}
    for name in _TOLD_BY_TENSORS:
        with torch.device("meta"):
            expected = timm.create_model(name, num_classes=_num_classes(name, state)).state_dict()
        if shapes == {key: value.shape for key, value in expected.items()}:
            return name
    raise CheckpointError(
        f"{path}: expected the weights of {', '.join(_TOLD_BY_TENSORS)}, but its {len(state)} "
        "tensors fit none of them; give --name=NAME if it is another of ours or timm's."
    )


def _num_classes(name: str, state: Mapping[str, Tensor]) -> int:
    """Count the rows of the head, under the name that it has in a model."""
    head: Any = timm.models.get_pretrained_cfg_value(name, "classifier")
    weight = state.get(f"{head}.weight")
    return IMAGENET_CLASSES if weight is None or weight.ndim == 0 else len(weight)


def imagenet_names() -> tuple[str, ...]:
    """Return WordNet ids followed by their words, as `write_imagenet.py` names the classes."""
    return with_words(ImageNetInfo().label_names())  # type: ignore[no-untyped-call]


def with_words(names: Sequence[str]) -> tuple[str, ...]:
    """Put ImageNet's words behind ids that stand alone, as class folders are named after them."""
    info: Any = ImageNetInfo()
    known = set(info.label_names())
    return tuple(
        f"{name} {info.label_name_to_description(name)}" if name in known else name
        for name in names
    )
