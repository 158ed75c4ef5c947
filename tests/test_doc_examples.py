"""The Python blocks of the documentation run, one after the other, as in a notebook."""

import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ffvit.data.sample import write_sample

ROOT = Path(__file__).resolve().parents[1]


def run_blocks(page, monkeypatch):
    """Run a page's blocks as one module; an error names page, block and line."""
    module = ModuleType("notebook")
    monkeypatch.setitem(sys.modules, "notebook", module)  # timm looks for a model's module
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), vars(module))


@pytest.mark.slow
# Stock ffcv's loader leaves numba dispatchers whose finalisers fail (tests/jpeg/test_decoders.py).
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <finalize:pytest.PytestUnraisableExceptionWarning"
)
def test_the_page_for_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_sample(Path("photos"), seed=0)
    shutil.copytree(ROOT / "ff_configs", "ff_configs")
    run_blocks(ROOT / "docs" / "python.md", monkeypatch)
    output = capsys.readouterr().out
    assert "runs/photos/report.md" in output
    assert re.search(r"^3 0\.\d+ \d+", output, re.MULTILINE)
    assert "torch.Size([1, 10])" in output


def test_the_page_on_adding_a_model(monkeypatch, capsys):
    run_blocks(ROOT / "docs" / "extending.md", monkeypatch)
    assert "torch.Size([1, 10])" in capsys.readouterr().out
