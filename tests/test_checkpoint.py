import pytest
import torch

from ffvit.checkpoint import (
    FORMAT,
    CheckpointFolder,
    check_same_run,
    load_checkpoint,
    save_checkpoint,
)
from ffvit.errors import CheckpointError, ConfigError


def test_checkpoint_comes_back_as_it_was(tmp_path):
    path = tmp_path / "checkpoints" / "latest.pt"
    state = {"model": {"weight": torch.arange(7.0)}, "progress": {"epoch": 3, "note": "a"}}
    save_checkpoint(path, state)
    loaded = load_checkpoint(path)
    assert (loaded["model"]["weight"] == state["model"]["weight"]).all()
    assert loaded["progress"] == state["progress"]
    assert [file.name for file in path.parent.iterdir()] == ["latest.pt"]


def test_new_checkpoint_takes_the_place_of_the_old_one_at_once(tmp_path):
    path = tmp_path / "latest.pt"
    save_checkpoint(path, {"epoch": 1})
    with path.open("rb") as old:
        save_checkpoint(path, {"epoch": 2})
        # Who had it open still reads the old one, whole: nothing was written into it.
        assert torch.load(old, weights_only=True)["epoch"] == 1
    assert load_checkpoint(path)["epoch"] == 2


def test_failed_write_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / "latest.pt"
    save_checkpoint(path, {"epoch": 1})
    with pytest.raises(AttributeError):
        save_checkpoint(path, {"epoch": 2, "broken": lambda: None})
    assert load_checkpoint(path)["epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["latest.pt"]


@pytest.mark.parametrize("length", [0, 1, 100, 900])
def test_truncated_checkpoint_is_refused_in_one_line(tmp_path, length):
    path = tmp_path / "latest.pt"
    save_checkpoint(path, {"weight": torch.arange(1000.0)})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(
        CheckpointError, match=r"latest\.pt: this checkpoint cannot be read"
    ) as info:
        load_checkpoint(path)
    assert "\n" not in str(info.value)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="found none"):
        load_checkpoint(tmp_path / "no.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="got another file"):
        load_checkpoint(tmp_path / "foreign.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "hacked"), "w"))

    torch.save({"format": FORMAT, "payload": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "hacked").exists()


def test_resuming_with_another_option_is_refused_by_name(tmp_path):
    saved = {"training": {"epochs": 3}, "run": {"log_interval": 5}, "data": {"num_workers": 1}}
    free = {"training": {"epochs": 3}, "run": {"log_interval": 9}, "data": {"num_workers": 4}}
    check_same_run(tmp_path, saved, free)
    with pytest.raises(ConfigError, match=r"training\.epochs=3, and now training\.epochs=4"):
        check_same_run(tmp_path, saved, {"training": {"epochs": 4}})


def fill(folder, steps, keep=2):
    checkpoints = CheckpointFolder(folder, keep)
    for step in steps:
        checkpoints.save({"step": step, "config": {}}, is_best=step == 2)
    return checkpoints


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_newest_and_the_best_stay(tmp_path):
    fill(tmp_path, [1, 2, 3, 40, 500])
    assert names(tmp_path) == ["best.pt", "step_00000040.pt", "step_00000500.pt"]
    assert load_checkpoint(tmp_path / "checkpoints" / "best.pt")["step"] == 2
    assert CheckpointFolder(tmp_path, 2).load_latest("auto", {})["step"] == 500


def test_a_new_run_has_no_checkpoint(tmp_path):
    assert CheckpointFolder(tmp_path, 2).load_latest("never", {}) is None


def damage_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_one_bit(path):
    data = bytearray(path.read_bytes())
    # In a tensor, which torch.load would take as it is.
    data[data.index(torch.arange(700.0).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(data)


def damage_all(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_half, damage_one_bit, damage_all])
def test_a_damaged_latest_falls_back_to_the_one_before_and_says_so(tmp_path, damage):
    checkpoints = CheckpointFolder(tmp_path, 2)
    for step in (3, 7):
        checkpoints.save({"step": step, "config": {}, "weight": torch.arange(700.0)})
    damage(tmp_path / "checkpoints" / "step_00000007.pt")
    resumed = CheckpointFolder(tmp_path, 2)
    assert resumed.load_latest("auto", {})["step"] == 3
    (line,) = resumed.damaged
    assert "step_00000007.pt: this checkpoint cannot be read" in line
    assert "\n" not in line
    # It must not count as the newest once the run goes on.
    resumed.tidy(3)
    resumed.save({"step": 5, "config": {}})
    assert names(tmp_path) == ["step_00000003.pt", "step_00000005.pt", "step_00000007.damaged"]


def test_only_damaged_checkpoints_are_an_error_and_no_new_start(tmp_path):
    fill(tmp_path, [3, 7])
    for path in (tmp_path / "checkpoints").glob("step_*"):
        damage_half(path)
    with pytest.raises(CheckpointError, match=r"none of 2 can be read \(the newest: .*00000007"):
        CheckpointFolder(tmp_path, 2).load_latest("auto", {})


def test_half_written_files_of_a_killed_run_are_removed(tmp_path):
    checkpoints = fill(tmp_path, [3])
    (tmp_path / "checkpoints" / "step_00000007.pt.tmp.123").write_bytes(b"half")
    assert checkpoints.load_latest("auto", {})["step"] == 3
    checkpoints.tidy(3)
    assert names(tmp_path) == ["step_00000003.pt"]


def test_a_kill_between_the_best_and_the_newest_leaves_no_older_best(tmp_path, monkeypatch):
    """The resumed run does the epoch again, and finds the same best again."""
    checkpoints = fill(tmp_path, [1])

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ffvit.checkpoint._link", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save({"step": 7, "config": {}}, is_best=True)
    assert CheckpointFolder(tmp_path, 2).load_latest("auto", {})["step"] == 1
    assert load_checkpoint(tmp_path / "checkpoints" / "best.pt")["step"] == 7
