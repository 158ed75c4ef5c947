"""Exported models give the same logits in timm, ONNX Runtime and torch.export as here."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import timm
import torch
import yaml
from trained_run import IMAGE_SIZE, NUM_CLASSES, PATCH_SIZE, write_run

from ffvit.__main__ import main
from ffvit.errors import ConfigError
from ffvit.models import graphs
from ffvit.models.loading import load_saved_model
from ffvit.options import ModelSection

ATOL = 1e-5


def export(source, out, *options):
    main(["export", str(source), str(out), *options])


def images(batch_size=3, side=IMAGE_SIZE):
    return torch.randn(batch_size, 3, side, side, generator=torch.Generator().manual_seed(1))


def logits(network, batch):
    with torch.inference_mode():
        return network.eval()(batch)


def require_onnx():
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'ffvit[onnx]'")


@pytest.fixture(scope="module")
def expected(run_folder):
    return logits(load_saved_model(run_folder).network, images())


def test_timm_loads_the_folder(exported_folder, expected):
    model = timm.create_model(f"local-dir:{exported_folder}", pretrained=True)
    assert model.num_classes == NUM_CLASSES
    torch.testing.assert_close(logits(model, images()), expected, atol=ATOL, rtol=0)


def test_timm_loads_the_weights_as_a_checkpoint(exported_folder, expected):
    model = timm.create_model(
        "ff_pico",
        checkpoint_path=exported_folder / "model.safetensors",
        num_classes=NUM_CLASSES,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        embed_dim=24,
        depth=2,
    )
    torch.testing.assert_close(logits(model, images()), expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize(
    "imports",
    [
        # What transformers does to see whether timm is there.
        "import ffvit, importlib.util as u; assert u.find_spec('timm'); import timm",
        pytest.param("import ffvit, timm", marks=pytest.mark.slow),
        pytest.param("import timm, ffvit", marks=pytest.mark.slow),
    ],
)
def test_importing_ffvit_is_enough_for_timm(imports):
    program = f"{imports}; assert timm.is_model('ff_pico')"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_importing_ffvit_alone_imports_neither_timm_nor_torch():
    program = "import ffvit, sys; assert not {'timm', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_timms_transform_is_the_runs(exported_folder):
    model = timm.create_model(f"local-dir:{exported_folder}")
    config = timm.data.resolve_model_data_config(model)
    assert list(config["input_size"]) == [3, IMAGE_SIZE, IMAGE_SIZE]
    assert config["crop_pct"] == 0.875
    assert config["interpolation"] == "bicubic"
    assert list(config["mean"]) == [0.485, 0.456, 0.406]
    assert model.pretrained_cfg["label_names"] == [f"class_{k}" for k in range(NUM_CLASSES)]


@pytest.mark.parametrize("weights", ["raw", "averaged"])
@pytest.mark.parametrize(("name", "step"), [("", 8), ("checkpoints/step_00000016.pt", 16)])
def test_any_of_a_runs_weights_can_be_exported(run_folder, tmp_path, name, weights, step):
    export(run_folder / name, tmp_path / "out", f"--weights={weights}")
    path = run_folder / "checkpoints" / f"step_{step:08d}.pt"
    state = torch.load(path, weights_only=True)["model" if weights == "raw" else "ema"]
    exported = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[name], state[name]) for name in state)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{weights}, after update {step}" in card
    assert ("25.00%" if weights == "averaged" or step == 16 else "50.00%") in card


@pytest.mark.slow
@pytest.mark.parametrize("side", [24, IMAGE_SIZE, 56])
def test_onnx_runtime_gives_the_same_logits(run_folder, tmp_path, side):
    require_onnx()
    export(run_folder, tmp_path / "out", f"--resolutions={side}", "--onnx", "--torch_export")
    session = graphs.open_onnx(tmp_path / "out" / "onnx" / f"model_{side}.onnx")
    program = torch.export.load(tmp_path / "out" / f"model_{side}.pt2").module()
    network = load_saved_model(run_folder).network
    for batch_size in (1, 5):
        batch = images(batch_size, side)
        here = logits(network, batch)
        (there,) = session.run(["logits"], {"images": batch.numpy()})
        torch.testing.assert_close(torch.from_numpy(there), here, atol=ATOL, rtol=0)
        torch.testing.assert_close(program(batch), here, atol=ATOL, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18_blurpool", "ff_tiny_attention_only_patch16_224", "vit_tiny_patch16_224"]
)
def test_other_models_leave_too(tiny_betons, tmp_path, name):
    require_onnx()
    size = 0 if name.startswith("resnet") else 64
    section = ModelSection(name=name, image_size=size)
    run = write_run(tmp_path / "run", tiny_betons, section, image_size=64)
    export(run, tmp_path / "out", "--onnx")
    batch = images(side=64)
    here = logits(load_saved_model(run).network, batch)
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    torch.testing.assert_close(logits(model, batch), here, atol=ATOL, rtol=0)
    session = graphs.open_onnx(tmp_path / "out" / "onnx" / "model_64.onnx")
    (there,) = session.run(["logits"], {"images": batch.numpy()})
    scale = max(1.0, float(here.abs().max()))
    torch.testing.assert_close(torch.from_numpy(there), here, atol=ATOL * scale, rtol=0)


@pytest.mark.slow
def test_a_graph_that_differs_is_noticed(run_folder, tmp_path):
    require_onnx()
    model = load_saved_model(run_folder).network
    graphs.save_onnx(graphs.export_graph(model, 24), tmp_path / "model.onnx")
    with torch.no_grad():
        model.head.bias[0] += 1e-3
    with pytest.raises(RuntimeError, match=r"differ from torch's by 0\.001"):
        graphs.onnx_difference(model, tmp_path / "model.onnx", 24)


def test_missing_onnx_packages_are_named_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"onnxruntime.*ffvit\[onnx\]"):
        graphs.check_onnx_is_installed()
    with pytest.raises(SystemExit, match="2"):
        export(tmp_path / "none", tmp_path / "out", "--onnx")


def test_the_card_says_what_was_measured_and_names_no_folder(exported_folder, run_folder):
    card = (exported_folder / "README.md").read_text()
    front, text = card.split("---\n")[1:3]
    assert yaml.safe_load(front)["library_name"] == "timm"
    for words in ("50.00% on 24 validation images", "1 of 2", "40 px (area)", "commit", "| 64 |"):
        assert words in text
    assert "class_0, class_1" in text
    assert str(run_folder.parent) not in card
    assert ".beton" not in card


@pytest.mark.parametrize("form", ["this folder", "by name"])
def test_the_cards_lines_for_timm_work(exported_folder, monkeypatch, form):
    card = (exported_folder / "README.md").read_text()
    imports, rest = card.split("```python\n")[1].split("\n\n")[:2]
    this_folder, by_name = rest.split("# or by name:\n")
    monkeypatch.chdir(exported_folder)
    names = {}
    exec("\n".join([imports, this_folder if form == "this folder" else by_name]), names)
    loaded, weights = names["model"].state_dict(), safetensors.torch.load_file("model.safetensors")
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_an_update_without_a_measurement_is_not_given_one(tiny_betons, tmp_path):
    run = write_run(tmp_path / "run", tiny_betons)
    path = run / "checkpoints" / "step_00000016.pt"
    state = torch.load(path, weights_only=True)
    later = path.with_name("step_00000019.pt")
    torch.save(state | {"step": 19}, later)
    export(later, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "not measured" in card
    assert "%" not in card.split("## Use")[0].split("|---|")[1]


def test_the_authors_file_leaves_too(tmp_path):
    weights = timm.create_model("ff_pico").state_dict()
    torch.save({"model": weights}, tmp_path / "his.pth")
    export(tmp_path / "his.pth", tmp_path / "out")
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "from his.pth, raw weights" in card
    assert "not measured here" in card
    assert "n01440764 tench" in card


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resolutions=41", "--torch_export"], "resolution 41 does not suit ff_pico"),
        (["--resolutions=40"], "give --onnx or --torch_export with it"),
        (["--resolutions=large", "--torch_export"], "expected pixels, separated by commas"),
        (["--weights=ema"], "expected raw or averaged"),
        (["--name=ff_pico"], "says itself which model it is"),
    ],
)
def test_wrong_options_are_one_line_and_leave_nothing(
    run_folder, tmp_path, capsys, options, message
):
    with pytest.raises(SystemExit, match="2"):
        export(run_folder, tmp_path / "out", *options)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(run_folder, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        export(run_folder, tmp_path)
    assert "expected a new folder" in capsys.readouterr().err


def test_nothing_is_left_of_an_export_that_failed(tiny_betons, tmp_path):
    run = write_run(tmp_path / "runs" / "x", tiny_betons)
    (run / "log.jsonl").unlink()
    with pytest.raises(SystemExit, match="2"):
        export(run, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_the_command_prints_what_it_wrote(run_folder, tmp_path, capsys):
    export(run_folder, tmp_path / "out", "--weights=averaged")
    printed = capsys.readouterr().out
    assert "averaged weights after update 8" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        line.split()[0] for line in printed.splitlines()[1:]
    }
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architecture"] == "ff_pico"


def test_a_run_whose_beton_is_gone_has_no_class_names(tiny_betons, tmp_path, capsys):
    away = {split: tmp_path / f"{split}.beton" for split in tiny_betons}
    run = write_run(tmp_path / "run", away)
    export(run, tmp_path / "out")
    assert "its classes have no names" in capsys.readouterr().out
    assert "label_names" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_a_beton_with_other_classes_does_not_name_them(tiny_betons, tmp_path, capsys):
    run = write_run(tmp_path / "run", tiny_betons, num_classes=7)
    with pytest.raises(SystemExit, match="2"):
        export(run, tmp_path / "out")
    assert "expected the 7 classes" in capsys.readouterr().err
