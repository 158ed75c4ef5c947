"""The FF models against a plain definition of the paper's network, written here from its text.

B = 2, N = 17, D = 11, K = 7 if nothing else is said: different primes, so a swapped axis fails.
"""

import math

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ffvit.errors import ConfigError
from ffvit.models import FeedForwardViT
from ffvit.models.feedforward import DropPath

SMALL = {"image_size": 12, "patch_size": 3, "embed_dim": 11, "depth": 3, "num_classes": 7}
PAPER = {
    "ff_tiny_patch16_224": (192, 12, 197, 16, 7_676_332),
    "ff_base_patch16_224": (768, 12, 197, 16, 61_943_020),
    "ff_large_patch32_224": (1024, 24, 50, 32, 206_363_576),
}


def layer_norm(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = values - values.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias


def mlp(values: Tensor, weights: dict[str, Tensor], prefix: str) -> Tensor:
    hidden = values @ weights[f"{prefix}.fc1.weight"].mT + weights[f"{prefix}.fc1.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return hidden @ weights[f"{prefix}.fc2.weight"].mT + weights[f"{prefix}.fc2.bias"]


def plain_logits(weights: dict[str, Tensor], images: Tensor, patch_size: int, depth: int) -> Tensor:
    """The paper's network, batch-first.

    Linear patches, class token, positions; in each block a feed-forward layer over the channels and
    one over the tokens, pre-norm and residual; the class token is classified.
    """
    batch, channels, side, _ = images.shape
    grid = side // patch_size
    cells = images.reshape(batch, channels, grid, patch_size, grid, patch_size)
    pixels = cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, grid * grid, -1)
    patches = pixels @ weights["patch_embed.proj.weight"].flatten(1).mT
    patches = patches + weights["patch_embed.proj.bias"]
    patches = patches + weights["pos_encoding.pos_embed"].flatten(2).mT
    first = weights["cls_token"] + weights["pos_encoding.cls_pos_embed"]
    tokens = torch.cat([first.expand(batch, -1, -1), patches], dim=1)
    for index in range(depth):
        block = {
            key.removeprefix(f"blocks.{index}."): value
            for key, value in weights.items()
            if key.startswith(f"blocks.{index}.")
        }
        tokens = tokens + mlp(
            layer_norm(tokens, block["norm1.weight"], block["norm1.bias"]), block, "mlp1"
        )
        fields = layer_norm(tokens.mT, block["norm2.weight"], block["norm2.bias"])
        tokens = tokens + mlp(fields, block, "mlp2").mT
    first = layer_norm(tokens, weights["norm.weight"], weights["norm.bias"])[:, 0]
    return first @ weights["head.weight"].mT + weights["head.bias"]


def scatter_parameters(model: nn.Module) -> None:
    """Leave the initial values: zero biases and unit norms would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))


def assert_equals_the_plain_definition(model: FeedForwardViT, images: Tensor) -> None:
    depth = len(model.blocks)
    weights = {k: v.detach().clone().requires_grad_() for k, v in model.state_dict().items()}
    expected = plain_logits(weights, images, model.patch_size, depth)
    actual = model(images)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)

    direction = torch.randn_like(expected)
    expected.backward(direction)
    actual.backward(direction)
    # The final norm removes a constant over the channels: this gradient is zero, both are noise.
    zero = f"blocks.{depth - 1}.mlp2.fc2.bias"
    for name, parameter in model.named_parameters():
        gradient = weights[name].grad
        scale = 1.0 if name == zero else gradient.abs().max().item()
        error = (parameter.grad - gradient).abs().max().item()
        assert error <= 1e-12 * scale, f"{name}: {error} of {scale}"
    assert weights[zero].grad.abs().max() < 1e-12


def test_small_model_equals_the_plain_definition_with_all_gradients() -> None:
    torch.manual_seed(0)
    model = FeedForwardViT(**SMALL).double()
    scatter_parameters(model)
    assert_equals_the_plain_definition(model, torch.randn(2, 3, 12, 12, dtype=torch.float64))


def test_tiny_equals_the_plain_definition_with_all_gradients() -> None:
    torch.manual_seed(1)
    model = timm.create_model("ff_tiny_patch16_224").double()
    scatter_parameters(model)
    assert_equals_the_plain_definition(model, torch.randn(2, 3, 224, 224, dtype=torch.float64))


def test_token_mlp_dim_replaces_the_authors_four_times_the_tokens() -> None:
    torch.manual_seed(2)
    model = FeedForwardViT(**SMALL, token_mlp_dim=19).double()
    assert model.blocks[0].mlp2.fc1.weight.shape == (19, 17)
    assert_equals_the_plain_definition(model, torch.randn(2, 3, 12, 12, dtype=torch.float64))


@pytest.mark.parametrize("name", PAPER)
def test_parameters_have_the_authors_names_shapes_order_and_count(name: str) -> None:
    width, depth, tokens, patch, count = PAPER[name]
    expected: list[tuple[str, tuple[int, ...]]] = [
        ("cls_token", (1, 1, width)),
        ("patch_embed.proj.weight", (width, 3, patch, patch)),
        ("patch_embed.proj.bias", (width,)),
        ("pos_encoding.pos_embed", (1, width, 14, 14)),
        ("pos_encoding.cls_pos_embed", (1, 1, width)),
    ]
    for index in range(depth):
        for stage, size in (("1", width), ("2", tokens)):
            expected += [
                (f"blocks.{index}.mlp{stage}.fc1.weight", (4 * size, size)),
                (f"blocks.{index}.mlp{stage}.fc1.bias", (4 * size,)),
                (f"blocks.{index}.mlp{stage}.fc2.weight", (size, 4 * size)),
                (f"blocks.{index}.mlp{stage}.fc2.bias", (size,)),
                (f"blocks.{index}.norm{stage}.weight", (size,)),
                (f"blocks.{index}.norm{stage}.bias", (size,)),
            ]
    expected += [("norm.weight", (width,)), ("norm.bias", (width,))]
    expected += [("head.weight", (1000, width)), ("head.bias", (1000,))]

    with torch.device("meta"):
        model = timm.create_model(name)
    state = model.state_dict()
    assert [(key, tuple(value.shape)) for key, value in state.items()] == expected
    assert len(state) == 12 * depth + 9
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_ff_pico_fits_small_images_and_takes_its_shape_as_arguments() -> None:
    with torch.device("meta"):
        default = timm.create_model("ff_pico")
        other = timm.create_model(
            "ff_pico", image_size=60, patch_size=6, embed_dim=29, depth=2, num_classes=5
        )
    assert sum(parameter.numel() for parameter in default.parameters()) == 839_172
    assert other.pos_encoding.pos_embed.shape == (1, 29, 10, 10)
    assert other.blocks[1].mlp2.fc1.weight.shape == (256, 101)
    assert other(torch.empty(3, 3, 42, 42, device="meta")).shape == (3, 5)


def test_initialisation_is_the_authors() -> None:
    torch.manual_seed(3)
    model = timm.create_model("ff_pico", depth=1)
    drawn = [model.cls_token, model.pos_encoding.pos_embed, model.pos_encoding.cls_pos_embed]
    drawn += [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    for parameter in drawn:
        sampling_error = 4 * 0.02 / math.sqrt(2 * parameter.numel())
        assert abs(parameter.std().item() - 0.02) < sampling_error
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.LayerNorm)):
            assert not module.bias.any()
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all()
    # PyTorch's default for convolutions: uniform up to 1 / sqrt(fan in), bias included.
    bound = 1 / math.sqrt(3 * 8 * 8)
    for parameter in model.patch_embed.proj.parameters():
        assert 0.9 * bound < parameter.abs().max() <= bound


def test_stored_positions_of_another_grid_are_shrunk_by_the_authors_bilinear_rule() -> None:
    torch.manual_seed(4)
    model = FeedForwardViT(**SMALL, pos_grid_size=8).double()
    stored = model.pos_encoding.pos_embed[0]
    # From 8 to 4 cells, half-pixel bilinear interpolation is the mean of 2 x 2.
    halved = (
        stored[:, ::2, ::2] + stored[:, 1::2, ::2] + stored[:, ::2, 1::2] + stored[:, 1::2, 1::2]
    ) / 4
    expected = torch.cat([model.pos_encoding.cls_pos_embed[0], halved.flatten(1).mT])
    torch.testing.assert_close(model.pos_encoding(4)[:, 0], expected, rtol=1e-12, atol=1e-15)


def test_positions_at_another_grid_pass_through_the_canonical_one_first() -> None:
    torch.manual_seed(5)
    model = FeedForwardViT(**SMALL, pos_grid_size=8).double()
    resampling = model.token_grid.resampling(6, model.cls_token)
    expected = resampling.from_canonical @ model.pos_encoding(4)[:, 0]
    torch.testing.assert_close(model.pos_encoding(4, resampling)[:, 0], expected)


def test_dropout_acts_in_five_places_on_what_the_author_drops() -> None:
    model = FeedForwardViT(**SMALL, drop_rate=0.3)
    seen: list[tuple[int, ...]] = []
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            assert module.p == 0.3
            module.register_forward_hook(lambda _, args, __: seen.append(tuple(args[0].shape)))
    model(torch.randn(2, 3, 12, 12))
    # The token MLP's hidden width, 68, is padded to a multiple of 8.
    block = [(17, 2, 44), (17, 2, 11), (72, 22), (17, 2, 11)]
    last = [(17, 2, 44), (17, 2, 11), (72, 22), (1, 2, 11)]
    assert seen == [(17, 2, 11), *block, *block, *last]


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(6)
    branch = torch.rand(5, 4000, 3) + 1
    dropped = DropPath(0.25).train()(branch)
    factors = dropped / branch
    torch.testing.assert_close(factors, factors[:1, :, :1].expand_as(factors))
    kept = factors[0, :, 0] > 0
    torch.testing.assert_close(factors[0, kept, 0], torch.full((int(kept.sum()),), 4 / 3))
    assert abs(kept.float().mean().item() - 0.75) < 0.03
    assert torch.equal(DropPath(0.25).eval()(branch), branch)


def test_drop_path_grows_linearly_over_the_blocks() -> None:
    model = FeedForwardViT(**SMALL, drop_path_rate=0.3)
    assert [block.drop_path.drop_rate for block in model.blocks] == pytest.approx([0, 0.15, 0.3])


def test_evaluation_is_deterministic_in_spite_of_dropout() -> None:
    model = FeedForwardViT(**SMALL, drop_rate=0.5, drop_path_rate=0.5)
    images = torch.randn(2, 3, 9, 9)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("side", [12, 6, 18])
def test_every_parameter_gets_a_gradient(side: int) -> None:
    """But for the last token layer: unread rows, and a bias that the final norm removes."""
    torch.manual_seed(7)
    model = FeedForwardViT(**SMALL).double()
    scatter_parameters(model)
    model(torch.randn(2, 3, side, side, dtype=torch.float64)).square().sum().backward()
    last = model.blocks[-1].mlp2.fc2
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if parameter is not last.bias:
            assert parameter.grad.abs().max() > 1e-9, name
    assert not last.weight.grad[1:].any()
    assert not last.bias.grad[1:].any()


@pytest.mark.parametrize(
    ("name", "published"),
    [("ff_tiny_patch16_224", 1.4416e9), ("ff_base_patch16_224", 14.1324e9)],
)
def test_cost_is_the_papers_but_for_rows_that_nothing_reads_and_padding(
    name: str, published: float
) -> None:
    width, depth = PAPER[name][:2]
    unread = 196 * 788 * width
    padding = width * (depth * (792 * 200 - 788 * 197) + (depth - 1) * 197 * 4 + 4)
    assert padding < 0.01 * published
    expected = published - unread + padding
    assert image_flops(name, 224) / 2 == pytest.approx(expected, rel=1e-4)


def test_cost_is_proportional_to_the_tokens() -> None:
    cost = {grid: image_flops("ff_tiny_patch16_224", 16 * grid) for grid in (6, 14, 24)}
    for grid in (14, 24):
        # Padding to multiples of 8 weighs a little more where there are few.
        assert cost[grid] / cost[6] == pytest.approx((1 + grid**2) / (1 + 6**2), rel=0.04)


def image_flops(name: str, side: int) -> int:
    """FLOPs of one more image in the batch; what does not depend on the batch cancels."""
    with torch.device("meta"):
        model = timm.create_model(name)
    model.set_resolution(side)
    counts = []
    for batch in (1, 2):
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(batch, 3, side, side, device="meta"))
        counts.append(counter.get_total_flops())
    return counts[1] - counts[0]


def test_head_can_be_replaced_and_left_out() -> None:
    model = FeedForwardViT(**SMALL)
    images = torch.randn(2, 3, 12, 12)
    model.reset_classifier(5)
    assert model(images).shape == (2, 5)
    assert model.get_classifier() is model.head
    model.reset_classifier(0)
    assert torch.equal(model(images), model.forward_features(images))


def test_weight_decay_exemptions_name_parameters_that_exist() -> None:
    model = FeedForwardViT(**SMALL)
    assert model.no_weight_decay() < dict(model.named_parameters()).keys()


def test_autocast_to_bf16_stays_finite_and_close_and_keeps_a_float32_stream() -> None:
    torch.manual_seed(8)
    model = timm.create_model("ff_pico", depth=2, num_classes=7)
    streams: list[torch.dtype] = []
    model.blocks[1].register_forward_hook(lambda _, __, out: streams.append(out.dtype))
    for side in (112, 64):
        images = torch.randn(2, 3, side, side)
        precise = model(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(images)
            rough.float().square().sum().backward()
        assert (rough - precise).norm() < 0.05 * precise.norm()
    assert set(streams) == {torch.float32}
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_model_cast_to_bf16_runs_at_every_grid() -> None:
    model = FeedForwardViT(**SMALL).bfloat16()
    for side in (12, 9, 15):
        logits = model(torch.randn(2, 3, side, side, dtype=torch.bfloat16))
        assert logits.dtype == torch.bfloat16
        assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 100, "patch_size": 16}, r"image_size=100 is not a multiple of .*=16"),
        ({"image_size": 8, "patch_size": 16}, r"image_size=8 is not a multiple of .*=16"),
        ({"resampler": "lanczos"}, r"resampler=lanczos is not known; use one of dct, area"),
        ({"depth": 0}, r"depth=0 is out of range"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate=1.0 is out of range"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FeedForwardViT(**{**SMALL, **options})


@pytest.mark.parametrize("size", [(12, 15), (13, 13), (2, 2)])
def test_images_that_do_not_fit_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected squares whose side is a multiple of 3"):
        FeedForwardViT(**SMALL)(torch.randn(2, 3, *size))
