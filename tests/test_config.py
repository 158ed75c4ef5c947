"""The config: what is refused and how, which source wins, and that every shipped YAML builds."""

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml

from ffvit.config import load_train_config, load_write_config, option_names, to_dict
from ffvit.errors import ConfigError
from ffvit.models import check_resolutions, create_model
from ffvit.options import TrainConfig, WriteSection
from ffvit.schedules import check_lr, check_resolution, resolutions

REPOSITORY = Path(__file__).parents[1]
GOLDEN_OPTIONS = REPOSITORY / "tests" / "golden" / "options.txt"
SHIPPED = sorted(
    path for folder in ("ff_configs", "rn_configs") for path in (REPOSITORY / folder).glob("*.yaml")
)
FFCV_EPOCHS = (16, 24, 32, 40, 56, 88)


@pytest.fixture
def write_yaml(tmp_path):
    def write(text, name="some.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return ["--config", str(path)]

    return write


def test_defaults_without_a_file_name_the_run_train():
    assert load_train_config([]) == (TrainConfig(), "train")


def test_later_files_win_over_earlier_ones_and_the_command_line_over_all(write_yaml):
    first = write_yaml("training: {epochs: 3, seed: 3}\nlr: {lr: 3.0}", "first.yaml")
    second = write_yaml("training: {epochs: 5, seed: 5}", "second.yaml")
    config, name = load_train_config(["--training.seed=7", *first, *second])
    assert (config.lr.lr, config.training.epochs, config.training.seed) == (3.0, 5, 7)
    assert config.training.weight_decay == TrainConfig().training.weight_decay
    assert name == "second"


@pytest.mark.parametrize(
    "argv",
    [
        ["--config", "FILE", "--training.epochs", "5"],
        ["--config-file=FILE", "--training.epochs=5"],
        ["--training.epochs=5", "--config-file", "FILE"],
    ],
)
def test_both_spellings_of_the_config_flag_and_both_forms_of_a_value(write_yaml, argv):
    _, path = write_yaml("training: {epochs: 3}", "base.yaml")
    config, name = load_train_config([word.replace("FILE", path) for word in argv])
    assert (config.training.epochs, name) == (5, "base")


def test_environment_variables_change_nothing(monkeypatch):
    monkeypatch.setenv("training.epochs", "7")
    assert load_train_config(["--training.seed=5"])[0].training.epochs == 88


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("lr.lr", "1e-3", 0.001),
        ("lr.lr", "2", 2.0),
        ("training.epochs", "16", 16),
        ("training.epochs", "-1", -1),
        ("data.flip", "False", False),
        ("data.flip", "no", False),
        ("data.flip", "0", False),
        ("training.compile", "true", True),
        ("training.compile", "on", True),
        ("run.folder", "", ""),
        ("run.folder", "a=b", "a=b"),
    ],
)
@pytest.mark.parametrize("source", ["command line", "yaml"])
def test_values_are_read_as_their_type(write_yaml, option, text, value, source):
    section, name = option.split(".")
    argv = [f"--{option}={text}"]
    if source == "yaml":
        argv = write_yaml(f"{section}:\n  {name}: {text or repr('')}")
    read = getattr(getattr(load_train_config(argv)[0], section), name)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("training.epochs", "abc", "a whole number"),
        ("training.epochs", "1.5", "a whole number"),
        ("training.epochs", "true", "a whole number"),
        ("training.epochs", "[1]", "a whole number"),
        ("training.epochs", "{a: 1}", "a whole number"),
        ("lr.lr", "fast", "a number"),
        ("lr.lr", "nan", "a number"),
        ("lr.lr", "1e999", "a number"),
        ("data.flip", "maybe", "true or false"),
        ("data.flip", "2", "true or false"),
    ],
)
@pytest.mark.parametrize("source", ["command line", "yaml"])
def test_a_value_of_the_wrong_type_is_refused_with_its_origin(
    write_yaml, option, text, expected, source
):
    section, name = option.split(".")
    argv = [f"--{option}={text}"]
    if source == "yaml":
        argv = write_yaml(f"{section}:\n  {name}: {text}")
        source = argv[-1]
    with pytest.raises(ConfigError) as error:
        load_train_config(argv)
    assert str(error.value).startswith(f"{source}: option '{option}' expects {expected}, got ")


def test_yaml_numbers_and_booleans_are_no_text(write_yaml):
    for value in ("3", "true", "2026-01-01"):
        with pytest.raises(ConfigError, match=r"'model.name' expects text"):
            load_train_config(write_yaml(f"model:\n  name: {value}"))


def test_an_unknown_key_is_refused_with_the_nearest_name(write_yaml):
    argv = write_yaml("training: {epohcs: 99}")
    with pytest.raises(ConfigError) as error:
        load_train_config(argv)
    assert str(error.value) == (
        f"{argv[-1]}: unknown option 'training.epohcs'; did you mean 'training.epochs'?"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--trainig.epochs=1"], "command line: unknown .*; did you mean 'training.epochs'"),
        (["--zzz=1"], "command line: unknown option 'zzz'; see --help"),
        (["--training.epochs"], "--training.epochs has no value"),
        (["--training.epochs", "--lr.lr=1"], "--training.epochs has no value"),
        (["--config"], "--config has no value"),
        (["base.yaml"], "expected --option=value, got 'base.yaml'"),
    ],
)
def test_a_malformed_command_line_is_refused(argv, message):
    with pytest.raises(ConfigError, match=message):
        load_train_config(argv)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected sections with options"),
        ("- training", "expected sections with options"),
        ("epochs: 3", "expected sections with options"),
        ("training: {epochs: 3", "expected YAML"),
        ("training: {epochs: 3}\ntraining: {seed: 1}", "'training' stands twice"),
        ("training: {epochs: 3, epochs: 4}", "'epochs' stands twice"),
        ("training:\n  epochs:", "'training.epochs' has no value"),
    ],
)
def test_a_malformed_file_is_refused_by_name(write_yaml, text, message):
    argv = write_yaml(text, "broken.yaml")
    with pytest.raises(ConfigError, match=rf"broken\.yaml: .*{message}"):
        load_train_config(argv)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path):
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=rf"{path}: cannot read .*{reason}"):
            load_train_config(["--config", str(path)])


def test_the_writers_options_need_no_section_and_take_no_file():
    assert load_write_config(["--mode=raw", "--max_side", "256"]) == dataclasses.replace(
        WriteSection(), mode="raw", max_side=256
    )
    with pytest.raises(ConfigError, match="unknown option 'max_sied'; did you mean 'max_side'"):
        load_write_config(["--max_sied=3"])
    with pytest.raises(ConfigError, match="takes no --config"):
        load_write_config(["--config=a.yaml"])


@pytest.mark.parametrize(
    ("load", "option"),
    [(load_train_config, "--training.epochs"), (load_write_config, "--max_side")],
)
def test_help_lists_the_options_and_exits_with_0(load, option, capsys):
    with pytest.raises(SystemExit) as stop:
        load(["--help"])
    assert stop.value.code == 0
    assert option in capsys.readouterr().out


def test_the_list_of_options_is_the_golden_one():
    """A new option is a decision: a shipped config uses it, and the golden file lists it."""
    options = [f"train_imagenet.py --{name}" for name in option_names(TrainConfig)]
    options += [f"write_imagenet.py --{field.name}" for field in dataclasses.fields(WriteSection)]
    assert GOLDEN_OPTIONS.read_text().splitlines() == options


def test_every_option_has_a_default_of_its_type_and_one_line_of_help():
    sections = [getattr(TrainConfig(), field.name) for field in dataclasses.fields(TrainConfig)]
    for section in [*sections, WriteSection()]:
        for field in dataclasses.fields(section):
            assert type(field.default) is field.type
            assert 10 < len(field.metadata["help"]) < 100


def test_a_dumped_config_reads_back_as_itself(write_yaml):
    config, _ = load_train_config(["--lr.lr=0.00001", "--model.name=ff_pico", "--data.flip=no"])
    assert load_train_config(write_yaml(yaml.safe_dump(to_dict(config))))[0] == config


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_loads_and_its_model_runs_its_resolutions(path):
    config, name = load_train_config(["--config", str(path)])
    assert name == path.stem
    check_lr(config.lr, config.training.epochs)
    check_resolution(config.resolution)
    with torch.device("meta"):
        model = create_model(config.model, config.model.num_classes or 7)
    used = resolutions(config.resolution, config.training.epochs)
    assert used[0] == config.resolution.min_res
    assert used[-1] == config.resolution.max_res
    check_resolutions(config.model.name, model, [*used, config.validation.resolution])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_tells_its_origin_command_result_and_cost(path):
    text = path.read_text()
    header = text.partition("\n\n")[0].replace("\n#", "")
    for key in ("Command:", "Top-1:", "Cost:", "Protocol:"):
        assert key in header
    assert "Paper:" in header or "Source:" in header
    assert f"--config {path.parent.name}/{path.resolve().name}" in header  # base.yaml is a link
    assert "measured" in header.partition("Top-1:")[2].partition("Cost:")[0]
    assert "measured" in header.partition("Cost:")[2].partition("Protocol:")[0]


def test_every_option_is_set_by_a_shipped_config():
    """An option that no recipe needs is one too many."""
    used = set()
    for path in SHIPPED:
        sections = yaml.safe_load(path.read_text())
        used |= {f"{section}.{name}" for section, options in sections.items() for name in options}
    assert used == set(option_names(TrainConfig))


def test_both_families_are_complete():
    sizes = ("tiny", "base", "large")
    ours = {f"{size}_{e}_epochs.yaml" for size in sizes for e in FFCV_EPOCHS}
    ours |= {f"{size}_300_paper.yaml" for size in sizes} | {f"{size}.yaml" for size in sizes}
    ours |= {"quickstart.yaml", "imagenette.yaml"}
    published = {f"rn{size}_{e}_epochs.yaml" for size in (18, 50) for e in FFCV_EPOCHS}
    assert {path.name for path in SHIPPED} >= ours | published


@pytest.mark.parametrize("epochs", FFCV_EPOCHS)
@pytest.mark.parametrize("size", [18, 50])
def test_resnet_configs_hold_ffcv_imagenets_values(size, epochs):
    """Read in libffcv/ffcv-imagenet@4dd291a; its warm-up starts at 1e-4 of the peak."""
    path = REPOSITORY / "rn_configs" / f"rn{size}_{epochs}_epochs.yaml"
    config, _ = load_train_config(["--config", str(path)])
    lr, batch_size, weight_decay = {18: (0.5, 1024, 5e-5), 50: (1.7, 8 * 512, 1e-4)}[size]
    ramps = {16: (11, 13), 24: (17, 20), 32: (23, 27), 40: (29, 34), 56: (41, 48), 88: (65, 76)}
    training, resolution = config.training, config.resolution
    assert config.model.name == f"resnet{size}_blurpool"
    assert (config.lr.lr, config.lr.schedule, config.lr.min_lr) == (lr, "linear", 0.0)
    assert (config.lr.warmup_epochs, config.lr.warmup_lr) == (2, pytest.approx(1e-4 * lr))
    assert training.global_batch_size == config.lr.base_batch_size == batch_size
    assert (training.optimizer, training.momentum) == ("sgd", 0.9)
    assert (training.weight_decay, training.label_smoothing) == (weight_decay, 0.1)
    assert training.epochs == epochs
    assert (resolution.start_ramp, resolution.end_ramp) == ramps[epochs]
    assert (resolution.min_res, resolution.max_res, resolution.multiple) == (160, 192, 32)
    assert (config.validation.resolution, config.validation.ratio) == (256, 224 / 256)
    assert config.validation.flip_average
