"""The functions of ffvit.api: what the scripts do, with errors as exceptions."""

import subprocess
import sys

import pytest
import torch
from conftest import NUM_CLASSES, NUM_TRAIN, NUM_VAL

import ffvit
from ffvit import api
from ffvit.errors import BetonError, ConfigError


def test_import_is_light_and_lists_the_functions():
    program = (
        "import sys, ffvit; print('train' in dir(ffvit), "
        "sorted({'torch', 'ffcv', 'timm', 'ffvit.api'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True []\n"


def test_every_function_is_an_attribute_of_the_package():
    assert set(api.__all__) == set(ffvit._API)
    assert all(getattr(ffvit, name) is getattr(api, name) for name in api.__all__)


def test_an_attribute_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trainer_of'"):
        _ = ffvit.trainer_of


def test_loaders_give_every_image_and_batches_to_keep(tiny_beton, tiny_val_beton):
    loader = ffvit.train_loader(tiny_beton, batch_size=24, resolution=32, flip=False)
    batches = [(images, labels) for images, labels, *_ in loader]
    assert len(batches) == len(loader) == NUM_TRAIN // 24
    assert batches[0][0].shape == (24, 32, 32, 3)
    assert not torch.equal(batches[0][0], batches[1][0])  # no buffer that was filled again
    loader = ffvit.val_loader(tiny_val_beton, batch_size=10, resolution=48, filter="bicubic")
    assert sum(len(labels) for _, labels, *_ in loader) == NUM_VAL
    assert loader.info.num_classes == NUM_CLASSES


def test_a_loader_goes_on_where_its_state_says(tiny_beton):
    whole = [labels for _, labels, *_ in ffvit.train_loader(tiny_beton, 16, 32, seed=3)]
    loader = ffvit.train_loader(tiny_beton, 16, 32, seed=3)
    next(iter(loader))
    state = loader.state_dict()
    loader.close()
    other = ffvit.train_loader(tiny_beton, 16, 32, seed=3)
    other.load_state_dict(state)
    rest = [labels for _, labels, *_ in other]
    assert torch.equal(torch.cat(rest), torch.cat(whole[1:]))


def test_a_model_takes_what_normalize_makes(tiny_beton):
    model = ffvit.create_model("ff_pico", NUM_CLASSES, drop_rate=0.1).eval()
    images, _, *_ = next(iter(ffvit.train_loader(tiny_beton, 8, 64)))
    assert model(ffvit.normalize(images)).shape == (8, NUM_CLASSES)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ffvit.train_loader("no.beton", 8), BetonError, "no.beton"),
        (
            lambda: ffvit.train_loader("no.beton", 8, flop=True),
            ConfigError,
            "did you mean 'data.flip'",
        ),
        (lambda: ffvit.val_loader("no.beton", 8, filter="cubic"), ConfigError, "filter=cubic"),
        (lambda: ffvit.create_model("ff_tinny"), ConfigError, "ff_tiny_patch16_224"),
        (lambda: ffvit.create_model("ff_pico", depth="two"), ConfigError, "whole number"),
        (
            lambda: ffvit.write_betons(data_dir="no_such_folder"),
            ffvit.errors.UserError,
            "no_such_folder",
        ),
        (lambda: ffvit.train("no.yaml"), ConfigError, "no.yaml"),
    ],
)
def test_a_mistake_is_an_exception_with_the_commands_line(
    call, error, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        call()
