"""The page of a run: what it tells, that it stays one harmless file, what it costs."""

import functools
import html
import itertools
import json
import re
from pathlib import Path

import pytest
from page_runs import write_run
from PIL import Image

from ffvit import page
from ffvit.page import RunPage, render, write_page
from ffvit.page.plots import Curve, number, plot
from ffvit.runlog import load_run

STYLE = Path(page.__file__).with_name("page.css").read_text()


def text_of(document):
    """Return what a reader sees, without style, script and tags."""
    document = re.sub(r"<(style|script).*?</\1>", "", document, flags=re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]*>", " ", document).split()))


def plots_of(document):
    """Return the values of each plot by its title and the label of each of its lines."""
    found = re.findall(r'data-plot="([^"]*)"[^>]*><h3>(.*?)</h3>', document)
    plots = {title: json.loads(html.unescape(data)) for data, title in found}
    return {
        title: {curve["label"]: curve["points"] for curve in data["curves"]}
        for title, data in plots.items()
    }


@pytest.fixture
def make_run(tmp_path):
    """Write run folders; takes what `write_run` takes."""
    return functools.partial(write_run, tmp_path)


@pytest.fixture
def running(make_run):
    """The page of a run that goes on."""
    pages = []
    make_run(during=lambda log: pages.append(render(log._run)))
    return pages[0]


def test_a_running_run_shows_how_far_it_is_and_refreshes(running):
    text = text_of(running)
    assert "running" in text
    assert "2 of 4 epochs, 62%" in text
    assert "top-1 45.00% best 45.00% after epoch 2" in text
    assert "525" in text  # images per second of the last step
    assert '<progress max="1" value="0.6250"' in running
    assert '<noscript><meta http-equiv="refresh" content="10"></noscript>' in running
    assert 'type="checkbox"' in running


@pytest.mark.parametrize(
    ("steps", "error", "expected"),
    [
        (40, None, "finished 4 of 4 epochs"),
        (25, SystemExit(75), "stopped 2 of 4 epochs: told to stop"),
        (25, RuntimeError("boom <b>"), "failed 2 of 4 epochs: RuntimeError: boom <b>"),
    ],
)
def test_a_run_that_ended_says_how_and_does_not_refresh(make_run, tmp_path, steps, error, expected):
    def during(_):
        if error:
            raise error

    if error:
        with pytest.raises(type(error)):
            make_run(steps, during=during)
    else:
        make_run(steps)
    document = render(load_run(tmp_path / "some_run"))
    assert expected in text_of(document)
    assert 'http-equiv="refresh"' not in document
    assert 'type="checkbox"' not in document


def test_plots_hold_the_logs_values(running):
    plots = plots_of(running)
    assert plots["Loss"]["training"] == [[0.5, 1.5], [1.5, 0.75]]
    assert plots["Loss"]["validation"] == [[1, 1.4], [2, 0.7]]
    assert plots["Accuracy on validation"]["top-1"] == [[1, 35], [2, 45]]
    rate = plots["Learning rate"]["learning rate"]
    assert (len(rate), rate[0], rate[-1]) == (25, [0.1, 0.001], [2.5, 0.025])
    assert plots["Resolution of training images"]["resolution"][-1] == [2.5, 96]
    assert plots["Waiting for data"]["mean of each epoch"] == [[0.5, 2], [1.5, 2]]
    assert "Model FLOPs utilization" not in plots


def test_figures_of_the_profile_are_shown_where_they_are_measured(make_run):
    use = {"mfu": 0.41, "step_p50_ms": 100.0, "step_p95_ms": 150.0, "peak_memory_gib": 12.3}
    pages = []
    make_run(during=lambda log: pages.append(render(log._run)), time_left_s=7200.0, **use)
    plots = plots_of(pages[0])
    assert plots["Model FLOPs utilization"]["MFU"][-1] == [2.5, 41]
    assert plots["Time of an update"]["95th percentile"][-1] == [2.5, 150]
    for figure in ("time left 2.00 h", "MFU 41.0%", "peak memory 12.3 GiB"):
        assert figure in text_of(pages[0])


def test_what_to_look_at_is_said_in_words(make_run):
    folder = make_run(
        during=lambda log: log.add_warning("the disk is full"),
        data_wait_fraction=0.4,
        num_skipped=3,
    )
    text = text_of(render(load_run(folder)))
    assert "Warning. the disk is full" in text
    assert "The model waits for images. 40% of the time lately" in text
    assert "The model waits" not in text_of(render(load_run(make_run(name="b"))))


def test_a_run_without_a_finished_step_has_a_page(make_run):
    pages = []
    make_run(0, during=lambda log: pages.append(render(log._run)))
    assert "0 of 4 epochs, 0%" in text_of(pages[0])
    assert pages[0].count("nothing yet") == 6


def test_config_environment_and_every_epoch_are_on_the_page(running):
    text = text_of(running)
    assert "training.epochs" not in text  # by section, not by dotted names
    assert "global_batch_size 1024" in text
    assert "git_commit 0123456789" in text
    assert "packages.ffcv -" in text
    assert re.search(r"2 45\.00 70\.00 0\.7500 0\.7000 80 0\.001 512 2\.00", text)


def test_pictures_are_inside_the_file(make_run, tmp_path):
    folder = make_run()
    Image.new("RGB", (2000, 300), "red").save(folder / "contact_sheet.png")
    (folder / "explanation").mkdir()
    (folder / "explanation" / "confusion.png").write_bytes(b"half a picture")
    document = write_page(load_run(folder), tmp_path).read_text()
    sources = re.findall(r'<img[^>]* src="(.{30})', document)
    assert [source[:23] for source in sources] == ["data:image/webp;base64,"]
    assert re.search(r'width="1600" height="240" alt="the same training images', document)


def test_nothing_is_loaded_from_elsewhere(running):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', running)[1]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r'(?:src|href|url)\s*[=(]\s*"?(?!data:)[a-z/.]+[:/]', running)


def test_texts_of_a_run_stay_texts(make_run, tmp_path):
    wicked = "\"'><img src=x onerror=alert(1)><script>\x1b[2J\u202e</script>"
    name = "<script>alert(1)<!--"
    folder = make_run(name=name, during=lambda log: log.add_warning(wicked))
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("name: ff_base_patch16_224", f"name: '{name}'"))
    document = write_page(load_run(folder), tmp_path).read_text()
    rest = document.replace("&lt;script&gt;", "")
    assert rest.count("<script") == 1
    assert "<img" not in rest
    assert "&lt;img src=x onerror=alert(1)&gt;" in rest
    assert "\x1b" not in document
    assert "\u202e" not in document
    assert "alert(1)&lt;!--" in document


def test_the_page_is_written_at_start_and_end_and_seldom_between(make_run, monkeypatch):
    now, times = [100.0], []

    def write(run, _):
        times.append((now[0], run.records[-1]["kind"]))
        now[0] += 0.3

    monkeypatch.setattr(page, "write_page", write)
    monkeypatch.setattr(page.time, "monotonic", lambda: now[0])

    def during(log):
        for _ in range(100):
            now[0] += 1
            log.record("step", step=99, resolution=64)

    make_run(during=during, watchers=[RunPage()])
    assert times[0][1] == "run"
    assert times[-1][1] == "end"
    between = [moment for moment, kind in times if kind == "step"]
    # A page that takes 0.3 s is written every 30 s.
    gaps = [after - before for before, after in itertools.pairwise(between)]
    assert len(between) == 3
    assert min(gaps) >= 30


def test_a_page_that_cannot_be_written_is_a_warning_and_the_old_one_stays(
    make_run, monkeypatch, capsys
):
    folder = make_run(watchers=[RunPage()])
    before = (folder / "index.html").read_text()

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    make_run(watchers=[RunPage()])
    assert "the run's page cannot be written (No space left on device)" in capsys.readouterr().err
    assert (folder / "index.html").read_bytes().decode() == before
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.71342, "0.7134"), (12.5, "12.5"), (1234.5, "1,234"), (4.2e-5, "4.2e-05")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text
    assert number(value, "px") == f"{text} px"


def test_a_long_line_is_averaged_to_what_can_be_seen():
    data = plots_of(plot("a", [Curve("b", [(x, x % 2) for x in range(10_000)])]))["a"]["b"]
    assert len(data) <= 400
    assert all(0.4 < y < 0.6 for _, y in data)


def test_gaps_constant_values_and_single_points_are_drawn():
    points = [(0, None), (1, 5.0), (2, float("nan"))]
    document = plot("a", [Curve("b", points)])
    assert plots_of(document)["a"]["b"] == [[1, 5]]
    first, second = re.search(
        r'class="look0 dot" d="M([\d.,]+) ([\d.,]+)"', document[document.index("<div") :]
    ).groups()
    assert first == second


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_and_lines_have_contrast_in_light_and_dark():
    """WCAG 2.1: 4.5 for text, 3 for lines; a legend's entry is a text in the text's colour."""
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in STYLE.split("@media")[:2]
    )
    assert light.keys() == dark.keys()
    for colors in (light, dark):
        for name in set(colors) - {"surface", "raised", "line"}:
            for ground in ("surface", "raised"):
                pair = sorted(luminance(colors[key]) for key in (name, ground))
                contrast = (pair[1] + 0.05) / (pair[0] + 0.05)
                assert contrast >= 4.5, (name, ground, contrast)


def test_lines_differ_by_dashes_too():
    dashes = [
        re.search(rf"\.look{k} {{[^}}]*?(?:dasharray: ([\d ]+))?; }}", STYLE)[1] for k in range(4)
    ]
    assert len(set(dashes)) == 4
