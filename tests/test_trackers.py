"""TensorBoard, read back by its own reader; Weights & Biases offline; and what is refused."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ffvit.config import load_train_config, to_dict
from ffvit.errors import ConfigError, TrackerError
from ffvit.runlog import RunLog
from ffvit.trackers import check_trackers, create_trackers, figures

CONFIG = to_dict(load_train_config([])[0])
ROOT = Path(__file__).resolve().parents[1]


def record_run(folder, trackers, first_step=1, last_step=6, steps_done=0):
    watchers = create_trackers(trackers)
    with RunLog.open(folder, CONFIG, {"cpu": "x"}, True, 0, steps_done, watchers) as log:
        log.record("run", first_step=first_step)
        for step in range(first_step, last_step + 1):
            log.record("step", epoch=1, step=step, loss=1 / step, images_per_s=100.0 * step)
        log.record("epoch", epoch=1, step=last_step, top_1=0.5, num_samples=7, loss=None)


def scalars(folder):
    """Read (step, value) of each figure as `tensorboard` would show it."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard"
    )
    events = accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }, events


def test_tensorboard_shows_the_figures_of_steps_and_epochs(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    record_run(tmp_path, "tensorboard")
    shown, events = scalars(tmp_path)
    assert shown.keys() == {
        "train/loss",
        "train/images_per_s",
        "epoch/top_1",
        "epoch/num_samples",
    }
    assert shown["train/loss"] == [(step, pytest.approx(1 / step)) for step in range(1, 7)]
    assert shown["epoch/top_1"] == [(6, 0.5)]
    (text,) = events.Tensors("config/text_summary")
    assert "    training.epochs: 88" in text.tensor_proto.string_val[0].decode()


def test_tensorboard_forgets_what_a_resumed_run_does_again(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    record_run(tmp_path, "tensorboard")
    record_run(tmp_path, "tensorboard", first_step=4, last_step=8, steps_done=3)
    shown, _ = scalars(tmp_path)
    assert [step for step, _ in shown["train/loss"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [step for step, _ in shown["epoch/top_1"]] == [8]


def test_tensorboard_files_that_cannot_be_written_are_one_warning(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  optional

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    record_run(tmp_path, "tensorboard")
    shown = capsys.readouterr().err
    assert shown.count("TensorBoard gets no more records (No space left on device)") == 1


@pytest.fixture
def stand_in(monkeypatch):
    """A stand-in for wandb that keeps what it is given."""
    calls = []

    class Error(Exception):
        pass

    class Run:
        def log(self, values, step):
            calls.append(("log", step, values))

        def finish(self, exit_code):
            calls.append(("finish", exit_code))

    def init(**options):
        calls.append(("init", options))
        return Run()

    module = SimpleNamespace(
        init=init, errors=SimpleNamespace(Error=Error), __spec__=SimpleNamespace(), calls=calls
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_gets_the_config_and_each_record_and_goes_on_under_its_id(tmp_path, stand_in):
    folder = tmp_path / "some_run"
    record_run(folder, "wandb", last_step=2)
    (_, options), *logged, end = stand_in.calls
    assert options["config"]["training"]["epochs"] == 88
    assert (options["name"], options["resume"], options["dir"]) == (
        "some_run",
        "allow",
        str(folder),
    )
    assert logged == [
        ("log", 1, {"train/loss": 1.0, "train/images_per_s": 100.0}),
        ("log", 2, {"train/loss": 0.5, "train/images_per_s": 200.0}),
        ("log", 2, {"epoch/top_1": 0.5, "epoch/num_samples": 7}),
    ]
    assert end == ("finish", 0)
    record_run(folder, "wandb", last_step=2)
    assert [call[1]["id"] for call in stand_in.calls if call[0] == "init"] == [options["id"]] * 2


def test_wandb_that_cannot_start_is_one_line(tmp_path, stand_in):
    def refuse(**_):
        raise stand_in.errors.Error("api_key not configured")

    stand_in.init = refuse
    with pytest.raises(TrackerError, match=r"cannot start \(api_key not configured\); run `wandb"):
        record_run(tmp_path, "wandb")


@pytest.mark.slow
def test_wandb_itself_keeps_an_offline_run_without_network(tmp_path):
    pytest.importorskip("wandb", reason="needs wandb")
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; import test_trackers; "
        "test_trackers.record_run(Path(sys.argv[1]) / 'some_run', 'wandb')"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(ROOT / "tests"), str(ROOT)],
        env=os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)},
        check=True,
        timeout=120,
    )
    (stored,) = (tmp_path / "some_run" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"train/images_per_s" in stored.read_bytes()


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        ("tensorbord", r"run\.trackers=tensorbord: expected tensorboard, wandb; change it"),
        ("wandb,x", r"run\.trackers=wandb,x: expected tensorboard, wandb"),
        ("tensorboard", r"the package tensorboard, which is not installed; give `pip install tens"),
        (" wandb , tensorboard", r"the package wandb, which is not installed"),
    ],
)
def test_unknown_trackers_and_missing_packages_are_one_line(monkeypatch, trackers, message):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name != "x" else 1)
    if trackers == "wandb,x":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=message):
        check_trackers(trackers)


def test_no_tracker_needs_no_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", pytest.fail)
    check_trackers("")
    assert create_trackers("") == []


def test_figures_are_numbers_only():
    record = {
        "kind": "epoch",
        "epoch": 3,
        "step": 9,
        "top_1": 0.5,
        "note": "x",
        "sizes": [1],
        "n": None,
    }
    assert figures(record) == {"epoch/top_1": 0.5}
    assert figures({"kind": "warning", "text": "x"}) == {}
