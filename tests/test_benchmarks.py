"""The benchmarks' arithmetic, the page made from their results, and a run that measures little."""

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import augment, tables, targets
from benchmarks.loaders import quartiles, ratio
from benchmarks.machine import short_name
from benchmarks.processes import ProcessError, run_apart
from benchmarks.quality import difference, resize_exactly

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT.parent / "shared" / "data" / "imagenet_sample.tar"


def loaders_result(rates):
    return {"loaders": {"images_per_s": {name: {"224": r} for name, r in rates.items()}}}


def test_ratios_are_taken_within_a_round():
    measured = loaders_result({"a": [10.0, 40.0, 90.0], "b": [5.0, 10.0, 30.0]})["loaders"]
    assert ratio(measured, "a", "b", 224) == [2, 4, 3]
    assert ratio(measured, "a", "b", 192) == []
    assert ratio(measured, "a", "missing", 224) == []


def test_quartiles_are_in_order():
    assert quartiles([5, 1, 2, 4, 3]) == {"min": 1, "q1": 2, "median": 3, "q3": 4, "max": 5}


@pytest.mark.parametrize(
    ("values", "is_most", "verdict"),
    [
        ([1.0, 2.0, 9.0], False, "ok"),
        ([1.0, 1.9, 9.0], False, "short"),
        ([1.0, 1.9, 9.0], True, "ok"),
        ([1.0, 2.1, 2.2], True, "short"),
        ([], True, "not measured"),
    ],
)
def test_the_median_decides_whether_a_target_is_met(values, is_most, verdict):
    assert targets.Row("x", 2.0, is_most, "x", values).verdict() == verdict


def test_a_machine_is_named_by_its_processor():
    machine = {"cpu": "Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz", "num_cpu_cores": 7}
    assert short_name(machine) == "intelxeon_7cores"


def test_the_exact_resize_enlarges_as_pillow_does_and_keeps_the_mean_when_it_shrinks():
    pixels = np.random.default_rng(0).integers(60, 190, (37, 29, 3), dtype=np.uint8)
    enlarged = resize_exactly(pixels, 53)
    pillow = np.asarray(Image.fromarray(pixels).resize((53, 53), Image.Resampling.BILINEAR))
    assert np.abs(enlarged.astype(int) - pillow).max() <= 1
    shrunk = resize_exactly(pixels, 11)
    assert abs(float(shrunk.mean()) - float(pixels.mean())) < 0.5


def test_psnr_of_one_level_everywhere_is_48_db():
    image = np.full((7, 7, 3), 100, dtype=np.uint8)
    found = difference(image + np.uint8(1), image)
    assert found["psnr_db"] == pytest.approx(48.13, abs=0.01)
    assert found["mean_abs"] == 1


def test_a_table_replaces_only_what_is_between_its_marks():
    page = "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n<!-- generated: y -->\n<!-- end -->\n"
    filled = tables.fill_page(page, {"x": "new \\1"})
    assert filled == page.replace("old", "new \\1")


def test_the_page_of_benchmarks_is_made_from_the_newest_result():
    page = tables.PAGE.read_text()
    assert tables.fill_page(page, tables.all_tables(tables.newest_result())) == page


def test_the_page_of_augmentation_is_made_from_its_result():
    page, result = (
        augment.PAGE.read_text(),
        json.loads(max(augment.RESULTS.glob("augment_*.json")).read_text()),
    )
    assert tables.fill_page(page, augment.tables(result)) == page


@pytest.mark.parametrize(
    ("function", "argument", "reason"),
    [
        (int, "seven", "ValueError: invalid literal"),
        (time.sleep, 600, "no answer in 3 s"),
        (os._exit, 3, "its process died"),
    ],
)
def test_what_is_measured_may_raise_hang_or_die(function, argument, reason):
    with pytest.raises(ProcessError, match=reason):
        run_apart(function, argument, timeout_s=3)


def test_a_measurement_returns_from_its_process():
    assert run_apart(abs, -7) == 7


@pytest.mark.slow
@pytest.mark.data
def test_a_quick_benchmark_measures_all_it_can(tmp_path):
    if not SAMPLE.exists():
        pytest.skip("needs ../shared/data")
    python = ROOT / ".bench-venv" / "bin" / "python"
    if not python.exists():
        pytest.skip("needs the peers that make bench installs")
    output = tmp_path / "quick.json"
    command = [str(python), "-m", "benchmarks", "--quick", f"--output={output}"]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(output.read_text())
    assert result["loaders"]["not_measured"] == {}
    assert {row["row"] for row in result["targets"] if row["verdict"] != "not measured"}
    assert "| stock, old | 224 |" in run.stdout
