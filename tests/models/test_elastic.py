"""Resampling of token weights: algebra of the operators, and functions they must carry over.

The canonical grid is 6 x 6 (N = 37) or 14 x 14 (N = 197) with B * D = 11 fields.
"""

import copy

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor, nn

from ffvit.models import FeedForwardViT, set_resolution
from ffvit.models.elastic import (
    RESAMPLERS,
    TokenGrid,
    axis_matrix,
    create_resampling,
    prepare_token_mlp,
    standardize_tokens,
)
from ffvit.models.feedforward import TokenMixing

SMALL = {"image_size": 18, "patch_size": 3, "embed_dim": 11, "depth": 2, "num_classes": 7}
CANONICAL = 14


def band_limited_fields(grid: int, num_fields: int, generator: torch.Generator) -> Tensor:
    """Random sums of the cosines k < 5, sampled at the cell centres, behind a class token."""
    position = (torch.arange(grid, dtype=torch.float64) + 0.5) / grid
    cosines = torch.cos(torch.pi * torch.arange(5, dtype=torch.float64)[:, None] * position)
    amplitudes = torch.randn(num_fields, 5, 5, dtype=torch.float64, generator=generator)
    fields = torch.einsum("fkl,ky,lx->yxf", amplitudes, cosines, cosines).flatten(0, 1)
    first = torch.randn(1, num_fields, dtype=torch.float64, generator=generator)
    return torch.cat([first, fields])


def random_token_mixing(grid: int, hidden: int) -> tuple[TokenMixing, nn.LayerNorm]:
    num_tokens = 1 + grid**2
    mixing = TokenMixing(num_tokens, hidden, drop_rate=0.0).double()
    norm = nn.LayerNorm(num_tokens, eps=1e-6).double()
    with torch.no_grad():
        for parameter in (*mixing.parameters(), *norm.parameters()):
            parameter.copy_(torch.randn_like(parameter) / num_tokens**0.5)
    return mixing, norm


@pytest.mark.parametrize("resampler", RESAMPLERS)
@pytest.mark.parametrize("grid", [1, 2, 5, 7, 11])
def test_rows_sum_to_one_and_the_class_token_stays_alone(resampler: str, grid: int) -> None:
    resampling = create_resampling(grid, 6, resampler)
    assert resampling.to_canonical.shape == (37, 1 + grid**2)
    assert resampling.from_canonical.shape == (1 + grid**2, 37)
    for matrix in resampling[:2]:
        assert matrix.dtype == torch.float64
        assert (matrix.sum(1) - 1).abs().max() < 1e-12
        assert matrix[0, 0] == 1
        assert not matrix[0, 1:].any()
        assert not matrix[1:, 0].any()


@pytest.mark.parametrize("grid", [8, 10, 12, 13, 16, 24])
def test_dct_keeps_inner_products_and_inverts(grid: int) -> None:
    up = axis_matrix(grid, CANONICAL, "dct")
    down = axis_matrix(CANONICAL, grid, "dct")
    torch.testing.assert_close(down, up.T * grid / CANONICAL, rtol=0, atol=1e-13)
    if grid <= CANONICAL:
        identity = torch.eye(grid, dtype=torch.float64)
        torch.testing.assert_close(up.T @ up, identity * CANONICAL / grid, rtol=0, atol=1e-13)
        torch.testing.assert_close(down @ up, identity, rtol=0, atol=1e-13)
    else:
        identity = torch.eye(CANONICAL, dtype=torch.float64)
        torch.testing.assert_close(up @ down, identity, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("source", "target"), [(14, 8), (8, 14), (14, 16)])
def test_dct_is_scipys_transform_cut_or_padded(source: int, target: int) -> None:
    field = np.random.default_rng(0).normal(size=source)
    spectrum = np.zeros(target)
    kept = min(source, target)
    spectrum[:kept] = scipy.fft.dct(field, norm="ortho")[:kept]
    expected = scipy.fft.idct(spectrum, norm="ortho") * np.sqrt(target / source)
    actual = axis_matrix(source, target, "dct").numpy() @ field
    np.testing.assert_allclose(actual, expected, atol=1e-13)


@pytest.mark.parametrize(
    ("resampler", "source", "target", "expected"),
    [
        ("area", 4, 2, [[1 / 2, 1 / 2, 0, 0], [0, 0, 1 / 2, 1 / 2]]),
        ("area", 3, 2, [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]),
        ("area", 2, 3, [[1, 0], [1 / 2, 1 / 2], [0, 1]]),
        ("nearest", 2, 4, [[1, 0], [1, 0], [0, 1], [0, 1]]),
        ("nearest", 3, 2, [[1, 0, 0], [0, 0, 1]]),
        ("bilinear", 2, 4, [[1, 0], [3 / 4, 1 / 4], [1 / 4, 3 / 4], [0, 1]]),
        ("bilinear", 4, 2, [[3 / 7, 3 / 7, 1 / 7, 0], [0, 1 / 7, 3 / 7, 3 / 7]]),
    ],
)
def test_axis_matrices_are_the_textbook_ones(
    resampler: str, source: int, target: int, expected: list[list[float]]
) -> None:
    actual = axis_matrix(source, target, resampler)
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_bicubic_reproduces_a_straight_line_away_from_the_border() -> None:
    line = (torch.arange(12, dtype=torch.float64) + 0.5) / 12
    resampled = axis_matrix(12, 18, "bicubic") @ line
    expected = (torch.arange(18, dtype=torch.float64) + 0.5) / 18
    torch.testing.assert_close(resampled[4:-4], expected[4:-4], rtol=0, atol=1e-12)


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_two_axes_are_resampled_separably_in_row_major_order(resampler: str) -> None:
    resampling = create_resampling(5, 6, resampler)
    axis = axis_matrix(5, 6, resampler)
    field = torch.randn(5, 5, dtype=torch.float64)
    actual = resampling.to_canonical[1:, 1:] @ field.flatten()
    torch.testing.assert_close(actual.view(6, 6), axis @ field @ axis.T)


@pytest.mark.parametrize("grid", [8, 10, 13, 16, 20])
def test_statistics_of_a_coarse_field_are_those_of_its_resampled_version(grid: int) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = band_limited_fields(grid, 11, generator)
    resampling = create_resampling(grid, CANONICAL, "dct")
    assert resampling.token_shares.sum().item() == pytest.approx(1, abs=1e-14)
    assert resampling.token_shares[0].item() == pytest.approx(1 / 197)
    standardized = standardize_tokens(coarse, resampling, eps=1e-6)
    canonical = standardize_tokens(resampling.to_canonical @ coarse, None, eps=1e-6)
    torch.testing.assert_close(
        resampling.to_canonical @ standardized, canonical, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("grid", [3, 4, 5])
def test_the_gradient_of_the_norm_is_that_of_its_formula(grid: int) -> None:
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(1 + grid**2, 3, dtype=torch.float64, generator=generator)
    resampling = TokenGrid(4, "dct").resampling(grid, fields)
    assert (resampling is None) == (grid == 4)
    torch.autograd.gradcheck(
        lambda x: standardize_tokens(x, resampling, eps=1e-3), fields.requires_grad_()
    )


@pytest.mark.parametrize("grid", [6, 8, 10, 12, 13, 15, 16, 20, 24])
def test_token_mixing_keeps_its_function_on_band_limited_fields(grid: int) -> None:
    torch.manual_seed(1)
    mixing, norm = random_token_mixing(CANONICAL, hidden=53)
    canonical_fields = band_limited_fields(CANONICAL, 11, torch.Generator().manual_seed(2))
    fields = band_limited_fields(grid, 11, torch.Generator().manual_seed(2))
    resampling = create_resampling(grid, CANONICAL, "dct")

    # The canonical function, batch-first and with torch's own layers.
    hidden = nn.functional.gelu(mixing.fc1(norm(canonical_fields.mT)))
    expected = resampling.from_canonical @ mixing.fc2(hidden).mT
    actual = mixing(fields[:, None], norm, resampling)[:, 0]
    assert (actual - expected).norm() < 1e-12 * expected.norm()


def test_other_resamplers_only_approximate_that_function() -> None:
    torch.manual_seed(3)
    mixing, norm = random_token_mixing(CANONICAL, hidden=53)
    canonical_fields = band_limited_fields(CANONICAL, 11, torch.Generator().manual_seed(2))
    fields = band_limited_fields(10, 11, torch.Generator().manual_seed(2))
    errors = {}
    for resampler in RESAMPLERS:
        resampling = create_resampling(10, CANONICAL, resampler)
        expected = resampling.from_canonical @ mixing(canonical_fields[:, None], norm, None)[:, 0]
        actual = mixing(fields[:, None], norm, resampling)[:, 0]
        errors[resampler] = ((actual - expected).norm() / expected.norm()).item()
    assert errors["dct"] < 1e-12
    assert 1e-4 < errors["bicubic"] < errors["bilinear"] < errors["nearest"] < 1


def test_the_last_block_computes_the_class_token_of_the_full_result() -> None:
    torch.manual_seed(4)
    mixing, norm = random_token_mixing(6, hidden=29)
    fields = torch.randn(26, 2, 11, dtype=torch.float64)
    resampling = create_resampling(5, 6, "dct")
    full = mixing(fields, norm, resampling)
    mixing.is_last = True
    only = mixing(fields, norm, resampling)
    assert full.shape == (26, 2, 11)
    assert only.shape == (1, 2, 11)
    torch.testing.assert_close(only, full[:1])


def test_resampled_weights_at_the_canonical_grid_are_the_folded_ones() -> None:
    torch.manual_seed(5)
    mixing, norm = random_token_mixing(6, hidden=29)
    weights = prepare_token_mlp(mixing.fc1, mixing.fc2, norm, create_resampling(6, 6, "area"))
    torch.testing.assert_close(weights.fc1_weight, mixing.fc1.weight * norm.weight)
    torch.testing.assert_close(weights.fc1_bias, mixing.fc1(norm.bias))
    torch.testing.assert_close(weights.fc2_weight, mixing.fc2.weight)
    torch.testing.assert_close(weights.fc2_bias, mixing.fc2.bias)


def test_weights_are_resampled_in_float32_under_autocast() -> None:
    torch.manual_seed(6)
    mixing, norm = random_token_mixing(6, hidden=29)
    mixing, norm = mixing.float(), norm.float()
    resampling = TokenGrid(6, "dct").resampling(5, norm.weight)
    assert resampling is not None
    plain = prepare_token_mlp(mixing.fc1, mixing.fc2, norm, resampling)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = prepare_token_mlp(mixing.fc1, mixing.fc2, norm, resampling)
    for expected, actual in zip(plain, autocast, strict=True):
        assert torch.equal(expected, actual)


@pytest.mark.parametrize("resampler", RESAMPLERS)
def test_every_resampler_trains_at_coarser_and_finer_grids(resampler: str) -> None:
    torch.manual_seed(7)
    model = FeedForwardViT(**SMALL, resampler=resampler)
    for side in (6, 15, 21, 36):
        model.zero_grad()
        model(torch.randn(2, 3, side, side)).square().mean().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.isfinite().all(), name


def test_resamplers_differ_off_the_canonical_grid_and_agree_on_it() -> None:
    torch.manual_seed(8)
    images = {side: torch.randn(2, 3, side, side) for side in (18, 12)}
    logits: dict[int, list[Tensor]] = {18: [], 12: []}
    reference = FeedForwardViT(**SMALL)
    for resampler in RESAMPLERS:
        model = FeedForwardViT(**SMALL, resampler=resampler)
        model.load_state_dict(reference.state_dict())
        for side, batch in images.items():
            logits[side].append(model(batch))
    assert all(torch.equal(other, logits[18][0]) for other in logits[18])
    assert not any(torch.equal(other, logits[12][0]) for other in logits[12][1:])


def test_the_canonical_grid_resamples_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffvit.models.elastic.create_resampling", None)
    model = FeedForwardViT(**SMALL)
    assert model.token_grid.resampling(6, model.cls_token) is None
    assert model(torch.randn(2, 3, 18, 18)).isfinite().all()


def test_constants_are_not_in_the_state_dict_and_parameters_keep_their_shapes() -> None:
    model = FeedForwardViT(**SMALL)
    before = {name: value.shape for name, value in model.state_dict().items()}
    model(torch.randn(2, 3, 12, 12)).sum().backward()
    assert {name: value.shape for name, value in model.state_dict().items()} == before
    assert not list(model.buffers())


def test_optimizer_state_is_untouched_by_a_change_of_resolution() -> None:
    torch.manual_seed(9)
    model = FeedForwardViT(**SMALL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    shapes = []
    for side in (12, 15, 18, 24):
        before = copy.deepcopy(optimizer.state_dict()["state"])
        set_resolution(model, side)
        after = optimizer.state_dict()["state"]
        assert before.keys() == after.keys()
        for index, moments in before.items():
            for name, value in moments.items():
                assert torch.equal(value, after[index][name])
        optimizer.zero_grad()
        model(torch.randn(2, 3, side, side)).square().mean().backward()
        optimizer.step()
        shapes.append([moments["exp_avg"].shape for moments in optimizer.state.values()])
    assert all(shape == shapes[0] for shape in shapes)
    assert shapes[0] == [parameter.shape for parameter in model.parameters()]


def test_constants_made_in_inference_mode_serve_a_training_step() -> None:
    model = FeedForwardViT(**SMALL)
    with torch.inference_mode():
        model(torch.randn(2, 3, 12, 12))
    model(torch.randn(2, 3, 12, 12)).sum().backward()
    assert model.blocks[0].mlp2.fc1.weight.grad is not None


def test_constants_follow_the_parameters_type_and_are_never_rounded_to_bf16() -> None:
    grid = TokenGrid(6, "dct")
    for dtype, expected in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
    ):
        resampling = grid.resampling(5, torch.empty(1, dtype=dtype))
        assert resampling is not None
        assert {constant.dtype for constant in resampling} == {expected}


def test_constants_are_made_once_per_grid() -> None:
    grid = TokenGrid(6, "dct")
    like = torch.empty(1)
    assert grid.resampling(5, like) is grid.resampling(5, like)
    assert grid.resampling(5, like) is not grid.resampling(4, like)


def test_a_copied_model_works_at_other_grids() -> None:
    model = FeedForwardViT(**SMALL)
    images = torch.randn(2, 3, 12, 12)
    logits = model(images)
    assert torch.equal(copy.deepcopy(model)(images), logits)
