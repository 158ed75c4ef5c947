"""Models from wherever they lie; files that claim what they do not hold are refused in one line."""

import json
import shutil

import pytest
import safetensors.torch
import timm
import torch
from trained_run import write_run

from ffvit.__main__ import main
from ffvit.errors import CheckpointError, ConfigError
from ffvit.models.loading import load_saved_model
from ffvit.models.saved import EvalProtocol


@pytest.fixture(scope="module")
def run(tiny_betons, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "tiny", tiny_betons)


@pytest.fixture
def folder(run, tmp_path):
    main(["export", str(run), str(tmp_path / "exported")])
    return tmp_path / "exported"


def edit(folder, **changes):
    """Change values of config.json; a dict is merged into the one that is there."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "local-dir:/x"}, "no architecture"),
        ({"architecture": ["ff_pico"]}, "no architecture"),
        ({"architecture": "resnet18"}, "cannot be loaded"),
        ({"model_args": {"checkpoint_path": "/x"}}, "'checkpoint_path' that no export has"),
        ({"model_args": {"pretrained": True}}, "'pretrained' that no export has"),
        ({"model_args": {"embed_dim": 10**9}}, "a size that is not"),
        ({"model_args": {"embed_dim": 60_000}}, "its tensors are not those"),
        ({"model_args": {"depth": 60_000}}, "more than 1024 blocks"),
        ({"model_args": {"depth": 3}}, "its tensors are not those"),
        ({"model_args": {"embed_dim": "24"}}, "cannot be loaded"),
        ({"model_args": {"patch_size": 7}}, "cannot be loaded"),
        ({"num_classes": -1}, "a size that is not"),
        ({"num_classes": 10}, "8 label names for 10 classes"),
        ({"pretrained_cfg": {"mean": [0.5]}}, "three numbers"),
        ({"pretrained_cfg": {"std": [0, 0, 0]}}, "three numbers"),
        ({"pretrained_cfg": {"crop_pct": "wide"}}, "could not convert"),
        ({"pretrained_cfg": {"crop_pct": 0}}, "crop"),
        ({"pretrained_cfg": {"interpolation": "x"}}, "interpolation"),
        ({"ffvit": {"filter": "x"}}, "filter"),
        ({"pretrained_cfg": None}, "another file"),
    ],
)
def test_a_config_that_no_export_would_hold_is_refused(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_saved_model(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b"\xff", b"[" * 100_000])
def test_a_config_that_is_none_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="expected a model's config"):
        load_saved_model(folder)


def test_damaged_weights_are_refused(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    for damaged in (b"", data[: len(data) // 2], b"\xff" * 8 + data[8:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            load_saved_model(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_saved_model(folder)


def test_missing_tensors_are_noticed(folder):
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors.popitem()
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(CheckpointError, match="its tensors are not those"):
        load_saved_model(folder)


def test_an_export_says_all_that_the_run_said(run, folder):
    ours, exported = load_saved_model(run), load_saved_model(folder)
    assert exported.protocol == ours.protocol
    assert (exported.name, exported.num_classes) == (ours.name, ours.num_classes)
    assert exported.options == ours.options


def test_a_run_folder_means_its_best_epoch_and_a_checkpoint_itself(run):
    assert load_saved_model(run).run.step == 8
    path = run / "checkpoints" / "step_00000016.pt"
    assert load_saved_model(path).run.step == 16
    assert load_saved_model(path).run.folder == run


def test_averaged_weights_that_were_not_kept(run, tmp_path):
    state = torch.load(run / "checkpoints" / "best.pt", weights_only=True)
    torch.save(state | {"ema": None}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"training\.ema_decay=0"):
        load_saved_model(tmp_path / "x.pt", weights="averaged")


@pytest.mark.parametrize("section", ["model", "validation"])
def test_options_of_another_version_are_one_line(run, tmp_path, section):
    state = torch.load(run / "checkpoints" / "best.pt", weights_only=True)
    state["config"][section]["future"] = 1
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="use the version that wrote it"):
        load_saved_model(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("name", "num_classes"),
    [
        ("ff_pico", 1000),
        ("ff_tiny_patch16_224", 10),
        pytest.param("ff_base_patch16_224", 1000, marks=pytest.mark.slow),
        pytest.param("ff_tiny_attention_only_patch16_224", 1000, marks=pytest.mark.slow),
    ],
)
def test_a_file_of_weights_tells_its_model_by_its_tensors(name, num_classes, tmp_path):
    torch.manual_seed(5)
    weights = timm.create_model(name, num_classes=num_classes).state_dict()
    torch.save({"model": weights, "model_ema": weights}, tmp_path / "checkpoint.pth")
    for which in ("raw", "averaged"):
        model = load_saved_model(tmp_path / "checkpoint.pth", which)
        assert (model.name, model.num_classes) == (name, num_classes)
        loaded = model.network.state_dict()
        assert all(torch.equal(loaded[key], weights[key]) for key in weights)
    assert model.protocol == EvalProtocol()
    assert model.protocol.resize_side == 256
    names = model.label_names
    assert names is None if num_classes != 1000 else names[0] == "n01440764 tench, Tinca tinca"


def test_the_name_of_another_model_is_given(tmp_path):
    torch.save(timm.create_model("resnet18", num_classes=5).state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"fit none of them; give --name"):
        load_saved_model(tmp_path / "x.pth")
    for name in ("resnet18", "resnet18_blurpool"):  # of the same tensors
        assert load_saved_model(tmp_path / "x.pth", name=name).num_classes == 5
    with pytest.raises(CheckpointError, match="of this VisionTransformer, but"):
        load_saved_model(tmp_path / "x.pth", name="vit_tiny_patch16_224")
    with pytest.raises(ConfigError, match="neither ours nor timm's"):
        load_saved_model(tmp_path / "x.pth", name="resnet_of_mine")


def test_options_that_a_source_has_no_use_for(run, folder):
    with pytest.raises(ConfigError, match="says itself which model"):
        load_saved_model(run, name="ff_pico")
    with pytest.raises(ConfigError, match="holds one set only"):
        load_saved_model(folder, weights="averaged")
    with pytest.raises(ConfigError, match="raw or averaged"):
        load_saved_model(run, weights="ema")


def test_other_files_are_none_of_the_authors(tmp_path):
    for content in ({"model": {"weight": torch.zeros(3)}}, {"head.weight": torch.tensor(1.0)}):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(CheckpointError, match="fit none of them"):
            load_saved_model(tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="damaged or holds something else"):
        load_saved_model(tmp_path / "x.pth")


def test_what_is_nothing_of_all_this(tmp_path):
    for source, found in ((tmp_path, "none of these"), (tmp_path / "none", "nothing")):
        with pytest.raises(CheckpointError, match=f"expected a run folder.*found {found}"):
            load_saved_model(source)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="wait for the run's first epoch"):
        load_saved_model(tmp_path)


def test_a_checkpoint_with_code_in_it_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "best.pt"
    torch.save({"format": 2, "model": print}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_saved_model(tmp_path / "run")
