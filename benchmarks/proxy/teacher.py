"""Distillation: a trained network's opinion is half of what a model is trained towards."""

import fcntl
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.proxy.arms import FULL, LOW, RESNET, arm
from benchmarks.proxy.results import NEW_RESULTS
from ffvit.errors import ConfigError
from ffvit.models import create_model

PATH = NEW_RESULTS / "teacher.pt"
SEED = 1000
WEIGHT = 0.5
# It is asked at every resolution of a ramp, so it is trained at several in turn.
TEACHER = arm("teacher", *((LOW, 1), (64, 1), (FULL, 1)) * 8, model=RESNET)


class Teaching:
    """Augmentation followed by a look at the teacher, which sees the very same images.

    With cross-entropy, a target that is half the label and half the teacher's probabilities is
    distillation at temperature 1 (Hinton et al., arXiv:1503.02531); with the class that the teacher
    prefers it is DeiT's hard distillation (Touvron et al., arXiv:2012.12877), but on one head.
    """

    def __init__(self, augment: Callable[[Any, int], Any], num_classes: int, is_hard: bool) -> None:
        self._augment = augment
        self._num_classes = num_classes
        self._is_hard = is_hard
        self._network = create_model(TEACHER.config.model, num_classes).eval()
        saved = torch.load(PATH)
        if saved["network"] != repr(self._network):  # its tensors may fit nevertheless
            raise ConfigError(
                f"{PATH}: expected weights of this network, got another one's; remove the file, "
                "and it is trained again."
            )
        self._network.load_state_dict(saved["weights"])

    @torch.no_grad()
    def __call__(self, batch: Any, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs, and (B, K) shares of each class."""
        inputs, labels = self._augment(batch, epoch)
        shares = F.one_hot(labels, self._num_classes).float() if labels.ndim == 1 else labels
        logits = self._network(inputs).float()
        opinion = logits.softmax(dim=1)
        if self._is_hard:
            opinion = F.one_hot(logits.argmax(dim=1), self._num_classes).float()
        return inputs, (1 - WEIGHT) * shares + WEIGHT * opinion


def prepare(train: Callable[[], dict[str, Any]]) -> None:
    """Have the teacher trained if it was not yet; processes wait for the one that does it."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    with PATH.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not PATH.exists():
            partial = PATH.with_suffix(".part")
            torch.save(train(), partial)
            partial.replace(PATH)
