"""The attention-only ablation. B = 2, N = 17, D = 39 (three heads of 13), K = 7."""

import pytest
import timm
import torch
from torch import Tensor

from ffvit.errors import ConfigError
from ffvit.models import AttentionOnlyViT

SMALL = {"image_size": 12, "patch_size": 3, "embed_dim": 39, "depth": 2, "num_classes": 7}


def plain_attention(sequence: Tensor, weights: dict[str, Tensor], num_heads: int) -> Tensor:
    qkv = sequence @ weights["qkv.weight"].mT + weights["qkv.bias"]
    query, key, value = qkv.chunk(3, dim=-1)
    width = sequence.shape[-1] // num_heads
    heads = []
    for head in range(num_heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].mT / width**0.5
        heads.append(scores.softmax(-1) @ value[..., part])
    return torch.cat(heads, dim=-1) @ weights["proj.weight"].mT + weights["proj.bias"]


def part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{prefix}."): value
        for name, value in weights.items()
        if name.startswith(f"{prefix}.")
    }


def layer_norm(values: Tensor, weights: dict[str, Tensor]) -> Tensor:
    centred = values - values.mean(-1, keepdim=True)
    normalised = centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    return normalised * weights["weight"] + weights["bias"]


def test_parameters_count_as_the_paper_says() -> None:
    with torch.device("meta"):
        model = timm.create_model("ff_tiny_attention_only_patch16_224")
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_039_360
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)


def test_equals_a_plain_definition() -> None:
    torch.manual_seed(0)
    model = AttentionOnlyViT(**SMALL).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    weights = model.state_dict()

    patches = torch.nn.functional.conv2d(
        images, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=3
    )
    patches = (patches + weights["pos_encoding.pos_embed"]).flatten(2).mT
    first = weights["cls_token"] + weights["pos_encoding.cls_pos_embed"]
    tokens = torch.cat([first.expand(2, 1, 39), patches], dim=1)
    for index in range(2):
        block = part(weights, f"blocks.{index}")
        tokens = tokens + plain_attention(
            layer_norm(tokens, part(block, "norm1")), part(block, "token_attention"), 3
        )
        channels = layer_norm(tokens.mT, part(block, "norm2"))
        tokens = tokens + plain_attention(channels, part(block, "channel_attention"), 1).mT
    expected = layer_norm(tokens, part(weights, "norm"))[:, 0]
    expected = expected @ weights["head.weight"].mT + weights["head.bias"]
    torch.testing.assert_close(model(images), expected, rtol=1e-12, atol=1e-12)


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(1)
    model = AttentionOnlyViT(**SMALL, drop_rate=0.1, drop_path_rate=0.1)
    model(torch.randn(5, 3, 12, 12)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_it_is_tied_to_its_number_of_tokens() -> None:
    with pytest.raises(ValueError, match="expected images of 12 pixels, got 15"):
        AttentionOnlyViT(**SMALL)(torch.randn(2, 3, 15, 15))


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="embed_dim=40 is not a multiple of 3, the number of"):
        AttentionOnlyViT(**{**SMALL, "embed_dim": 40})
