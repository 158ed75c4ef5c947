"""A trained model and what goes with it: how images are prepared, its classes, where it is from."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from timm.data.transforms_factory import create_transform
from torch import nn

from ffvit.models import logits_of

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class EvalProtocol:
    """How an image becomes what a model takes. The defaults are the paper's (DeiT's).

    Attributes:
        resolution: Side of the square, pixels.
        ratio: Side of the centre crop as a share of the image's shorter side.
        filter: Of the kernel, which reads betons: area or bicubic.
        interpolation: Of Pillow, which reads image files: bicubic or bilinear.
        mean: Of red, green and blue, in units of 0..1.
        std: Likewise.
        flip_average: Whether logits are averaged over the image and its mirror image.
    """

    resolution: int = 224
    ratio: float = 0.875
    filter: str = "bicubic"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    flip_average: bool = False

    @property
    def resize_side(self) -> int:
        """What Pillow resizes the shorter side to before the crop: 256 for 224 px of 0.875."""
        return math.floor(self.resolution / self.ratio)

    def transform(self) -> Callable[[Any], torch.Tensor]:
        """Return timm's evaluation transform: a PIL image -> (3, S, S) uint8, not normalised."""
        transform: Callable[[Any], torch.Tensor] = create_transform(
            (3, self.resolution, self.resolution),
            interpolation=self.interpolation,
            crop_pct=self.ratio,
            crop_mode="center",
            normalize=False,
        )
        return transform


@dataclasses.dataclass(frozen=True)
class RunState:
    """The point of a run that weights are from.

    Attributes:
        folder: Of the run.
        step: Updates done.
        weights: raw or averaged.
        config: The run's options, as its checkpoint has them.
    """

    folder: Path
    step: int
    weights: str
    config: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A model with its weights.

    Attributes:
        network: In evaluation mode.
        name: Of its architecture, to timm.
        options: What `timm.create_model` needs besides `num_classes`.
        num_classes: K.
        origin: Where the weights come from, in words.
        protocol: How it is measured.
        label_names: One for each class, where they are known.
        run: None: it does not come from a run of ours.
    """

    network: nn.Module
    name: str
    options: Mapping[str, Any]
    num_classes: int
    origin: str
    protocol: EvalProtocol
    label_names: tuple[str, ...] | None = None
    run: RunState | None = None

    @torch.inference_mode()
    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixels (B, 3, S, S) uint8 RGB, on the network's device, to logits (B, K) float32."""
        mean, std = (
            255 * torch.tensor(values, device=pixels.device)[:, None, None]
            for values in (self.protocol.mean, self.protocol.std)
        )
        images = (pixels.float() - mean) / std
        return logits_of(self.network, images, self.protocol.flip_average)
