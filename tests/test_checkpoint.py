import pytest
import torch

from ffvit.checkpoint import check_same_run, load_checkpoint, save_checkpoint
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

    torch.save({"format": 1, "payload": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "hacked").exists()


def test_resuming_with_another_option_is_refused_by_name(tmp_path):
    saved = {"training": {"epochs": 3}, "run": {"log_interval": 5}, "data": {"num_workers": 1}}
    free = {"training": {"epochs": 3}, "run": {"log_interval": 9}, "data": {"num_workers": 4}}
    check_same_run(tmp_path, saved, free)
    with pytest.raises(ConfigError, match=r"training\.epochs=3, and now training\.epochs=4"):
        check_same_run(tmp_path, saved, {"training": {"epochs": 4}})
