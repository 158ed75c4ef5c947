"""Models by name, the options they take and the resolutions they run at."""

import dataclasses

import pytest
import timm
import torch
from torch import nn

from ffvit.errors import ConfigError
from ffvit.models import (
    MODEL_OPTIONS,
    OUR_MODELS,
    FeedForwardViT,
    check_resolutions,
    create_model,
    resolution_multiple,
    set_resolution,
)
from ffvit.options import ModelSection


def create(name: str, num_classes: int = 7, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create_model(ModelSection(name=name, **options), num_classes)


@pytest.mark.parametrize("name", OUR_MODELS)
def test_our_models_are_registered_with_timm(name: str) -> None:
    assert name in timm.list_models()
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=7)
    side = model.default_cfg["input_size"][-1]
    assert model(torch.empty(2, 3, side, side, device="meta")).shape == (2, 7)


def test_our_models_take_their_options() -> None:
    model = create(
        "ff_tiny_patch16_224",
        num_classes=5,
        image_size=96,
        patch_size=12,
        embed_dim=29,
        depth=3,
        drop_rate=0.1,
        drop_path_rate=0.2,
        resampler="area",
    )
    assert isinstance(model, FeedForwardViT)
    assert model.patch_embed.proj.weight.shape == (29, 3, 12, 12)
    assert model.blocks[0].mlp2.fc1.weight.shape == (4 * 65, 65)
    assert len(model.blocks) == 3
    assert model.head.weight.shape == (5, 29)
    assert model.pos_drop.p == 0.1
    assert model.blocks[2].drop_path.drop_rate == pytest.approx(0.2)
    assert model.token_grid.resampler == "area"


def test_every_option_of_the_section_is_used_or_the_callers() -> None:
    fields = {field.name for field in dataclasses.fields(ModelSection)}
    assert fields == {*MODEL_OPTIONS, "name", "num_classes"}


def test_timm_models_take_the_options_they_know() -> None:
    model = create("vit_tiny_patch16_224", image_size=96, patch_size=8, depth=2, drop_rate=0.1)
    assert model.patch_embed.grid_size == (12, 12)
    assert len(model.blocks) == 2
    assert model.head_drop.p == 0.1


def test_stochastic_depth_is_the_sections_even_where_timm_defaults_to_more() -> None:
    def rates(model: nn.Module) -> set[float]:
        return {getattr(module, "drop_prob", 0.0) for module in model.modules()}

    name = "swin_tiny_patch4_window7_224"
    with torch.device("meta"):
        assert max(rates(timm.create_model(name))) > 0
    assert max(rates(create(name))) == 0
    assert max(rates(create(name, drop_path_rate=0.3))) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "ff_bse"}, r"model.name=ff_bse is neither .* did you mean ff_base_patch16_224\?"),
        ({"name": "resnet81"}, r"did you mean resnet"),
        ({"name": "qwertzuiop"}, r"ours are ff_pico, ff_tiny_patch16_224"),
        ({"name": "hf-hub:someone/else"}, r"model.name=hf-hub:someone/else is neither"),
        ({"name": "resnet18.tv_in1k"}, r"did you mean resnet18"),
        (
            {"name": "resnet50_blurpool", "patch_size": 8},
            r"model.patch_size=8: resnet50_blurpool has",
        ),
        ({"name": "resnet18", "depth": 3}, r"model.depth=3: resnet18 has no such option"),
        ({"name": "vit_tiny_patch16_224", "resampler": "area"}, r"model.resampler=area: vit_tiny"),
        ({"name": "vgg11", "drop_path_rate": 0.1}, r"model.drop_path_rate=0.1: vgg11 has no such"),
        (
            {"name": "ff_tiny_attention_only_patch16_224", "resampler": "area"},
            r"model.resampler=area: ff_tiny_attention_only_patch16_224 has no such option",
        ),
        (
            {"name": "vit_tiny_patch16_224", "embed_dim": 100},
            r"=100: vit_tiny\S* cannot be built so",
        ),
        ({"name": "ff_pico", "drop_rate": 1.5}, r"model.drop_rate=1.5: ff_pico cannot be built so"),
        ({"name": "ff_pico", "image_size": 100}, r"image_size=100 is not a multiple of"),
    ],
)
def test_wrong_names_and_options_are_refused_in_one_line(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        create(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "multiple"),
    [
        ("ff_pico", 8),
        ("ff_tiny_patch16_224", 16),
        ("ff_large_patch32_224", 32),
        ("ff_tiny_attention_only_patch16_224", 16),
        ("resnet18_blurpool", 32),
        ("resnet50", 32),
        ("vit_small_patch32_224", 32),
        ("swin_tiny_patch4_window7_224", 32),
    ],
)
def test_resolution_multiple_is_the_patch_or_the_total_stride(name: str, multiple: int) -> None:
    assert resolution_multiple(create(name)) == multiple


@pytest.mark.parametrize(
    ("name", "resolutions"),
    [
        ("ff_tiny_patch16_224", range(96, 385, 16)),
        ("ff_large_patch32_224", range(96, 385, 32)),
        ("ff_pico", [64, 72, 80, 112, 128]),
        ("resnet18_blurpool", [96, 150, 224, 256]),
        ("vit_tiny_patch16_224", [96, 160, 224, 256]),
        ("ff_tiny_attention_only_patch16_224", [224]),
        ("mixer_s16_224", [224]),
    ],
)
def test_resolutions_that_run_are_accepted(name: str, resolutions: list[int]) -> None:
    check_resolutions(name, create(name), resolutions)


@pytest.mark.parametrize(
    ("name", "resolution", "message"),
    [
        (
            "ff_base_patch16_224",
            150,
            r"150 does not suit ff_base_patch16_224: .* the patch size 16; use 144 or 160\.$",
        ),
        ("ff_large_patch32_224", 16, r"not a multiple of the patch size 32; use 32\.$"),
        ("ff_pico", 0, r"not a multiple of the patch size 8; use 8\.$"),
        ("resnet18_blurpool", 0, r"it is not a size; use 32\.$"),
        ("vit_tiny_patch16_224", 150, r"use 144 or 160\.$"),
        ("mixer_s16_224", 192, r"doesn't match model \(224\); use 224\.$"),
        ("ff_tiny_attention_only_patch16_224", 192, r"tied to the number of tokens; use 224\.$"),
    ],
)
def test_the_first_resolution_that_does_not_run_is_named(
    name: str, resolution: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_resolutions(name, create(name), [224, resolution, 7])


def test_a_fixed_size_model_of_timm_is_fixed_to_the_size_asked_for() -> None:
    model = create("mixer_s16_224", image_size=160)
    check_resolutions("mixer_s16_224", model, [160])
    with pytest.raises(ConfigError, match=r"use 160\.$"):
        check_resolutions("mixer_s16_224", model, [224])


def test_checking_leaves_the_model_as_it_was() -> None:
    model = create_model(ModelSection(name="resnet18_blurpool"), 5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_resolutions("resnet18_blurpool", model, [64])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_timms_transformers_take_other_sizes_and_keep_their_function_at_their_own() -> None:
    torch.manual_seed(0)
    ours = create_model(ModelSection(name="test_vit"), 5).eval()
    theirs = timm.create_model("test_vit", num_classes=5).eval()
    theirs.load_state_dict(ours.state_dict())
    side = theirs.default_cfg["input_size"][-1]
    images = torch.randn(2, 3, side, side)
    torch.testing.assert_close(ours(images), theirs(images))
    assert ours(torch.randn(2, 3, side - 32, side - 32)).shape == (2, 5)


def test_setting_the_resolution_looks_through_wrappers_and_ignores_other_networks() -> None:
    model = FeedForwardViT(image_size=12, patch_size=3, embed_dim=11, depth=1)
    set_resolution(nn.Sequential(model), 15)
    assert [key[0] for key in model.token_grid._cache] == [5]
    set_resolution(nn.Linear(2, 3), 15)
