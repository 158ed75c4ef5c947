"""ResNet-18 and -50 as ffcv-imagenet trains them: torchvision's, with blurred strides.

The blur is a binomial 3 x 3 filter over each channel, zero-padded, in front of every convolution
with a stride of 2 and at least 16 input channels: all but the first. Parameter names are
torchvision's, so its checkpoints load.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

MIN_BLURRED_CHANNELS = 16


class BlurConv2d(nn.Conv2d):
    """A convolution whose input is blurred first; takes over the parameters of the one it replaces.

    Source: Zhang, "Making convolutional networks shift-invariant again", arXiv:1904.11486; placed
        as in ffcv-imagenet.
    """

    blur: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            stride=conv.stride,  # type: ignore[arg-type]
            padding=conv.padding,  # type: ignore[arg-type]
            dilation=conv.dilation,  # type: ignore[arg-type]
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        taps = torch.tensor([0.25, 0.5, 0.25], device=conv.weight.device)
        blur = torch.outer(taps, taps).expand(conv.in_channels, 1, 3, 3).contiguous()
        self.register_buffer("blur", blur, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Blur and convolve (B, C, H, W)."""
        blurred = F.conv2d(images, self.blur, padding=1, groups=self.in_channels)
        return super().forward(blurred)


def blur_strided_convolutions(module: nn.Module) -> None:
    """Replace the strided convolutions below `module` by `BlurConv2d`, in place."""
    for name, child in module.named_children():
        if (
            isinstance(child, nn.Conv2d)
            and max(child.stride) > 1
            and child.in_channels >= MIN_BLURRED_CHANNELS
        ):
            setattr(module, name, BlurConv2d(child))
        else:
            blur_strided_convolutions(child)


default_cfgs = generate_default_cfgs(
    {
        name: {
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "first_conv": "conv1",
            "classifier": "fc",
        }
        for name in ("resnet18_blurpool", "resnet50_blurpool")
    }
)


def _create(
    name: str,
    pretrained: bool,
    block: type[BasicBlock | Bottleneck],
    layers: tuple[int, ...],
    options: dict[str, Any],
) -> ResNet:
    # timm would start each residual branch at zero; torchvision and the published results do not.
    model: ResNet = build_model_with_cfg(
        ResNet, name, pretrained, block=block, layers=layers, zero_init_last=False, **options
    )
    blur_strided_convolutions(model)
    # As the images come: else each convolution lays out its weights anew in every pass.
    return model.to(memory_format=torch.channels_last)


@register_model
def resnet18_blurpool(pretrained: bool = False, **options: Any) -> ResNet:
    """ResNet-18 with blurred strides: 11,689,512 parameters; no weights exist."""
    return _create("resnet18_blurpool", pretrained, BasicBlock, (2, 2, 2, 2), options)


@register_model
def resnet50_blurpool(pretrained: bool = False, **options: Any) -> ResNet:
    """ResNet-50 with blurred strides: 25,557,032 parameters; no weights exist."""
    return _create("resnet50_blurpool", pretrained, Bottleneck, (3, 4, 6, 3), options)
