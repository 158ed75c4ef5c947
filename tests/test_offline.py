"""What the bundle's install.sh refuses and does; the bundle itself needs a network to be made."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "offline_install.sh"
GLIBC = os.confstr("CS_GNU_LIBC_VERSION").split()[1]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

# A Python of this version that notes what it is told to do; its modules are as a test says.
PYTHON = f"""#!/bin/sh
case "$*" in
    *version_info*) echo {VERSION} ;;
    *sys.executable*) echo "$0" ;;
    *"import torch"*) exit "$NO_TORCH" ;;
    *"import cv2"*) exit "$NO_CV2" ;;
    *) echo "$*" >>"$LOG" ;;
esac
"""


@pytest.fixture
def install(tmp_path):
    """Run install.sh beside a `built_for`, which differs from this machine as a test says."""
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(PYTHON)
    python.chmod(0o755)
    shutil.copy(SCRIPT, tmp_path / "install.sh")

    def run(no_torch=0, no_cv2=0, name=str(python), **built_for):
        built_for = {"python": VERSION, "glibc": GLIBC, "machine": platform.machine()} | built_for
        lines = [f"{key}={value}\n" for key, value in built_for.items()]
        (tmp_path / "built_for").write_text("".join(lines))
        done = subprocess.run(
            ["bash", str(tmp_path / "install.sh")],
            env=os.environ
            | {"PYTHON": name, "LOG": str(log), "NO_TORCH": str(no_torch), "NO_CV2": str(no_cv2)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done, log.read_text() if log.exists() else ""

    return run


@pytest.mark.parametrize(
    ("differs", "message"),
    [
        ({"python": "3.99"}, f"for Python 3.99, got {VERSION}"),
        ({"glibc": "2.999"}, f"needs glibc 2.999 or newer, got {GLIBC}"),
        ({"machine": "vax"}, f"is for vax, and this machine is {platform.machine()}"),
        ({"no_torch": 1}, "expected torch and torchvision, which this bundle does not hold"),
        ({"name": "/nowhere/python"}, "PYTHON=/nowhere/python: expected a Python"),
    ],
)
def test_a_machine_that_the_bundle_does_not_fit_is_told_so_in_one_line(install, differs, message):
    done, log = install(**differs)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert log == ""


def test_an_older_glibc_of_the_bundle_is_fine(install):
    assert install(glibc="2.2")[0].returncode == 0


def test_it_installs_without_an_index_and_headless_opencv_only_where_there_is_none(install):
    done, log = install(no_cv2=0)
    assert done.returncode == 0, done.stderr
    first, second = log.splitlines()
    assert first.startswith("-m pip ")
    assert first.endswith("install --no-index --find-links wheels ffvit")
    assert second == "-c import ffcv, ffvit.jpeg.kernel"
    assert "train_imagenet.py --config ff_configs/quickstart.yaml" in done.stdout
    assert "--no-index" in install(no_cv2=1)[1].splitlines()[-2]
