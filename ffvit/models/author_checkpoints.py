"""Load the weights that the paper's author released: strictly, and without running the file's code.

Three forms are taken: DeiT's training checkpoint (a dict with `model`, `model_ema`, `args` and
more), a dict with `model` or `state_dict`, and a bare state dict. Our own runs are not read here.
"""

import argparse
import hashlib
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from ffvit.errors import CheckpointError, first_line

RELEASE_URL = "https://github.com/lukemelas/do-you-even-need-attention/releases/download/v0.0.1"
TINY_URL = f"{RELEASE_URL}/linear-tiny-checkpoint.pth"
BASE_URL = f"{RELEASE_URL}/linear-base-checkpoint.pth"

# The author published no hashes. None: not known yet, so that a file of this name is loaded with a
# warning that states its hash.
RELEASE_SHA256: dict[str, str | None] = {
    "linear-tiny-checkpoint.pth": None,
    "linear-base-checkpoint.pth": None,
}

# What torch.load raises for truncated files, foreign files and refused types.
DAMAGE = (pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, LookupError)

logger = logging.getLogger(__name__)


def load_author_checkpoint(model: nn.Module, path: str | Path, *, ema: bool = False) -> None:
    """Load one of the author's files into a model of its size; every tensor must be there and fit.

    Args:
        model: A model of feedforward.py; changed only if the whole file fits.
        path: The file.
        ema: Load the averaged weights that DeiT keeps beside the raw ones. The paper's figures are
            of the raw weights.

    Raises:
        CheckpointError: The file is missing or damaged, belongs to another model, has no averaged
            weights, is one of DeiT's attention models, or bears the name of a released file with
            another hash.
    """
    path = Path(path)
    state = read_author_checkpoint(path, ema=ema)
    check_fit(model, state, path)
    model.load_state_dict(state, strict=True)


def read_author_checkpoint(path: Path, *, ema: bool = False) -> dict[str, Tensor]:
    """Read the weights in one of the author's files.

    Args:
        path: The file.
        ema: As for `load_author_checkpoint`.

    Raises:
        CheckpointError: As `load_author_checkpoint`, but for weights of another model.
    """
    _check_hash(path)
    state = _state_dict(_read(path), path, ema=ema)
    if any(".attn.qkv." in name for name in state):
        raise CheckpointError(
            f"{path}: expected a feed-forward model, got a DeiT attention model; the first README"
            " of the paper's repository linked DeiT's files by mistake. Take those of"
            f" {RELEASE_URL} instead."
        )
    return state


def _check_hash(path: Path) -> None:
    """Compare a file that bears a released file's name with that file's hash."""
    if path.name not in RELEASE_SHA256:
        return
    digest = hashlib.sha256()
    with _open(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    actual, expected = digest.hexdigest(), RELEASE_SHA256[path.name]
    if expected is None:
        logger.warning("%s: SHA-256 %s, not checked: the released file's is unknown", path, actual)
    elif actual != expected:
        raise CheckpointError(
            f"{path}: expected the released file with SHA-256 {expected}, got {actual}; delete it"
            " and fetch it again."
        )


def _read(path: Path) -> Any:
    """Unpickle tensors, plain values and DeiT's `args`; anything else in the file is refused."""
    with _open(path) as file, torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except DAMAGE as error:
            raise CheckpointError(
                f"{path}: expected a PyTorch checkpoint of tensors and plain values, but it is"
                f" damaged or holds something else ({first_line(error)}); fetch it again."
            ) from None


def _state_dict(content: Any, path: Path, *, ema: bool) -> dict[str, Tensor]:
    """Pick the weights out of any of the three forms, without the prefixes of wrapped modules."""
    found = content
    if isinstance(content, Mapping):
        if ema and "model_ema" not in content:
            raise CheckpointError(
                f"{path}: expected averaged weights under 'model_ema', but there are none; load it"
                " with ema=False."
            )
        forms = ("model_ema",) if ema else ("model", "state_dict")
        found = next((content[form] for form in forms if form in content), content)
    if (
        not isinstance(found, Mapping)
        or not found
        or not all(isinstance(value, Tensor) for value in found.values())
    ):
        raise CheckpointError(
            f"{path}: expected a dict of tensors, bare or under 'model' or 'state_dict', but there"
            " is none; this is not a model's checkpoint."
        )
    return {
        str(name).removeprefix("module.").removeprefix("_orig_mod."): value
        for name, value in found.items()
    }


def check_fit(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Compare names and shapes; load_state_dict would list every tensor and fill half the model.

    Raises:
        CheckpointError: They differ; counts how many, and names the first.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    actual = {name: tuple(value.shape) for name, value in state.items()}
    missing = [name for name in expected if name not in actual]
    unexpected = [name for name in actual if name not in expected]
    reshaped = [name for name in expected if name in actual and actual[name] != expected[name]]
    problems = []
    if missing:
        problems.append(f"{len(missing)} are missing (first {missing[0]})")
    if unexpected:
        problems.append(f"{len(unexpected)} are unknown (first {unexpected[0]})")
    if reshaped:
        first = reshaped[0]
        shapes = f"{first}: {actual[first]} for {expected[first]}"
        problems.append(f"{len(reshaped)} have another shape (first {shapes})")
    if problems:
        raise CheckpointError(
            f"{path}: expected the {len(expected)} tensors of this {type(model).__name__}, but"
            f" {', '.join(problems)}; create the model that the file belongs to."
        )


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot read this checkpoint ({error.strerror}); check the path."
        ) from None
