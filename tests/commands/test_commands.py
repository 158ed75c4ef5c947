"""Every module in ffvit/commands is a command, and asking for help takes no time."""

import subprocess
import sys
from pathlib import Path

import pytest

from ffvit.__main__ import COMMANDS

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("torch", "ffcv", "numba", "timm")


def test_the_list_names_every_module():
    modules = {path.stem for path in (REPOSITORY / "ffvit/commands").glob("[!_]*.py")}
    assert modules == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_the_command_does_and_imports_nothing_heavy(name):
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['ffvit', {name!r}, '--help']\n"
        "try:\n    runpy.run_module('ffvit', run_name='__main__')\n"
        f"finally:\n    sys.exit(str([name for name in {HEAVY} if name in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"usage: python -m ffvit {name}" in done.stdout
    assert done.stderr.strip() == "[]"
