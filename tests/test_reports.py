"""Reports from run folders: figures, charts, and folders that are no runs."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ffvit import __main__ as command
from ffvit.config import load_train_config, to_dict
from ffvit.errors import UserError
from ffvit.explanation import Explanation
from ffvit.reports import write_report
from ffvit.runlog import RunLog

ENVIRONMENT = {
    "git_commit": "0123456789abcdef0123456789abcdef01234567",
    "git_is_dirty": True,
    "python": "3.11.7",
    "packages": {"torch": "2.6", "ffcv": None},
    "cpu": "Some CPU",
    "num_cpu_cores": 2,
    "gpus": ["Some GPU"] * 4,
    "gpu_power_limits_w": ["700.00"] * 4,
}
NO_START = {}
IMAGENET = {"num_classes": 1000, "num_train_images": 1_281_167}
CHARTS = ["accuracy.png", "throughput.png", "training.png"]


def epoch_record(epoch, num_gpus=0):
    """One epoch of 2 s: 1.5 s training on 300 images, 0.5 s validation."""
    return {
        "epoch": epoch,
        "step": 5 * epoch,
        "images_seen": 300 * epoch,
        "resolution": 48 + 16 * epoch,
        "learning_rate": 0.1 / epoch,
        "train_loss": 2.0 / epoch,
        "top_1": 0.25 + 0.1 * epoch,
        "top_5": 0.5 + 0.1 * epoch,
        "loss": 1.5 / epoch,
        "num_samples": 101,
        "images_per_s": 200.0,
        "data_wait_fraction": 0.02 * epoch,
        "train_s": 1.5,
        "validation_s": 0.5,
        "elapsed_s": 2.0 * epoch,
        "gpu_hours": num_gpus * 2.0 * epoch / 3600,
    }


@pytest.fixture
def make_run(tmp_path):
    def make(name="some_run", epochs=3, num_gpus=0, argv=(), start=NO_START, **changes):
        options = ["--model.name=ff_pico", "--training.epochs=4", *argv]
        config = to_dict(load_train_config(options)[0])
        with RunLog.open(tmp_path / name, config, ENVIRONMENT, is_primary=True) as log:
            log.record("run", world_size=max(1, num_gpus), **start)
            for epoch in range(1, epochs + 1):
                for step in (5 * epoch - 3, 5 * epoch):
                    values = {"loss": 2 / step, "learning_rate": 0.1 / step}
                    log.record("step", epoch=epoch, step=step, **values)
                log.record("epoch", **(epoch_record(epoch, num_gpus) | changes))
        return tmp_path / name

    return make


@pytest.fixture
def figures(monkeypatch):
    """Charts by path, taken before they are rendered and saved, which is what takes time."""
    taken = {}
    monkeypatch.setattr("ffvit.charts._save", lambda figure, path: taken.setdefault(path, figure))
    return taken


def table_of(report):
    """Return the rows of a report's first table, as dicts of its cells."""
    lines = [line for line in report.read_text().splitlines() if line.startswith("| ")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]


def assert_is_drawn(path):
    pixels = np.asarray(Image.open(path).convert("L"))
    assert min(pixels.shape) > 300
    assert 0.002 < (pixels < 200).mean() < 0.2
    # Nothing is cut at the edges.
    border = np.concatenate([pixels[:4].ravel(), pixels[-4:].ravel(), pixels[:, -4:].ravel()])
    assert (border == 255).all()


def test_a_run_gets_its_report_and_its_charts(make_run):
    folder = make_run()
    path = write_report([folder], folder)
    assert path == folder / "report.md"
    assert_is_drawn(folder / "report.png")
    assert sorted(chart.name for chart in (folder / "charts").iterdir()) == CHARTS
    for chart in CHARTS:
        assert_is_drawn(folder / "charts" / chart)
        assert f"(charts/{chart})" in path.read_text()


@pytest.mark.usefixtures("figures")
def test_the_table_states_what_the_log_says(make_run):
    folder = make_run()
    assert table_of(write_report([folder], folder)) == [
        {
            "run": "some_run",
            "model": "ff_pico",
            "epochs": "3 of 4",
            "images seen": "900",
            "top-1 %": "55.0",
            "top-5 %": "80.0",
            "EMA top-1 %": "-",
            "validated at": "224 px, centre 0.875, area",
            "time": "6 s",
            "GPU-hours": "-",
            "images/s": "200",
            "data wait %": "4.0",
            "resolution": "64 to 96 px",
        }
    ]


@pytest.mark.usefixtures("figures")
def test_gpu_runs_state_gpu_hours_and_the_gpus_that_were_used(make_run):
    folder = make_run(num_gpus=2, elapsed_s=5400.0, gpu_hours=3.0, ema_top_1=0.56)
    report = write_report([folder], folder)
    (row,) = table_of(report)
    assert (row["GPU-hours"], row["time"], row["EMA top-1 %"]) == ("3.00", "1.50 h", "56.0")
    assert "2 x Some GPU, 700.00 W" in report.read_text()
    assert "0123456789 with changes" in report.read_text()


@pytest.mark.usefixtures("figures")
def test_flip_averaging_and_a_constant_resolution_are_stated(make_run):
    argv = ["--validation.flip_average=true", "--validation.resolution=256"]
    folder = make_run(argv=argv, resolution=64)
    (row,) = table_of(write_report([folder], folder))
    assert row["validated at"] == "256 px, centre 0.875, area, flip average"
    assert row["resolution"] == "64 px"


@pytest.mark.usefixtures("figures")
def test_accuracy_is_that_of_the_last_validated_epoch(make_run):
    folder = make_run(epochs=2)
    record = epoch_record(3)
    unvalidated = {key: record[key] for key in record if key not in ("top_1", "top_5", "loss")}
    with RunLog.open(folder, to_dict(load_train_config([])[0]), ENVIRONMENT, True, 2, 99) as log:
        log.record("epoch", **unvalidated)
    (row,) = table_of(write_report([folder], folder))
    assert (row["epochs"], row["top-1 %"]) == ("3 of 88", "45.0")


def test_a_run_that_was_never_validated_still_has_a_report(make_run, figures):
    folder = make_run(top_1=None, top_5=None, loss=None, train_loss=float("nan"))
    report = write_report([folder], folder)
    assert table_of(report)[0]["top-1 %"] == "-"
    accuracy = figures[folder / "report.png"].axes[1]
    assert [text.get_text() for text in accuracy.texts] == ["nothing yet"]


def test_a_single_epoch_is_drawn_as_points(make_run, figures):
    folder = make_run(epochs=1)
    write_report([folder], folder)
    for chart in (folder / "report.png", folder / "charts" / "accuracy.png"):
        lines = figures[chart].axes[1].get_lines()
        assert lines
        assert all(line.get_marker() == "o" for line in lines)


def test_several_runs_share_charts_and_leave_their_folders_alone(make_run, tmp_path):
    folders = [make_run("a"), make_run("b", epochs=4), make_run("other/a", num_gpus=2)]
    before = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    report = write_report(folders, tmp_path / "out" / "new")
    assert [row["run"] for row in table_of(report)] == [f"{tmp_path.name}/a", "b", "other/a"]
    assert not (report.parent / "report.png").exists()
    for chart in CHARTS:
        assert_is_drawn(report.parent / "charts" / chart)
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] == before


def test_charts_show_the_values(make_run, figures):
    folder = make_run(num_gpus=4)
    write_report([folder], folder)
    panels = figures[folder / "charts" / "accuracy.png"].axes
    assert [panel.get_xlabel() for panel in panels] == ["epochs", "images seen", "GPU-hours"]
    x = [[1, 2, 3], [300, 600, 900], [4 * 2 * epoch / 3600 for epoch in (1, 2, 3)]]
    for panel, expected in zip(panels, x, strict=True):
        (line,) = panel.lines
        assert line.get_xdata() == pytest.approx(expected)
        assert line.get_ydata() == pytest.approx([35, 45, 55])
    assert [text.get_text() for text in panels[2].texts] == ["55.0 some_run"]

    resolution = figures[folder / "report.png"].axes[2].lines[0]
    assert list(resolution.get_xdata()) == [0, 1, 2, 3]
    assert list(resolution.get_ydata()) == [64, 80, 96, 96]


@pytest.mark.parametrize(
    ("elapsed_s", "num_gpus", "label"),
    [
        (90.0, 0, "minutes of wall time (on CPUs)"),
        (7200.0, 0, "hours of wall time (on CPUs)"),
        (90.0, 2, "minutes of wall time (some runs on CPUs)"),
    ],
)
def test_a_cpu_run_makes_the_cost_axis_wall_time(
    make_run, figures, elapsed_s, num_gpus, label, tmp_path
):
    folders = [make_run("a", elapsed_s=elapsed_s), make_run("b", num_gpus=num_gpus)]
    write_report(folders, tmp_path / "out")
    assert figures[tmp_path / "out" / "charts" / "accuracy.png"].axes[2].get_xlabel() == label


def test_imagenet_runs_on_gpus_are_drawn_beside_published_results(make_run, figures, tmp_path):
    folders = [
        make_run("a", num_gpus=8, start=IMAGENET, gpu_hours=3.0),
        make_run("b", num_gpus=8, start=IMAGENET, gpu_hours=5.0),
        make_run("other", num_gpus=8, start=IMAGENET | {"num_classes": 10}),
        make_run("subset", num_gpus=8, start=IMAGENET | {"num_train_images": 100_000}),
        make_run("on_cpu", start=IMAGENET),
    ]
    report = write_report(folders, tmp_path / "out")
    (axes,) = figures[tmp_path / "out" / "charts" / "cost.png"].axes
    texts = [text.get_text() for text in axes.texts]
    assert [text for text in texts if "epochs" not in text] == ["55.0 a", "55.0 b"]
    assert "ResNet-50, ffcv-imagenet\n16 to 88 epochs, A100-h" in texts
    assert "74.9 FF-base, paper\n300 epochs, cost not published" in texts
    drawn = [(line.get_xdata()[-1], line.get_ydata()[-1]) for line in axes.lines]
    assert (pytest.approx(77.2 * 8 / 60), 78.4) in drawn
    assert (5.0, pytest.approx(55)) in drawn
    text = report.read_text()
    assert "(charts/cost.png)" in text
    assert (
        "| ResNet-18 | 16 | 66.9 | 0.58 A100-h | ffcv-imagenet README; 256 px, flip average |"
        in text
    )
    assert "| FF-tiny | 300 | 61.4 | not published |" in text


@pytest.mark.usefixtures("figures")
def test_other_runs_are_not_compared_with_published_results(make_run, tmp_path):
    folders = [make_run("a", num_gpus=8), make_run("b", start=IMAGENET)]
    assert "published" not in write_report(folders, tmp_path / "out").read_text()


@pytest.mark.usefixtures("figures")
def test_what_explain_found_is_shown_and_copied_beside_the_report_of_several(make_run, tmp_path):
    folders = [make_run("a"), make_run("b"), make_run("c")]
    for folder in folders[:2]:
        (folder / "explanation").mkdir()
        Explanation(["x|y", "z"], np.array([[3, 2], [0, 4]]), folder.name).save(
            folder / "explanation"
        )
    (folders[1] / "explanation" / "most_wrong.png").write_bytes(b"b's")
    alone = write_report(folders[:1], folders[0]).read_text()
    assert "(explanation/confusion.png)" in alone
    assert r"| x\|y | z | 2 | 5 |" in alone
    report = write_report(folders, tmp_path / "out")
    text = report.read_text()
    assert "## a, looked into" in text
    assert "## c, looked into" not in text
    assert (report.parent / "explanation" / "2" / "most_wrong.png").read_bytes() == b"b's"
    assert "(explanation/2/most_wrong.png)" in text
    assert "(explanation/1/most_wrong.png)" not in text


def test_folders_that_are_no_runs_are_refused_in_one_line(make_run, tmp_path):
    folder = make_run("base_88_epochs")
    (tmp_path / "empty").mkdir()
    unfinished = make_run("unfinished", epochs=0)
    damaged = make_run("damaged")
    (damaged / "config.yaml").write_text("a: [")
    for wrong, message in (
        (tmp_path / "base_88_epohcs", rf"no such run folder; did you mean {folder}\?"),
        (tmp_path / "zzz", "no such run folder; check the path"),
        (tmp_path / "empty", "there is no log.jsonl"),
        (unfinished, "no finished epoch yet"),
        (damaged, "cannot read this run's config.yaml"),
    ):
        with pytest.raises(UserError, match=f"{wrong}.*{message}"):
            write_report([folder, wrong], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written_is_refused(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot write the report there"):
        write_report([make_run()], tmp_path / "file")


@pytest.mark.usefixtures("figures")
def test_the_command_writes_beside_one_run_and_where_it_is_told(make_run, tmp_path, capsys):
    folder = make_run()
    command.main(["report", str(folder)])
    command.main(["report", str(folder), "--out", str(tmp_path / "out")])
    assert capsys.readouterr().out.splitlines() == [
        str(folder / "report.md"),
        str(tmp_path / "out" / "report.md"),
    ]


@pytest.mark.usefixtures("figures")
def test_several_runs_go_to_the_folder_report(make_run, tmp_path, monkeypatch):
    folders = [str(make_run("a")), str(make_run("b"))]
    monkeypatch.chdir(tmp_path)
    command.main(["report", *folders])
    assert (tmp_path / "report" / "report.md").is_file()


def test_the_command_needs_neither_torch_nor_ffcv_and_a_wrong_folder_is_one_line(tmp_path):
    program = (
        "import runpy, sys\n"
        "try:\n    runpy.run_module('ffvit', run_name='__main__')\n"
        "finally:\n    print({'torch', 'ffcv', 'timm'} & set(sys.modules))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "report", str(tmp_path / "none")],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout.strip() == "set()"
    assert result.stderr == f"error: {tmp_path / 'none'}: no such run folder; check the path.\n"


def test_the_sample_command_passes_its_folder_and_seed_on(tmp_path, monkeypatch):
    calls = []
    # In place of the module, as importing it takes seconds.
    stand_in = SimpleNamespace(write_sample=lambda folder, seed: calls.append((folder, seed)))
    monkeypatch.setitem(sys.modules, "ffvit.data.sample", stand_in)
    command.main(["sample", str(tmp_path), "--seed=3"])
    assert calls == [(tmp_path, 3)]


@pytest.mark.parametrize("argv", [[], ["reprot"], ["report"], ["sample"]])
def test_an_unknown_or_incomplete_command_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(argv)
    assert stop.value.code == 2
    assert "usage: python -m ffvit" in capsys.readouterr().err


def test_texts_of_a_run_folder_stay_texts(make_run):
    name = "<img src=x onerror=alert(1)> [a](javascript:b) $\\frac$ `c` | d"
    run = make_run(name, epochs=1)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("ff_pico", '"<script>\\x1b[2J</script>"'))
    text = write_report([run], run).read_text()  # draws the charts, too
    assert "<" not in text
    assert "\x1b" not in text
    assert "&lt;img src=x" in text
    assert r"\[a\](javascript:b)" in text
    assert r"\`c\` \| d" in text
    assert all(line.isprintable() for line in text.splitlines())
