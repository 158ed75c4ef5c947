"""What stock ffcv 1.0.2 does where tests/faults/test_writing.py says what we do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ffcv.reader import Reader

NUM_SECOND = 30  # as in the script
SCRIPT = Path(__file__).with_name("stock_writing.py")


@pytest.mark.fault
def test_stock_writer_hangs_destroys_the_old_beton_and_leaves_workers_behind(tmp_path):
    command = ["unshare", "-m", sys.executable, str(SCRIPT), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    if "unshare failed" in result.stderr or "cannot mount" in result.stderr:
        pytest.skip("needs the right to mount a tmpfs: root, or user namespaces")
    assert result.returncode == 0, result.stderr
    reports = json.loads(result.stdout.splitlines()[-1])
    hanging = {name for name, report in reports.items() if report["status"] is None}
    assert hanging == reports.keys() - {"Ctrl-C", "SIGTERM", "SIGKILL"}
    assert reports["Ctrl-C"]["status"] == 1  # a traceback
    for name in ("SIGTERM", "SIGKILL"):
        assert reports[name]["status"] < 0
        assert reports[name]["outlived"] >= 2  # its workers
    for report in reports.values():
        assert not report["old_is_there"]
        assert report["num_samples"] is not None  # no complaint, though it was never finished
    assert (
        reports["two writers"]["num_samples"] == NUM_SECOND
    )  # the second's, while the first hangs


@pytest.mark.fault
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_stock_writer_works_with_every_start_method(method, tmp_path):
    script = SCRIPT.with_name("stock_start_method.py")
    path = tmp_path / "a.beton"
    command = [sys.executable, str(script), method, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert result.returncode == 0, result.stderr
    assert Reader(str(path)).num_samples == int(result.stdout)
