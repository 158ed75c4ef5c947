"""When a run is saved, with a trainer that only counts."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from ffvit import saving
from ffvit.checkpoint import CheckpointFolder
from ffvit.distributed import Ranks, Vote
from ffvit.errors import CheckpointError, ConfigError
from ffvit.options import RunSection
from ffvit.saving import EXIT_PREEMPTED, Saver, check_saving

RANKS = Ranks(0, 0, 1, 1, torch.device("cpu"))
SECTION = RunSection(checkpoint_minutes=0, checkpoint_steps=0)


class Trainer:
    step = 0

    def state_dict(self):
        return {"step": self.step}


class Log:
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)

    def add_warning(self, text):
        self.lines.append(f"WARNING: {text}")


@pytest.fixture
def make(tmp_path):
    def make(section=SECTION):
        trainer, log = Trainer(), Log()
        checkpoints = CheckpointFolder(tmp_path, keep=9)
        progress = {"epoch": 0, "elapsed_s": 100.0}
        return trainer, log, Saver(checkpoints, section, RANKS, log, trainer, {}, progress)

    return make


def train(trainer, saver, steps):
    for step in steps:
        trainer.step = step
        saver.after_update()


def saved(folder):
    return [int(path.stem[5:]) for path in sorted((folder / "checkpoints").glob("step_*.pt"))]


def test_nothing_is_saved_unless_it_is_due(make, tmp_path):
    trainer, _, saver = make()
    with saver.watching():
        train(trainer, saver, range(1, 6))
    assert saved(tmp_path) == []


def test_a_checkpoint_every_so_many_updates(make, tmp_path):
    trainer, _, saver = make(replace(SECTION, checkpoint_steps=3))
    with saver.watching():
        train(trainer, saver, range(1, 8))
    assert saved(tmp_path) == [3, 6]


def test_a_checkpoint_every_so_many_minutes(make, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    trainer, _, saver = make(replace(SECTION, checkpoint_minutes=2))
    with saver.watching():
        for step in range(1, 8):
            now[0] = 50.0 * step
            train(trainer, saver, [step])
    assert saved(tmp_path) == [3, 6]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_at_the_next_turn_and_handlers_are_given_back(make, tmp_path, number):
    before = signal.getsignal(number)
    trainer, log, saver = make()
    with saver.watching():
        train(trainer, saver, [1])
        os.kill(os.getpid(), number)
        with pytest.raises(SystemExit) as stop:
            train(trainer, saver, [2])
    assert stop.value.code == EXIT_PREEMPTED == 75
    assert saved(tmp_path) == [2]
    assert "told to stop, saved" in log.lines[-1]
    assert signal.getsignal(number) is before


def test_an_evaluation_is_left_on_a_signal_only(make, tmp_path):
    trainer, _, saver = make(replace(SECTION, checkpoint_steps=1))
    with saver.watching():
        trainer.step = 4
        saver.after_batch()
        assert saved(tmp_path) == []
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit):
            saver.after_batch()
    assert saved(tmp_path) == [4]


def test_a_checkpoint_that_cannot_be_written_is_a_warning_but_the_last_an_error(
    make, tmp_path, monkeypatch
):
    def fail(path, _):
        raise CheckpointError(f"{path}: cannot write this checkpoint (No space left on device).")

    monkeypatch.setattr("ffvit.checkpoint.save_checkpoint", fail)
    trainer, log, saver = make(replace(SECTION, checkpoint_steps=1))
    with saver.watching():
        train(trainer, saver, [1])
        assert "WARNING" in log.lines[-1]
        assert "No space left" in log.lines[-1]
        with pytest.raises(CheckpointError):
            saver.save(must_succeed=True)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(CheckpointError):
            train(trainer, saver, [2])
    assert saved(tmp_path) == []


def test_time_of_earlier_starts_is_counted(make, tmp_path):
    trainer, _, saver = make(replace(SECTION, checkpoint_steps=1))
    with saver.watching():
        train(trainer, saver, [1])
    progress = CheckpointFolder(tmp_path, 2).load_latest("auto", {})["progress"]
    assert progress["epoch"] == 0
    assert progress["elapsed_s"] > 100


def test_a_vote_of_one_is_known_at_once():
    vote = Vote(RANKS)
    assert [vote.cast(value) for value in (0, 2, 1)] == [0, 2, 1]
    assert vote.finish() == 0


@pytest.mark.parametrize("option", ["checkpoint_minutes", "checkpoint_steps"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ConfigError, match=f"run.{option}=-1"):
        check_saving(replace(SECTION, **{option: -1}))
