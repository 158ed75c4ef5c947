"""The run folder: what is written, what survives a kill, and what is read back."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ffvit.config import load_train_config, to_dict
from ffvit.environment import describe_environment
from ffvit.errors import UserError
from ffvit.progress import describe_step
from ffvit.runlog import RunLog, load_run, read_log

CONFIG = to_dict(load_train_config([])[0])
ENVIRONMENT = {"python": "3", "gpus": []}
STEP = {
    "loss": 0.5,
    "learning_rate": 1e-3,
    "resolution": 64,
    "images_per_s": 1234.5,
    "data_wait_fraction": 0.034,
}
END = {"kind": "end", "status": "finished", "reason": ""}


def open_log(folder, is_primary=True, epochs_done=9, steps_done=99, watchers=()):
    return RunLog.open(folder, CONFIG, ENVIRONMENT, is_primary, epochs_done, steps_done, watchers)


def record_epochs(folder, epochs, **values):
    with open_log(folder) as log:
        for epoch in epochs:
            log.record("epoch", epoch=epoch, top_1=epoch / 10, **values)


def killed(path):
    """Take the last record away, which tells how a run ended."""
    *lines, end = path.read_text().splitlines(keepends=True)
    assert json.loads(end) == END
    path.write_text("".join(lines))


def table_of(folder):
    return list(csv.DictReader((folder / "log.csv").read_text().splitlines()))


def test_a_run_folder_holds_config_environment_and_records_in_order(tmp_path):
    folder = tmp_path / "runs" / "a"
    with open_log(folder) as log:
        log.record("run", world_size=2)
        log.record("step", step=3, loss=0.25)
        log.add_warning("no room")
    assert read_log(folder) == [
        {"kind": "run", "world_size": 2},
        {"kind": "step", "step": 3, "loss": 0.25},
        {"kind": "warning", "text": "no room"},
        END,
    ]
    assert json.loads((folder / "environment.json").read_text()) == ENVIRONMENT
    loaded, _ = load_train_config(["--config", str(folder / "config.yaml")])
    assert to_dict(loaded) == CONFIG
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.yaml",
        "environment.json",
        "log.jsonl",
    ]


def test_records_are_on_disk_before_the_log_is_closed(tmp_path):
    with open_log(tmp_path) as log:
        log.record("step", step=1)
        assert read_log(tmp_path) == [{"kind": "step", "step": 1}]


def test_other_processes_write_and_print_nothing(tmp_path, capsys):
    with open_log(tmp_path / "run", is_primary=False) as log:
        log.record("epoch", epoch=1)
        log.line("hello")
        with log.progress("epoch 1/2", total=3) as progress:
            progress.advance()
            progress.show(STEP)
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr() == ("", "")


def test_an_unknown_kind_is_refused_on_every_process(tmp_path):
    for is_primary in (True, False):
        with open_log(tmp_path, is_primary) as log, pytest.raises(ValueError, match="'epohc'"):
            log.record("epohc", epoch=1)


def test_numbers_that_are_not_finite_become_null_and_other_objects_are_refused(tmp_path):
    with open_log(tmp_path) as log:
        log.record("step", step=1, loss=float("nan"), peak=float("inf"), text="nan")
        with pytest.raises(TypeError):
            log.record("step", step=2, loss=object())
    assert read_log(tmp_path) == [
        {"kind": "step", "step": 1, "loss": None, "peak": None, "text": "nan"},
        END,
    ]


def test_epochs_become_a_table_with_every_column_that_occurs(tmp_path):
    record_epochs(tmp_path, [1])
    record_epochs(tmp_path, [2], loss=0.5)
    rows = table_of(tmp_path)
    assert rows == [
        {"epoch": "1", "top_1": "0.1", "loss": ""},
        {"epoch": "2", "top_1": "0.2", "loss": "0.5"},
    ]


def test_a_resumed_run_drops_what_it_will_do_again_and_appends(tmp_path):
    with open_log(tmp_path) as log:
        for epoch in (1, 2):
            log.record("run", first_epoch=epoch)
            log.record("step", epoch=epoch, step=10 * epoch - 5)
            log.record("step", epoch=epoch, step=10 * epoch)
            log.record("epoch", epoch=epoch, step=10 * epoch)
    with open_log(tmp_path, epochs_done=1, steps_done=15) as log:
        kept = [(r["kind"], r.get("step")) for r in read_log(tmp_path) if r["kind"] != "end"]
        assert kept == [
            ("run", None),
            ("step", 5),
            ("step", 10),
            ("epoch", 10),
            ("run", None),
            ("step", 15),
        ]
        log.record("step", epoch=2, step=20)
        log.record("epoch", epoch=2, step=20)
    run = load_run(tmp_path)
    assert [step["step"] for step in run.steps] == [5, 10, 15, 20]
    assert [epoch["epoch"] for epoch in run.epochs] == [1, 2]
    assert [row["epoch"] for row in table_of(tmp_path)] == ["1", "2"]


def test_a_run_that_starts_anew_keeps_no_step(tmp_path):
    record_epochs(tmp_path, [1, 2])
    with open_log(tmp_path, epochs_done=0, steps_done=0):
        assert read_log(tmp_path) == [END]


@pytest.mark.parametrize("num_bytes_lost", [1, 2, 9, 30])
def test_half_a_line_is_skipped_by_readers_and_removed_by_the_next_run(tmp_path, num_bytes_lost):
    record_epochs(tmp_path, [1, 2])
    path = tmp_path / "log.jsonl"
    killed(path)
    os.truncate(path, path.stat().st_size - num_bytes_lost)
    # Without its line end the record is whole.
    epochs = [1, 2] if num_bytes_lost == 1 else [1]
    assert [record["epoch"] for record in read_log(tmp_path)] == epochs
    record_epochs(tmp_path, [3])
    assert [record.get("epoch") for record in read_log(tmp_path)] == [*epochs, 3, None]
    assert len(path.read_text().splitlines()) == len(epochs) + 2


def test_a_kill_within_a_character_is_half_a_line_too(tmp_path):
    record_epochs(tmp_path, [1])
    path = tmp_path / "log.jsonl"
    path.write_bytes(path.read_bytes() + '{"kind": "run", "name": "é'.encode()[:-1])
    assert len(read_log(tmp_path)) == 2
    record_epochs(tmp_path, [2])
    assert len(read_log(tmp_path)) == 4


def test_damage_elsewhere_names_the_line(tmp_path):
    record_epochs(tmp_path, [1, 2])
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text().replace('{"kind": "epoch", "epoch": 1', "rubbish"))
    with pytest.raises(UserError, match=r"log\.jsonl: line 1 is not a record"):
        read_log(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write this run folder.*--run\.folder"):
        open_log(tmp_path / "file")


def test_a_run_tells_of_its_latest_start(tmp_path):
    record_epochs(tmp_path, [1])
    with open_log(tmp_path) as log:
        log.record("run", world_size=1)
        log.record("run", world_size=2)
    run = load_run(tmp_path)
    assert run.start["world_size"] == 2
    assert run.config["training"]["epochs"] == CONFIG["training"]["epochs"]


def test_progress_prints_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    with open_log(tmp_path) as log:
        log.line("hello")
        with log.progress("epoch 1/2", total=7) as progress:
            for _ in range(3):
                progress.advance()
            progress.show(STEP)
    assert capsys.readouterr().err.splitlines() == [
        "hello",
        "epoch 1/2  step 3/7  1,234 images/s  loss 0.500  lr 0.001  64 px  data wait 3%",
    ]


def test_progress_shows_time_left_and_utilization_where_they_are_measured():
    text = describe_step(STEP | {"time_left_s": 7380.0, "mfu": 0.412})
    assert text.endswith("data wait 3%  2.05 h left  MFU 41%")
    assert "left" not in describe_step(STEP | {"time_left_s": None})


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (None, "finished", ""),
        (SystemExit(75), "stopped", "the same command goes on"),
        (KeyboardInterrupt(), "stopped", "the same command goes on"),
        (UserError("step 7: no loss"), "failed", "step 7: no loss"),
        (RuntimeError("boom"), "failed", "RuntimeError: boom"),
    ],
)
def test_the_log_tells_how_a_run_ended(tmp_path, error, status, reason):
    record_epochs(tmp_path, [1])
    with contextlib.suppress(BaseException), open_log(tmp_path) as log:
        log.record("run", world_size=1)
        assert load_run(tmp_path).end is None
        if error is not None:
            raise error
    end = load_run(tmp_path).end
    assert end["status"] == status
    assert reason in end["reason"]


def test_watchers_get_each_record_after_it_was_written_and_may_fail(tmp_path, capsys):
    seen = []

    def watcher(run, record):
        assert read_log(run.folder)[-1] == record
        assert run.records[-1] == record
        seen.append(record["kind"])
        if record["kind"] == "step":
            raise OSError("no room for the page")

    with open_log(tmp_path, watchers=[watcher]) as log:
        log.record("run", world_size=1)
        log.record("step", step=1)
    assert seen == ["run", "step", "end"]
    assert "WARNING: no room for the page" in capsys.readouterr().err


def test_a_watcher_that_goes_on_failing_is_reported_once(tmp_path, capsys):
    def fail(_, record):
        raise OSError(28, "no room", record["kind"])

    with open_log(tmp_path / "run", watchers=[fail]) as log:
        for step in range(3):
            log.record("step", epoch=1, step=step, **STEP)
    shown = capsys.readouterr().err
    assert shown == "WARNING: step: no room\nWARNING: end: no room\n"


def test_a_run_outlives_a_full_disk_under_its_own_output(tmp_path, monkeypatch):
    def write(_):
        raise OSError(28, "No space left on device")

    with open_log(tmp_path / "run") as log:
        monkeypatch.setattr(sys.stderr, "write", write)
        log.line("a line that nobody will read")
        log.record("step", epoch=1, step=1, **STEP)
    assert read_log(tmp_path / "run")[0]["kind"] == "step"


def test_watchers_of_other_processes_hear_nothing(tmp_path):
    with open_log(tmp_path, is_primary=False, watchers=[lambda *_: pytest.fail("told")]) as log:
        log.record("step", step=1)


def test_progress_is_a_bar_on_a_terminal_and_lines_go_above_it(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with open_log(tmp_path) as log:
        with log.progress("epoch 1/2", total=7) as progress:
            for _ in range(7):
                progress.advance()
            progress.show(STEP)
            log.line("in between")
        log.line("after")
    shown = terminal.getvalue()
    assert "epoch 1/2: 100%" in shown
    assert "7/7" in shown
    assert "1,234 images/s" in shown
    assert "in between\n" in shown
    assert shown.endswith("after\n")


def test_environment_tells_versions_and_cores_but_not_the_machines_name():
    environment = describe_environment()
    assert environment["packages"]["torch"]
    assert environment["num_cpu_cores"] == len(os.sched_getaffinity(0))
    assert environment["cpu"]
    assert os.uname().nodename not in json.dumps(environment).split('"')
    assert yaml.safe_load(json.dumps(environment)) == environment


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_environment_names_the_commit_and_changes_of_a_checkout(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True)

    source = tmp_path / "ffvit" / "environment.py"
    source.parent.mkdir()
    source.write_text("")
    monkeypatch.setattr("ffvit.environment.__file__", str(source))
    assert describe_environment()["git_commit"] is None
    assert describe_environment()["git_is_dirty"] is None
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    environment = describe_environment()
    assert re.fullmatch("[0-9a-f]{40}", environment["git_commit"])
    assert environment["git_is_dirty"] is False
    source.write_text("changed")
    assert describe_environment()["git_is_dirty"] is True


def test_reading_a_log_needs_neither_torch_nor_ffcv():
    program = "import sys, ffvit.runlog; print({'torch', 'ffcv', 'timm'} & set(sys.modules))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    output = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True)
    assert output.strip() == "set()"


def test_records_wait_for_room_on_a_full_disk_and_are_written_in_order(tmp_path, capsys):
    with open_log(tmp_path) as log:
        log.record("step", step=1)
        disk, log._file = log._file, io.FileIO("/dev/full", "w")
        log.record("step", step=2)
        log.record("epoch", epoch=1)
        assert "cannot be written (No space left on device); 2 records wait" in (
            capsys.readouterr().err
        )
        log._file.close()
        log._file = disk
        log.record("step", step=3)
        assert [r.get("step") for r in read_log(tmp_path)] == [1, 2, None, 3]
        assert [row["epoch"] for row in table_of(tmp_path)] == ["1"]


def test_a_run_whose_last_records_found_no_room_ends_with_an_error(tmp_path):
    with pytest.raises(UserError, match=r"log\.jsonl: expected room for the last records"):  # noqa: PT012, SIM117
        with open_log(tmp_path) as log:
            log._file.close()
            log._file = io.FileIO("/dev/full", "w")
            log.record("step", step=2)
