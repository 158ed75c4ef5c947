"""Checkpoints in the author's forms, built here: the released files are not at hand."""

import argparse
import hashlib
import pathlib
import urllib.error
import urllib.request
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from ffvit.errors import CheckpointError
from ffvit.models import FeedForwardViT, author_checkpoints, load_author_checkpoint

SMALL = {"image_size": 12, "patch_size": 3, "embed_dim": 11, "depth": 2, "num_classes": 7}
State = dict[str, Tensor]


@pytest.fixture
def states() -> tuple[State, State]:
    """Two different sets of weights: raw and averaged."""
    torch.manual_seed(0)
    return FeedForwardViT(**SMALL).state_dict(), FeedForwardViT(**SMALL).state_dict()


def deit_checkpoint(raw: State, averaged: State) -> dict[str, Any]:
    """What DeiT's main.py saved in 2021."""
    model = FeedForwardViT(**SMALL)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 12, 12)).sum().backward()
    optimizer.step()
    return {
        "model": raw,
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"base_values": [0.001], "metric": None},
        "epoch": 299,
        "model_ema": averaged,
        "scaler": {"scale": 65536.0, "_growth_tracker": 17},
        "args": argparse.Namespace(model="linear_tiny", drop=0.1, clip_grad=None, resume=""),
    }


def save(content: object, folder: pathlib.Path, name: str = "checkpoint.pth") -> pathlib.Path:
    torch.save(content, folder / name)
    return folder / name


def assert_loaded(model: nn.Module, expected: State) -> None:
    actual = model.state_dict()
    assert list(actual) == list(expected)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def refusal(path: pathlib.Path, *, ema: bool = False) -> str:
    """Return the message: one line that starts with the file. The model stays as it was."""
    model = FeedForwardViT(**SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_author_checkpoint(model, path, ema=ema)
    assert_loaded(model, before)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_a_deit_training_checkpoint_gives_its_raw_weights(
    tmp_path: pathlib.Path, states: tuple[State, State]
) -> None:
    model = FeedForwardViT(**SMALL)
    load_author_checkpoint(model, save(deit_checkpoint(*states), tmp_path))
    assert_loaded(model, states[0])


def test_a_deit_training_checkpoint_gives_its_averaged_weights_on_demand(
    tmp_path: pathlib.Path, states: tuple[State, State]
) -> None:
    model = FeedForwardViT(**SMALL)
    load_author_checkpoint(model, save(deit_checkpoint(*states), tmp_path), ema=True)
    assert_loaded(model, states[1])


@pytest.mark.parametrize("key", ["model", "state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrapped_and_bare_state_dicts_load(
    tmp_path: pathlib.Path, states: tuple[State, State], key: str | None, prefix: str
) -> None:
    state = {prefix + name: value for name, value in states[0].items()}
    model = FeedForwardViT(**SMALL)
    load_author_checkpoint(model, str(save({key: state} if key else state, tmp_path)))
    assert_loaded(model, states[0])


def test_the_dead_rows_of_the_last_token_layer_are_loaded_too(
    tmp_path: pathlib.Path, states: tuple[State, State]
) -> None:
    state = {name: value.clone() for name, value in states[0].items()}
    state["blocks.1.mlp2.fc2.weight"][1:] = 17
    model = FeedForwardViT(**SMALL)
    load_author_checkpoint(model, save(state, tmp_path))
    assert (model.blocks[1].mlp2.fc2.weight[1:] == 17).all()
    del state["blocks.1.mlp2.fc2.bias"]
    assert "1 are missing (first blocks.1.mlp2.fc2.bias)" in refusal(save(state, tmp_path))


def test_deits_attention_models_are_refused_with_the_reason(tmp_path: pathlib.Path) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=12)
    message = refusal(save({"model": vit.state_dict()}, tmp_path))
    assert "DeiT attention model" in message
    assert "first README" in message
    assert "releases/download/v0.0.1" in message


def test_a_file_of_another_size_is_refused(tmp_path: pathlib.Path) -> None:
    other = FeedForwardViT(**{**SMALL, "depth": 3, "embed_dim": 13}).state_dict()
    message = refusal(save(other, tmp_path))
    assert "expected the 33 tensors of this FeedForwardViT" in message
    assert "12 are unknown (first blocks.2.mlp1.fc1.weight)" in message
    assert "(first cls_token: (1, 1, 13) for (1, 1, 11))" in message
    assert "create the model that the file belongs to" in message


def test_a_head_for_other_classes_is_refused(tmp_path: pathlib.Path) -> None:
    other = FeedForwardViT(**{**SMALL, "num_classes": 5}).state_dict()
    assert "2 have another shape (first head.weight: (5, 11) for (7, 11))" in refusal(
        save(other, tmp_path)
    )


def test_averaged_weights_that_are_not_there_are_refused(
    tmp_path: pathlib.Path, states: tuple[State, State]
) -> None:
    path = save({"model": states[0]}, tmp_path)
    assert "expected averaged weights under 'model_ema'" in refusal(path, ema=True)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"model": 5}, 7])
def test_files_without_weights_are_refused(tmp_path: pathlib.Path, content: object) -> None:
    assert "expected a dict of tensors" in refusal(save(content, tmp_path))


def test_a_missing_file_is_refused(tmp_path: pathlib.Path) -> None:
    assert "cannot read this checkpoint" in refusal(tmp_path / "nowhere.pth")
    assert "cannot read this checkpoint" in refusal(tmp_path / "linear-tiny-checkpoint.pth")
    assert "cannot read this checkpoint" in refusal(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.99])
def test_truncated_files_are_refused(
    tmp_path: pathlib.Path, states: tuple[State, State], kept: float
) -> None:
    path = save(states[0], tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    assert "damaged or holds something else" in refusal(path)


@pytest.mark.parametrize("junk", [b"<html>Not Found</html>", bytes(1000), b"\x80\x02junk" * 50])
def test_junk_is_refused(tmp_path: pathlib.Path, junk: bytes) -> None:
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(junk)
    assert "damaged or holds something else" in refusal(path)


def test_code_in_a_file_is_not_run(tmp_path: pathlib.Path, states: tuple[State, State]) -> None:
    path = save({"model": states[0], "args": Touch(str(tmp_path / "owned"))}, tmp_path)
    assert "damaged or holds something else" in refusal(path)
    assert not (tmp_path / "owned").exists()


class Touch:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def test_the_hash_of_a_released_file_is_checked_once_known(
    tmp_path: pathlib.Path, states: tuple[State, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(states[0], tmp_path, "linear-tiny-checkpoint.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(author_checkpoints.RELEASE_SHA256, path.name, digest)
    load_author_checkpoint(FeedForwardViT(**SMALL), path)
    monkeypatch.setitem(author_checkpoints.RELEASE_SHA256, path.name, "0" * 64)
    message = refusal(path)
    assert "0" * 64 in message
    assert digest in message


def test_an_unknown_hash_is_stated(
    tmp_path: pathlib.Path, states: tuple[State, State], caplog: pytest.LogCaptureFixture
) -> None:
    path = save(states[0], tmp_path, "linear-base-checkpoint.pth")
    load_author_checkpoint(FeedForwardViT(**SMALL), path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in caplog.text
    assert "not checked" in caplog.text


def test_pretrained_takes_a_local_file_through_timms_overlay(tmp_path: pathlib.Path) -> None:
    released = timm.create_model("ff_pico", depth=1)
    path = save({"model": released.state_dict()}, tmp_path)
    model = timm.create_model(
        "ff_pico", depth=1, pretrained=True, pretrained_cfg_overlay={"file": str(path)}
    )
    assert_loaded(model, released.state_dict())


def test_pretrained_reads_the_released_file_from_torchs_cache(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    released = timm.create_model("ff_tiny_patch16_224")
    save({"model": released.state_dict()}, cache, "linear-tiny-checkpoint.pth")
    model = timm.create_model("ff_tiny_patch16_224", pretrained=True)
    assert_loaded(model, released.state_dict())


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_a_failed_download_says_what_to_do(
    size: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(request: Any, *_: object, **__: object) -> None:
        assert request.full_url == (
            "https://github.com/lukemelas/do-you-even-need-attention/releases/download/v0.0.1/"
            f"linear-{size}-checkpoint.pth"
        )
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with torch.device("meta"), pytest.raises(CheckpointError, match="no route to host") as caught:
        timm.create_model(f"ff_{size}_patch16_224", pretrained=True)
    assert f"linear-{size}-checkpoint.pth elsewhere" in str(caught.value)
    assert "pretrained_cfg_overlay={'file': PATH}" in str(caught.value)
