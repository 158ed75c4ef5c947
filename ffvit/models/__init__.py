"""Models by name: ours, then any of timm's. Nothing else of the package imports timm's models.

Importing this registers ours with timm, so `timm.create_model("ff_tiny_patch16_224")` works too.
"""

import copy
import difflib
import re
from collections.abc import Iterable
from typing import Any

import timm
import torch
from torch import nn

from ffvit.errors import ConfigError, first_line
from ffvit.models.attention_only import AttentionOnlyViT
from ffvit.models.author_checkpoints import load_author_checkpoint
from ffvit.models.feedforward import FeedForwardViT
from ffvit.models.resnet import BlurConv2d
from ffvit.options import ModelSection

__all__ = [
    "OUR_MODELS",
    "AttentionOnlyViT",
    "BlurConv2d",
    "FeedForwardViT",
    "check_resolutions",
    "create_model",
    "create_with_options",
    "load_author_checkpoint",
    "logits_of",
    "resolution_multiple",
    "set_resolution",
]

OUR_MODELS = (
    "ff_pico",
    "ff_tiny_patch16_224",
    "ff_base_patch16_224",
    "ff_large_patch32_224",
    "ff_tiny_attention_only_patch16_224",
    "resnet18_blurpool",
    "resnet50_blurpool",
)

USUAL_STRIDE = 32
MODEL_OPTIONS = (
    "image_size",
    "patch_size",
    "embed_dim",
    "depth",
    "drop_rate",
    "drop_path_rate",
    "resampler",
)
# What a network raises for an image or an option that does not suit it.
MODEL_ERRORS = (RuntimeError, ValueError, TypeError, AssertionError, LookupError, ArithmeticError)


def create_model(section: ModelSection, num_classes: int) -> nn.Module:
    """Create a model with fresh weights.

    Args:
        section: The options; 0 keeps the model's own image size, patch size, width and depth.
        num_classes: Classes of the head; `section.num_classes` is not read.

    Raises:
        ConfigError: As `create_with_options`.
    """
    return create_with_options(section, num_classes)[0]


def create_with_options(
    section: ModelSection, num_classes: int
) -> tuple[nn.Module, dict[str, Any]]:
    """Create a model with fresh weights, and say how timm would create it, too.

    Args:
        section: As for `create_model`.
        num_classes: Classes of the head.

    Returns:
        The model, and the keyword arguments that `timm.create_model` got besides `num_classes`.

    Raises:
        ConfigError: No such model; an option that this model does not have; a value that it cannot
            take.
    """
    name = section.name
    if "." in name or not timm.is_model(name):  # a dot would name weights
        raise ConfigError(f"model.name={name} is neither ours nor timm's; {_names_near(name)}")
    keyword = {"image_size": "image_size" if name in OUR_MODELS else "img_size"}
    default = ModelSection()
    requested = {
        option: getattr(section, option)
        for option in MODEL_OPTIONS
        if getattr(section, option) != getattr(default, option)
    }
    # Rates of 0 are stated too, since some of timm's models default to more. timm's vision
    # transformers take images of any size if told so, which changes nothing at their own size.
    optional: dict[str, Any] = {
        "drop_rate": 0.0,
        "drop_path_rate": 0.0,
        "dynamic_img_size": True,
    }
    while True:
        options = {keyword.get(key, key): value for key, value in (optional | requested).items()}
        try:
            return timm.create_model(name, num_classes=num_classes, **options), options
        except MODEL_ERRORS as error:
            unknown = _unknown_keywords(error)
            for key, value in requested.items():
                if keyword.get(key, key) in unknown:
                    raise ConfigError(
                        f"model.{key}={value}: {name} has no such option; leave it out."
                    ) from None
            left = {key: value for key, value in optional.items() if key not in unknown}
            if left == optional:
                if not requested:
                    raise
                given = ", ".join(f"model.{key}={value}" for key, value in requested.items())
                raise ConfigError(
                    f"{given}: {name} cannot be built so ({first_line(error)}); leave out one."
                ) from None
            optional = left


def resolution_multiple(model: nn.Module) -> int:
    """Return what resolutions should be multiples of: the patch size or the total stride."""
    if isinstance(model, (FeedForwardViT, AttentionOnlyViT)):
        return model.patch_size
    stages = getattr(model, "feature_info", None)
    if isinstance(stages, list) and stages:
        return int(stages[-1]["reduction"])
    return USUAL_STRIDE


def check_resolutions(model_name: str, model: nn.Module, resolutions: Iterable[int]) -> None:
    """Make sure that the model runs at every resolution, before any time is spent on training.

    A feed-forward model runs at any multiple of its patch size; any other is tried at each, without
    computing.

    Args:
        model_name: For the message.
        model: As `create_model` returns it, not wrapped.
        resolutions: Sides of square images, pixels.

    Raises:
        ConfigError: Names the first resolution that does not run, and the nearest ones that do.
    """
    for resolution in resolutions:
        reason = _refusal(model, resolution)
        if reason:
            multiple = resolution_multiple(model)
            lower = resolution // multiple * multiple
            near = [size for size in (lower, lower + multiple) if not _refusal(model, size)]
            advice = " or ".join(str(size) for size in near or [_own_size(model)])
            raise ConfigError(
                f"resolution {resolution} does not suit {model_name}: {reason}; use {advice}."
            )


def set_resolution(model: nn.Module, resolution: int) -> None:
    """Prepare a model for images of this side, pixels.

    Call it on every rank, outside of compiled code, before the first batch of another size in
    training or validation. It looks through wrappers (DDP, torch.compile), and does nothing for
    networks that need no preparation.
    """
    for module in model.modules():
        if isinstance(module, FeedForwardViT):
            module.set_resolution(resolution)


def logits_of(network: nn.Module, inputs: torch.Tensor, flip_average: bool) -> torch.Tensor:
    """Classify images as a validation does.

    Args:
        network: In evaluation mode.
        inputs: (B, 3, H, W), normalised.
        flip_average: Average the logits of each image and its mirror image.

    Returns:
        (B, K) float32.
    """
    logits: torch.Tensor = network(inputs).float()
    if flip_average:
        logits = (logits + network(inputs.flip(-1)).float()) / 2
    return logits


def _refusal(model: nn.Module, resolution: int) -> str:
    """Say why a model does not run at a resolution; empty if it does."""
    if isinstance(model, FeedForwardViT):
        divisible = resolution > 0 and resolution % model.patch_size == 0
        return "" if divisible else f"it is not a multiple of the patch size {model.patch_size}"
    if resolution < 1:
        return "it is not a size"
    trial = copy.deepcopy(model).to("meta").eval()
    try:
        with torch.no_grad():
            trial(torch.empty(2, 3, resolution, resolution, device="meta"))
    except MODEL_ERRORS as error:
        return first_line(error).rstrip(".")
    return ""


def _own_size(model: nn.Module) -> int:
    """Return the image side that a model was built for, pixels."""
    if isinstance(model, AttentionOnlyViT):
        return model.image_size
    for module in model.modules():  # a patch embedding of timm's
        if image_size := getattr(module, "img_size", None):
            return int(image_size[-1])
    config: Any = model.default_cfg
    return int(config["input_size"][-1])


def _names_near(name: str) -> str:
    """List the names that a wrong one may have meant; ours also go by their first part."""
    known = {full: full for full in (*timm.list_models(), *OUR_MODELS)}
    known |= {full.partition("_patch")[0]: full for full in OUR_MODELS}
    matches = difflib.get_close_matches(name.partition(".")[0], known, cutoff=0.7)
    near = dict.fromkeys(known[match] for match in matches)
    return f"did you mean {' or '.join(near)}?" if near else f"ours are {', '.join(OUR_MODELS)}."


def _unknown_keywords(error: Exception) -> list[str]:
    """Return the keyword arguments that a constructor's TypeError complains about."""
    _, complaint, names = str(error).partition("unexpected keyword argument")
    return re.findall(r"'(\w+)'", names) if complaint and isinstance(error, TypeError) else []
