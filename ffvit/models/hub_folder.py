"""A model as a folder of the Hugging Face hub, in timm's layout: config.json, model.safetensors.

timm loads it: from the hub, from a folder (`local-dir:`), or the weights alone by
`checkpoint_path=`. Written here and read here; a file of somebody else is checked in every value.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch

from ffvit.errors import CheckpointError, ConfigError, first_line
from ffvit.models import MODEL_ERRORS, MODEL_OPTIONS
from ffvit.models.saved import EvalProtocol, SavedModel

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
# Of Pillow, and of the kernel.
INTERPOLATIONS, FILTERS = ("bicubic", "bilinear"), ("area", "bicubic")

_MODEL_ARGS = {*MODEL_OPTIONS, "img_size", "dynamic_img_size"} - {"drop_rate", "drop_path_rate"}
# No model has more of anything; a file may claim it.
_LARGEST = 65_536
_MAX_DEPTH = 1_024
_MAX_CONFIG_BYTES = 64 << 20


def write_hub_folder(model: SavedModel, folder: Path) -> list[tuple[str, str]]:
    """Write weights and config into an existing folder.

    Returns:
        Name of each file, and what it holds.
    """
    tensors = {key: tensor.contiguous() for key, tensor in model.network.state_dict().items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS_NAME, {"format": "pt"})
    text = json.dumps(timm_config(model), indent=2)
    (folder / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")
    return [
        (WEIGHTS_NAME, "weights"),
        (CONFIG_NAME, "timm's config: architecture, image preparation, label names"),
    ]


def timm_config(model: SavedModel) -> dict[str, Any]:
    """Describe a model in the keys that `timm.create_model` reads from a hub's `config.json`.

    `ffvit` holds what timm has no word for: how betons are read when the model is evaluated.
    """
    protocol = model.protocol
    own: Any = model.network.pretrained_cfg
    return {
        "architecture": model.name,
        "num_classes": model.num_classes,
        "num_features": model.network.num_features,
        **({"label_names": list(model.label_names)} if model.label_names else {}),
        "model_args": dict(model.options),
        "pretrained_cfg": {
            "tag": "",
            "custom_load": False,  # a plain state dict
            "input_size": [3, protocol.resolution, protocol.resolution],
            "fixed_input_size": False,
            "crop_pct": protocol.ratio,
            "crop_mode": "center",
            "interpolation": protocol.interpolation,
            "mean": list(protocol.mean),
            "std": list(protocol.std),
            "num_classes": model.num_classes,
            "pool_size": None,
            "first_conv": own["first_conv"],
            "classifier": own["classifier"],
        },
        "ffvit": {"filter": protocol.filter, "flip_average": protocol.flip_average},
    }


def read_hub_folder(folder: Path) -> SavedModel:
    """Load a folder that `write_hub_folder` wrote.

    Raises:
        CheckpointError: A file is missing or damaged, or says what no export would say.
    """
    path, weights_path = folder / CONFIG_NAME, folder / WEIGHTS_NAME
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG_BYTES)  # a longer one is cut, and no JSON
        config = _parse(json.loads(content))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot read it ({error.strerror}).") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: expected a model's config as `python -m ffvit export` writes it, got another "
            f"file ({first_line(error)}); export the run again."
        ) from None
    try:
        network = _load_weights(config, weights_path)
    except (OSError, safetensors.SafetensorError, ConfigError, *MODEL_ERRORS) as error:
        raise CheckpointError(
            f"{weights_path}: expected the weights of the model in {CONFIG_NAME}, but they cannot "
            f"be loaded ({first_line(error)}); export the run again."
        ) from None
    return SavedModel(
        network.eval(),
        config.name,
        config.options,
        config.num_classes,
        f"{folder.resolve().name}, exported",
        config.protocol,
        config.label_names,
    )


@dataclasses.dataclass(frozen=True)
class _Config:
    """What a config.json says, checked."""

    name: str
    num_classes: int
    options: dict[str, Any]
    protocol: EvalProtocol
    label_names: tuple[str, ...] | None


def _load_weights(config: _Config, path: Path) -> torch.nn.Module:
    """Build the model and fill it, after its tensors were found to be those in the file."""
    # Without memory first: a config may claim any size.
    with torch.device("meta"):
        expected = timm.create_model(
            config.name, num_classes=config.num_classes, **config.options
        ).state_dict()
    with safetensors.safe_open(path, "pt") as opened:
        shapes = {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
    if shapes != {key: tuple(value.shape) for key, value in expected.items()}:
        raise ValueError(f"its tensors are not those of {config.name}")
    network: torch.nn.Module = timm.create_model(
        config.name, num_classes=config.num_classes, **config.options
    )
    network.load_state_dict(safetensors.torch.load_file(path))
    return network


def _parse(record: Mapping[str, Any]) -> _Config:
    """Take what is needed from a config.json; refuse what no export would hold."""
    name, num_classes = record["architecture"], record["num_classes"]
    options, transform = dict(record.get("model_args", {})), record["pretrained_cfg"]
    if not isinstance(name, str) or not name.isidentifier() or not timm.is_model(name):
        raise ValueError(f"timm knows no architecture {name!r:.60}")
    if unknown := sorted(options.keys() - _MODEL_ARGS):
        raise ValueError(f"a model option {unknown[0]!r:.60} that no export has")
    sizes = [num_classes, transform["input_size"][-1]]
    sizes += [value for value in options.values() if type(value) not in (bool, str)]
    if any(type(size) is not int or not 0 < size <= _LARGEST for size in sizes):
        raise ValueError(f"a size that is not a whole number up to {_LARGEST}")
    if type(depth := options.get("depth", 1)) is not int or depth > _MAX_DEPTH:
        raise ValueError(f"more than {_MAX_DEPTH} blocks")
    names = record.get("label_names")
    if names is not None and len(names) != num_classes:
        raise ValueError(f"{len(names)} label names for {num_classes} classes")
    return _Config(
        name,
        num_classes,
        options,
        _parse_protocol(transform, record.get("ffvit", {})),
        None if names is None else tuple(map(str, names)),
    )


def _parse_protocol(transform: Mapping[str, Any], own: Mapping[str, Any]) -> EvalProtocol:
    protocol = EvalProtocol(
        transform["input_size"][-1],
        float(transform["crop_pct"]),
        str(own.get("filter", "bicubic")),
        str(transform["interpolation"]),
        tuple(map(float, transform["mean"])),
        tuple(map(float, transform["std"])),
        own.get("flip_average", False) is True,
    )
    if len(protocol.mean) != 3 or len(protocol.std) != 3 or not all(protocol.std):
        raise ValueError("mean and std that are not three numbers each")
    if not 0 < protocol.ratio <= 1:
        raise ValueError(f"a crop of {protocol.ratio}")
    if protocol.interpolation not in INTERPOLATIONS or protocol.filter not in FILTERS:
        raise ValueError(
            f"filter or interpolation {protocol.filter:.60}, {protocol.interpolation:.60}"
        )
    return protocol
