"""BlurPool ResNets against torchvision's, with the blur written out as sums of shifted pixels."""

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from ffvit.models import BlurConv2d

BLURRED = {
    "resnet18": [f"layer{n}.0.{conv}" for n in (2, 3, 4) for conv in ("conv1", "downsample.0")],
    "resnet50": [f"layer{n}.0.{conv}" for n in (2, 3, 4) for conv in ("conv2", "downsample.0")],
}
PARAMETERS = {"resnet18": 11_689_512, "resnet50": 25_557_032}


def blur(images: Tensor) -> Tensor:
    """Weigh 3 x 3 pixels by 1 2 1 / 2 4 2 / 1 2 1, over 16; zeros lie outside."""
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    taps = (1, 2, 1)
    return sum(
        taps[i] * taps[j] / 16 * padded[..., i : i + height, j : j + width]
        for i in range(3)
        for j in range(3)
    )


def same_weights(name: str) -> tuple[nn.Module, nn.Module]:
    """Our model and torchvision's with equal weights, in evaluation mode, float64."""
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)().double().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    ours = timm.create_model(f"{name}_blurpool").double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("name", BLURRED)
def test_every_strided_convolution_but_the_first_is_blurred(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(f"{name}_blurpool")
    assert sorted(n for n, m in model.named_modules() if isinstance(m, BlurConv2d)) == sorted(
        BLURRED[name]
    )


@pytest.mark.parametrize("name", BLURRED)
def test_logits_are_torchvisions_with_blurred_inputs(name: str) -> None:
    ours, theirs = same_weights(name)
    for layer in BLURRED[name]:
        theirs.get_submodule(layer).register_forward_pre_hook(lambda _, args: blur(args[0]))
    images = torch.randn(2, 3, 71, 71, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-10, atol=1e-10)


def test_without_the_blur_logits_are_torchvisions() -> None:
    ours, theirs = same_weights("resnet18")
    for module in ours.modules():
        if isinstance(module, BlurConv2d):
            module.blur.zero_()[:, :, 1, 1] = 1
    images = torch.randn(2, 3, 71, 71, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", BLURRED)
def test_names_and_counts_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        ours = timm.create_model(f"{name}_blurpool")
        theirs = getattr(torchvision.models, name)()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert sum(parameter.numel() for parameter in ours.parameters()) == PARAMETERS[name]


def test_residual_branches_do_not_start_at_zero_as_timms_do() -> None:
    def smallest_scale(model: nn.Module) -> float:
        norms = [m.weight.min() for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        return min(norms).item()

    assert smallest_scale(timm.create_model("resnet18_blurpool")) == 1
    assert smallest_scale(timm.create_model("resnet18")) == 0


def test_convolutions_are_initialised_as_torchvisions() -> None:
    torch.manual_seed(1)
    model = timm.create_model("resnet18_blurpool")
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


def test_blur_keeps_constants_inside_and_removes_the_checkerboard() -> None:
    conv = nn.Conv2d(17, 17, 1, stride=2, bias=False)
    nn.init.dirac_(conv.weight)
    blurred = BlurConv2d(conv)
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    constant = torch.ones(2, 17, 9, 9)
    checkerboard = ((-1.0) ** (rows + columns)).expand(2, 17, 9, 9)
    torch.testing.assert_close(blurred(constant)[..., 1:-1, 1:-1], torch.ones(2, 17, 3, 3))
    torch.testing.assert_close(blurred(checkerboard)[..., 1:-1, 1:-1], torch.zeros(2, 17, 3, 3))


def test_blur_takes_over_the_convolutions_own_parameters() -> None:
    conv = nn.Conv2d(17, 19, 3, stride=2, padding=1, dilation=1)
    blurred = BlurConv2d(conv)
    assert blurred.weight is conv.weight
    assert blurred.bias is conv.bias
    assert list(blurred.state_dict()) == ["weight", "bias"]


def test_weights_are_laid_out_as_the_images_are() -> None:
    model = timm.create_model("resnet18_blurpool", num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)
