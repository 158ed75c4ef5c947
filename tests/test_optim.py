"""Parameter groups by module type, and the optimizers over them."""

import pytest
import timm
import timm.layers.norm
import torch
from timm.optim import param_groups_weight_decay
from torch import nn

from ffvit.errors import ConfigError
from ffvit.models import create_model
from ffvit.optim import create_optimizer, parameter_groups
from ffvit.options import ModelSection, TrainingSection


def names_by_decay(model, **options):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, exempt = set(), set()
    for group in parameter_groups(model, 0.25, **options):
        target = {0.25: decayed, 0.0: exempt}[group["weight_decay"]]
        target.update(names[id(parameter)] for parameter in group["params"])
    return decayed, exempt


def test_ff_tiny_decays_patch_mixing_and_head_weights_only():
    with torch.device("meta"):
        model = create_model(ModelSection(name="ff_tiny_patch16_224"), 1000)
    decayed, exempt = names_by_decay(model)
    assert len(decayed) == 1 + 12 * 4 + 1
    assert len(exempt) == 153 - len(decayed)
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)


def test_positions_decay_on_demand_as_in_the_authors_run():
    """timm's rule with the names that the author exempts, of which only cls_token exists."""
    with torch.device("meta"):
        model = create_model(ModelSection(name="ff_tiny_patch16_224"), 1000)
    decayed, exempt = names_by_decay(model, decay_positions=True)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups_weight_decay(model, 0.25, no_weight_decay_list=("pos_embed", "cls_token"))
    theirs = {
        group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]}
        for group in groups
    }
    assert (decayed, exempt) == (theirs[0.25], theirs[0.0])
    assert decayed - names_by_decay(model)[0] == {
        "pos_encoding.pos_embed",
        "pos_encoding.cls_pos_embed",
    }


def test_resnet50_decays_convolutions_and_the_classifier_only():
    with torch.device("meta"):
        model = create_model(ModelSection(name="resnet50_blurpool"), 1000)
    decayed, exempt = names_by_decay(model)
    assert len(decayed) == 53 + 1
    assert len(exempt) == 2 * 53 + 1
    assert not any("bn" in name or "downsample.1" in name for name in decayed)


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(6),
        nn.InstanceNorm2d(6, affine=True),
        nn.GroupNorm(3, 6),
        nn.LayerNorm((3, 5)),
        nn.RMSNorm((3, 5)),
        timm.layers.norm.LayerNorm2d(6),
        timm.layers.norm.RmsNorm((3, 5)),
        timm.layers.norm.RmsNorm2d(6),
        timm.layers.norm.SimpleNorm((3, 5)),
        timm.layers.norm.SimpleNorm2d(6),
        timm.layers.BatchNormAct2d(6),
        timm.layers.GroupNormAct(6, num_groups=3),
        timm.layers.LayerNormAct2d(6),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_no_parameter_of_a_norm_decays(norm):
    model = nn.Sequential(nn.Linear(7, 6), norm)
    decayed, exempt = names_by_decay(model)
    assert decayed == {"0.weight"}
    assert len(exempt) == 1 + len(list(norm.parameters()))


def test_a_bias_of_several_dimensions_does_not_decay():
    model = nn.Linear(2, 3)
    model.relative_bias = nn.Parameter(torch.zeros(5, 7))
    assert names_by_decay(model) == ({"weight"}, {"bias", "relative_bias"})


def test_class_token_and_position_embedding_do_not_decay_in_a_timm_model():
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224")
    decayed, exempt = names_by_decay(model)
    assert {"cls_token", "pos_embed"} <= exempt
    assert len(decayed) == 1 + 12 * 4 + 1


def test_class_token_and_position_embedding_do_not_decay_in_a_model_that_names_none():
    model = nn.Linear(2, 3)
    model.cls_token = nn.Parameter(torch.zeros(1, 1, 5))
    model.positions = nn.Module()
    model.positions.pos_embed = nn.Parameter(torch.zeros(1, 5, 7, 7))
    assert names_by_decay(model)[0] == {"weight"}


def test_names_and_patterns_that_the_model_exempts_do_not_decay():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(2, 3)
            self.body = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7))

        def no_weight_decay(self):
            return {"gate.weight", "body.*"}

    decayed, exempt = names_by_decay(Model())
    assert decayed == set()
    assert len(exempt) == 6


def test_frozen_parameters_are_in_no_group_and_shared_ones_in_one():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[2].requires_grad_(requires_grad=False)
    groups = parameter_groups(model, 0.1)
    assert [len(group["params"]) for group in groups] == [1, 2]


@pytest.mark.parametrize("decay_positions", [False, True])
def test_the_optimizer_decays_positions_only_if_told(decay_positions):
    model = create_model(ModelSection(name="ff_pico", image_size=32, patch_size=8, depth=1), 3)
    section = TrainingSection(weight_decay=0.5, decay_positions=decay_positions)
    groups = create_optimizer(model, section).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decays[id(model.pos_encoding.pos_embed)] == (0.5 if decay_positions else 0.0)
    assert decays[id(model.cls_token)] == 0.0


def test_adamw_takes_momentum_as_beta_1_and_starts_at_rate_0():
    section = TrainingSection(optimizer="adamw", momentum=0.8, weight_decay=0.3)
    optimizer = create_optimizer(nn.Linear(2, 3), section)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["betas"] == (0.8, 0.999)
    assert optimizer.defaults["eps"] == 1e-8
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert all(group["lr"] == 0 for group in optimizer.param_groups)


def test_sgd_steps_as_written_out_by_hand():
    model = nn.Linear(2, 3)
    section = TrainingSection(optimizer="sgd", momentum=0.5, weight_decay=0.1)
    optimizer = create_optimizer(model, section)
    for group in optimizer.param_groups:
        group["lr"] = 0.25
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    weight_velocity, bias_velocity = torch.zeros(3, 2), torch.zeros(3)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        weight_velocity = 0.5 * weight_velocity + 1 + 0.1 * weight
        bias_velocity = 0.5 * bias_velocity + 1
        weight, bias = weight - 0.25 * weight_velocity, bias - 0.25 * bias_velocity
    torch.testing.assert_close(model.weight, weight)
    torch.testing.assert_close(model.bias, bias)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_optimizer_is_fused(name, device):
    model = nn.Linear(2, 3, device=device)
    optimizer = create_optimizer(model, TrainingSection(optimizer=name))
    model(torch.ones(1, 2, device=device)).sum().backward()
    optimizer.step()
    assert optimizer.defaults["fused"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (TrainingSection(optimizer="lamb"), "training.optimizer='lamb'.*adamw, sgd"),
        (TrainingSection(momentum=1.0), "training.momentum=1.0"),
        (TrainingSection(weight_decay=-0.1), "training.weight_decay=-0.1"),
    ],
)
def test_unknown_optimizer_and_values_out_of_range_are_refused(section, message):
    with pytest.raises(ConfigError, match=message):
        create_optimizer(nn.Linear(2, 3), section)
