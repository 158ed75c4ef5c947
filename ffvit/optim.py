"""The optimizer: which parameters decay, and which update rule torch runs.

The learning rate is not set here: the trainer writes it into the parameter groups at every step.
"""

import fnmatch
from typing import Any

import torch
from timm.layers.norm import RmsNorm, RmsNorm2d, SimpleNorm, SimpleNorm2d
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ffvit.errors import ConfigError
from ffvit.options import TrainingSection

OPTIMIZERS = ("adamw", "sgd")

# Batch and instance norms are `_NormBase`; timm's norms without a parent in torch are named.
# Weights of one dimension are exempt anyway; the types matter for norms over several axes.
NORM_TYPES = (
    _NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    RmsNorm,
    RmsNorm2d,
    SimpleNorm,
    SimpleNorm2d,
)
# As timm and the author of the FF models name them.
TOKEN_NAMES = {"cls_token", "dist_token", "reg_token"}
POSITION_NAMES = {"pos_embed", "cls_pos_embed"}


def parameter_groups(
    model: nn.Module, weight_decay: float, decay_positions: bool = False
) -> list[dict[str, Any]]:
    """Split the trainable parameters into those that decay and those that do not.

    No decay for the parameters of norms (by module type), biases, parameters of one dimension,
    class tokens, position embeddings, and whatever `model.no_weight_decay()` names, as timm's
    models do; its names may be patterns.

    Args:
        model: The bare model, neither wrapped for distribution nor compiled.
        weight_decay: Decay of the first group.
        decay_positions: Whether position embeddings are in the first group, whatever the model
            names. The author of the FF models exempts "pos_embed", but his parameters are named
            "pos_encoding.pos_embed" and ".cls_pos_embed", so they were decayed.

    Returns:
        At most two groups with `params` and `weight_decay`, in the order decayed, not decayed.
    """
    no_weight_decay = getattr(model, "no_weight_decay", None)
    exempt_patterns = no_weight_decay() if callable(no_weight_decay) else ()
    decayed: dict[nn.Parameter, None] = {}
    exempt: dict[nn.Parameter, None] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix=module_name, recurse=False):
            if not parameter.requires_grad or parameter in decayed or parameter in exempt:
                continue
            own_name = name.rpartition(".")[2]
            is_exempt = (
                isinstance(module, NORM_TYPES)
                or parameter.ndim <= 1
                or own_name.endswith("bias")
                or own_name in TOKEN_NAMES | POSITION_NAMES
                or any(fnmatch.fnmatchcase(name, pattern) for pattern in exempt_patterns)
            )
            if decay_positions and own_name in POSITION_NAMES:
                is_exempt = False
            (exempt if is_exempt else decayed)[parameter] = None
    groups = [
        {"params": list(decayed), "weight_decay": weight_decay},
        {"params": list(exempt), "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def create_optimizer(model: nn.Module, section: TrainingSection) -> torch.optim.Optimizer:
    """Create AdamW or SGD over `parameter_groups`, fused: one pass over weights and moments.

    On a CPU, too, where it takes a fifth of the time of torch's "foreach", and a third of its loop.

    Its learning rate is 0 until the trainer sets it, so a forgotten schedule trains nothing.

    Args:
        model: The bare model, where it is trained.
        section: `optimizer`, `momentum` (beta1 of adamw; beta2 is 0.999, eps 1e-8),
            `weight_decay` and `decay_positions` are read.

    Raises:
        ConfigError: An unknown optimizer, or a momentum or weight decay out of range.
    """
    if section.optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"training.optimizer={section.optimizer!r} is not known;"
            f" use one of {', '.join(OPTIMIZERS)}."
        )
    if not 0 <= section.momentum < 1:
        raise ConfigError(
            f"training.momentum={section.momentum} is not in the range from 0 to below 1."
        )
    if section.weight_decay < 0:
        raise ConfigError(
            f"training.weight_decay={section.weight_decay} is below 0; 0 turns the decay off."
        )
    groups = parameter_groups(model, section.weight_decay, section.decay_positions)
    if section.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=section.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=0.0, betas=(section.momentum, 0.999), eps=1e-8, fused=True)
