"""What recipes cost and may give: the counts, the headers that state them, the recommendation."""

import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ffvit.budget import (
    SIZES,
    TOP_1,
    UTILISATION,
    find_gpu,
    load_budget,
    load_budgets,
    recommend,
    utilisation,
)
from ffvit.config import load_train_config
from ffvit.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "ff_configs"
WRITER = runpy.run_path(str(ROOT / "scripts" / "write_budget_configs.py"))


@pytest.fixture(scope="module")
def base():
    return {b.path.stem: b for b in load_budgets("base", FOLDER)}


def test_the_papers_recipe_costs_what_its_models_do(base):
    """14.1324 GMAC for an image at 224 px, counted from the author's code; 6 FLOPs for each."""
    paper = base["base_300_paper"]
    assert paper.num_updates == 300 * 1251
    assert paper.num_images == 300 * 1_281_024
    assert paper.phases == [(224, 300)]
    assert paper.flops == pytest.approx(6 * 14.1324e9 * paper.num_images, rel=1e-5)
    assert paper.gpu_hours("H200") == pytest.approx(paper.flops / (0.4 * 989e12) / 3600)
    assert paper.gpu_hours("H200") == pytest.approx(22.9, abs=0.05)


def test_a_resolution_is_counted_epoch_by_epoch(base):
    """75 epochs of 4.663 GMAC for an image, 13 of 14.1324 (the design's table)."""
    budget = base["base_88_epochs"]
    assert budget.phases == [(128, 75), (224, 13)]
    expected = 6 * (75 * 4.663e9 + 13 * 14.1324e9) * budget.num_images / 88
    assert budget.flops == pytest.approx(expected, rel=0.001)


def test_the_ladder_is_complete_and_as_its_script_writes_it(tmp_path):
    WRITER["write"](tmp_path)
    written = {path.name: path.read_text() for path in tmp_path.glob("*.yaml")}
    assert set(written) == {f"{s}_{e}_epochs.yaml" for s in SIZES for e in (16, 24, 32, 40, 56, 88)}
    shipped = {name: (FOLDER / name).read_text() for name in written}
    assert shipped == written, "run scripts/write_budget_configs.py"


@pytest.mark.parametrize("size", SIZES)
def test_the_papers_headers_state_what_is_computed(size):
    budget = load_budget(FOLDER / f"{size}_300_paper.yaml")
    header = " ".join(budget.path.read_text().partition("\n\n")[0].replace("\n#", "").split())
    for entry in (WRITER["compute_entry"](budget), WRITER["cost_entry"](budget)):
        assert entry in header
    assert f"{TOP_1[budget.path.stem]} %, the paper's" in header


def test_the_page_holds_the_tables_of_the_recipes():
    page = (ROOT / "docs" / "reproduce.md").read_text()
    assert WRITER["fill_page"](page, WRITER["tables"]()) == page, "run the script"


@pytest.mark.parametrize("size", SIZES)
def test_longer_recipes_cost_more_and_are_expected_to_give_no_less(size):
    budgets = load_budgets(size, FOLDER)
    assert [b.config.training.epochs for b in budgets] == [16, 24, 32, 40, 56, 88, 300]
    ranges = [[float(x) for x in TOP_1[b.path.stem].split(" to ")] for b in budgets[:-1]]
    assert ranges == sorted(ranges)
    assert all(low < high for low, high in ranges)
    assert UTILISATION[size] <= 0.5


@pytest.mark.parametrize(
    ("hours", "num_gpus", "chosen"),
    [
        (0.75, 1, "base_16_epochs"),
        (3.7, 1, "base_56_epochs"),
        (4.0, 1, "base_88_epochs"),
        (0.6, 8, "base_88_epochs"),
        (22.8, 1, "base_88_epochs"),
        (23.0, 1, "base_300_paper"),
        (1e9, 1, "base_300_paper"),
    ],
)
def test_the_longest_recipe_that_fits_is_recommended(hours, num_gpus, chosen):
    lines = recommend("base", "h200", hours, num_gpus, folder=FOLDER).splitlines()
    assert lines[0].split() == ["config", str(FOLDER / f"{chosen}.yaml")]
    assert ("torchrun" in lines[-1]) == (num_gpus > 1)


def test_a_measured_utilisation_replaces_the_supposed_one():
    """The budget of 40 epochs takes 1.7 h at 40 % of the peak at 224 px, so 3.5 h at 20 %."""
    lines = recommend("base", "h200", 3.7, mfu=0.2, folder=FOLDER).splitlines()
    assert lines[0].split() == ["config", str(FOLDER / "base_40_epochs.yaml")]
    assert "13 % (128 px) and 20 % (224 px) of 989 TFLOP/s" in lines[4]


def test_small_images_reach_less_of_the_peak():
    low, middle, full = (utilisation("base", side, 0.5) for side in (128, 176, 224))
    assert full == 0.5
    assert low == pytest.approx(0.67 * 0.5)
    assert middle == pytest.approx((low + full) / 2)


def test_every_forecast_says_that_it_is_one():
    text = recommend("base", "H200", 3, folder=FOLDER)
    lines = {line.split()[0]: line for line in text.splitlines() if line}
    assert "(forecast" in lines["hours"]
    assert "(forecast, not measured)" in lines["top-1"]
    assert "(forecast" in lines["next"]
    assert "not measured with this code" in recommend("base", "H200", 99, folder=FOLDER)


@pytest.mark.parametrize("num_gpus", [1, 2, 8, 32])
def test_the_command_can_be_typed(num_gpus):
    """Groups of mixup must divide what a GPU takes at a time: 32 images of 1024 on 32 GPUs."""
    command = shlex.split(recommend("base", "a100", 100, num_gpus, folder=FOLDER).splitlines()[-1])
    config, _ = load_train_config(command[command.index("train_imagenet.py") + 1 :])
    assert 1024 // num_gpus % config.augment.mixup_group == 0
    assert command[0] == ("torchrun" if num_gpus > 1 else "python")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "huge"}, "--model=huge: expected one of tiny, base, large"),
        ({"gpu": "h300"}, "--gpu=h300: expected one of A100, "),
        ({"hours": 0.1}, "base_16_epochs.yaml, is forecast to take 0.6"),
        ({"hours": -1.0}, "--hours=-1: expected more than 0"),
        ({"hours": float("nan")}, "--hours=nan: expected more than 0"),
        ({"num_gpus": 0}, "--num_gpus=0: expected 1 or more"),
        ({"mfu": 40.0}, "--mfu=40: expected a share of the peak"),
        ({"mfu": 0.0}, "--mfu=0: expected a share of the peak"),
        ({"num_gpus": 3}, "--num_gpus=3 does not divide the batch of"),
        ({"folder": Path("nowhere")}, "--configs=nowhere: expected the repository's folder"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(changes, message):
    good = {"size": "base", "gpu": "h200", "hours": 4.0, "num_gpus": 1, "folder": FOLDER}
    with pytest.raises(ConfigError) as error:
        recommend(**(good | changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("h200", "H200"),
        ("A100", "A100"),
        ("h100-nvl", "H100 NVL"),
        ("rtx 4090", "GeForce RTX 4090"),
    ],
)
def test_gpus_are_found_in_any_spelling(typed, found):
    assert find_gpu(typed) == found


def test_the_command_prints_it():
    words = [sys.executable, "-m", "ffvit", "budget", "--model=tiny", "--gpu=h200", "--hours=1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "config    ff_configs/tiny_88_epochs.yaml"
    assert done.stderr == ""
