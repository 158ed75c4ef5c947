"""The experiments' arithmetic, that they run, and the page made from their results."""

import json
import math

import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image

from benchmarks import tables
from benchmarks.proxy import chart, costs, page, results, teacher, timm_training, training
from benchmarks.proxy.arms import BASE, FULL, LOW, arm, change, ramp, run_lengths
from benchmarks.proxy.experiments import EXPERIMENTS, raw_resize
from benchmarks.proxy.paired import paired_difference
from ffvit.models import create_model


def test_differences_are_taken_seed_by_seed():
    # Large differences between seeds, which all arms share, widen no interval.
    difference = paired_difference(
        {0: 0.513, 1: 0.711, 2: 0.612, 7: 0.9}, {0: 0.50, 1: 0.70, 2: 0.60, 3: 0.1}
    )
    assert difference.num_pairs == 3
    assert difference.mean == pytest.approx(1.2)
    # Deviation 0.1, n 3: 4.303 * 0.1 / sqrt(3).
    assert difference.high - difference.mean == pytest.approx(0.2484, abs=1e-4)


@pytest.mark.parametrize(
    ("points", "verdict"),
    [
        ((2.0, 2.1, 1.9), "better"),
        ((0.1, -0.3, -0.1), "non-inferior"),
        ((-0.5, -0.6, -0.4), "non-inferior"),
        ((-2.0, -2.1, -1.9), "worse"),
        ((-4.0, 4.0, 1.0), "not resolved"),
        ((3.0,), "not resolved"),
    ],
)
def test_the_interval_decides_the_reading(points, verdict):
    values = {seed: 0.5 + value / 100 for seed, value in enumerate(points)}
    assert paired_difference(values, dict.fromkeys(range(9), 0.5)).verdict == verdict


def test_arms_without_a_common_seed_are_not_compared():
    assert paired_difference({0: 0.5}, {1: 0.5}) is None


def test_a_ramp_is_the_schedule_of_the_shipped_recipes():
    assert run_lengths(ramp("x", 12, start=4, end=9).resolutions) == [
        [48, 5],
        [56, 1],
        [64, 2],
        [72, 1],
        [80, 3],
    ]


def test_names_of_arms_are_unique():
    arms = [a for experiment in EXPERIMENTS.values() for a in experiment.arms]
    recipes = {}
    for a in arms:
        assert recipes.setdefault(a.name, a.recipe) == a.recipe


@pytest.fixture
def new_results(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "NEW_RESULTS", tmp_path / "new")
    return tmp_path / "new"


def test_a_run_counts_only_for_the_recipe_it_was_made_with(new_results):
    low, full = arm("x", (LOW, 3)), arm("x", (FULL, 3))
    results.append_result(low, 1, {"top_1": 0.4})
    results.append_result(low, 1, {"top_1": 0.5})
    found = results.read_results(new_results)
    assert results.of_arm(found, low)[1]["top_1"] == 0.5
    assert results.of_arm(found, full) == {}


def test_new_runs_are_kept_once(new_results, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    one = arm("x", (LOW, 3))
    for seed in (3, 5):
        results.append_result(one, seed, {"top_1": 0.4})
        assert results.keep_new_results() == 1
    assert results.keep_new_results() == 0
    assert list(results.of_arm(results.read_results(tmp_path), one)) == [3, 5]
    assert results.read_results(new_results) == []


@pytest.mark.usefixtures("new_results")
def test_a_claimed_run_is_nobody_elses():
    one = arm("x", (LOW, 3))
    with results.claimed(one, 0) as first, results.claimed(one, 0) as second:
        assert (first, second) == (True, False)
    with results.claimed(one, 0) as third:
        assert third


def measurement(**milliseconds):
    return {
        "ms_per_update": {costs.cost_name(BASE, int(r[2:])): m for r, m in milliseconds.items()}
    }


def test_costs_are_compared_within_a_round():
    # The ratios are 0.5, 0.4 and 0.9; the second round was disturbed as a whole.
    measured = measurement(px80=[100.0, 200.0, 50.0], px48=[50.0, 80.0, 45.0])
    assert costs.cost_of(measured, arm("x", (LOW, 5), (FULL, 1))) == pytest.approx(3.5)


def test_a_cost_that_was_not_measured_is_an_error():
    with pytest.raises(costs.ConfigError, match="64"):
        costs.cost_of(measurement(px80=[1.0]), arm("x", (64, 1)))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_arms_compared_at_equal_time_cost_the_same(name):
    measured = costs.read()
    for row in EXPERIMENTS[name].rows:
        if row.against is not None and row.at_equal == "time":
            cost, other = (costs.cost_of(measured, a) for a in (row.arm, row.against))
            assert cost == pytest.approx(other, rel=0.06), row.arm.name


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_arms_compared_at_equal_epochs_have_the_same(name):
    for row in EXPERIMENTS[name].rows:
        if row.against is not None and row.at_equal == "epochs":
            assert len(row.arm.resolutions) == len(row.against.resolutions), row.arm.name


def test_raw_resizing_averages_where_it_should_add_up():
    images = torch.randn(2, 3, LOW, LOW)
    ours = create_model(change(BASE, model={"resampler": "bilinear"}).model, 10)
    naive = create_model(raw_resize.config.model, 10)
    naive.load_state_dict(ours.state_dict())
    grid = LOW // 8
    rescaled = ours.token_grid.resampling(grid, ours.cls_token)
    raw = naive.token_grid.resampling(grid, naive.cls_token)
    assert raw.from_canonical.equal(rescaled.from_canonical)
    # A coarse token stands for (10 / 6)^2 fine ones; the naive columns add up to 1 only.
    assert rescaled.to_canonical[:, 1:].sum() / raw.to_canonical[:, 1:].sum() == pytest.approx(
        (10 / 6) ** 2, rel=0.01
    )
    assert not torch.allclose(ours.eval()(images), naive.eval()(images))


def test_every_arm_has_a_model_that_runs_at_its_resolutions():
    sizes = {}
    for experiment in EXPERIMENTS.values():
        for a in experiment.arms:
            sizes.setdefault(a.config.model, set()).update(a.resolutions)
    for section, resolutions in sizes.items():
        model = create_model(section, 10).eval()
        for resolution in resolutions:
            assert model(torch.zeros(1, 3, resolution, resolution)).shape == (1, 10)


def test_the_page_is_made_from_the_committed_results():
    text = page.PAGE.read_text()
    assert tables.fill_page(text, page.all_tables(results.read_results(), costs.read())) == text


def test_the_picture_of_budgets_has_a_line_for_each_model(tmp_path, monkeypatch):
    drawn = []
    errorbar = Axes.errorbar

    def watched(axes, at, mean, deviation, **options):
        drawn.append((options["label"], list(at)))
        return errorbar(axes, at, mean, deviation, **options)

    monkeypatch.setattr(Axes, "errorbar", watched)
    ladder, measured = EXPERIMENTS["b"], costs.read()
    runs = [
        {"arm": row.arm.name, "seed": seed, "recipe": row.arm.recipe, "top_1": 0.4 + seed / 100}
        for row in ladder.rows
        for seed in range(2)
    ]
    chart.draw(ladder, json.loads(json.dumps(runs)), measured, tmp_path / "b.png")
    assert [title for title, _ in drawn] == list(dict.fromkeys(row.title for row in ladder.rows))
    assert drawn[0][1] == pytest.approx([7, 14, 28])
    with Image.open(tmp_path / "b.png") as picture:
        assert picture.width > 900


def tiny_arm(tiny_betons, **options):
    base = change(
        BASE,
        data={"train_path": str(tiny_betons["train"]), "val_path": str(tiny_betons["val"])},
        model={"image_size": 32, "embed_dim": 32},
        resolution={"min_res": 32, "max_res": 32},
        training={"global_batch_size": 16, "ema_decay": 0.9},
        validation={"resolution": 32},
    )
    return arm("x", *options.pop("stages"), base=base, **options)


def test_a_run_follows_its_stages_and_learns(tiny_betons, monkeypatch):
    trained = []
    train_epoch = training.CpuTrainer.train_epoch

    def watched(self, batches, epoch):
        trained.append((epoch, batches.resolution))
        return train_epoch(self, batches, epoch)

    monkeypatch.setattr(training.CpuTrainer, "train_epoch", watched)
    one = tiny_arm(tiny_betons, stages=((16, 4), (32, 4)), shows_switches=True)
    measured = training.run(one, 3)
    assert measured["top_1"] > 0.25  # chance is 1 in 8
    assert measured["updates"] == 8 * 4
    (switch,) = measured["switches"]
    assert (switch["epoch"], switch["from"], switch["to"]) == (4, 16, 32)
    assert trained == list(enumerate(one.resolutions))
    assert 0 < measured["ema_top_1"] <= 1


def save_teacher(path, network, logits):
    """Save a teacher that gives the same logits for every image."""
    weights = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    weights["fc.bias"] = torch.tensor(logits)
    torch.save({"network": repr(network), "weights": weights}, path)


def test_a_teachers_opinion_is_half_of_the_target(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "PATH", tmp_path / "teacher.pt")
    network = create_model(teacher.TEACHER.config.model, 3).eval()
    save_teacher(teacher.PATH, network, [0.0, math.log(3.0), 0.0])
    images, labels = torch.rand(2, 3, LOW, LOW), torch.tensor([0, 1])
    soft = teacher.Teaching(lambda batch, _: batch, 3, is_hard=False)((images, labels), 0)
    torch.testing.assert_close(soft[1], torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]))
    hard = teacher.Teaching(lambda batch, _: batch, 3, is_hard=True)((images, labels), 0)
    assert hard[1].tolist() == [[0.5, 0.5, 0], [0, 1, 0]]
    assert hard[0] is images


def test_weights_of_another_network_are_refused_even_if_they_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "PATH", tmp_path / "teacher.pt")
    network = create_model(teacher.TEACHER.config.model, 3).eval()
    network.maxpool = torch.nn.MaxPool2d(2)
    save_teacher(teacher.PATH, network, [0.0, 1.0, 2.0])
    with pytest.raises(costs.ConfigError, match="another one's"):
        teacher.Teaching(lambda batch, _: batch, 3, is_hard=False)


@pytest.mark.slow
# timm leaves files to be closed by the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_timm_trains_the_same_model(tiny_betons, image_folder, monkeypatch):
    monkeypatch.setattr(timm_training, "IMAGES", image_folder)
    lr = {"schedule": "cosine"}
    measured = training.run(tiny_arm(tiny_betons, stages=((32, 8),), is_timm=True, lr=lr), 3)
    assert measured["updates"] == 8 * 4
    assert measured["top_1"] > 0.25
    assert measured["top_1_our_loader"] == pytest.approx(measured["top_1"], abs=0.2)
