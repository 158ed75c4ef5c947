"""The doctor on machines where things are missing, crash or hang: no probe may take it along."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ffvit.doctor import examine as examining
from ffvit.doctor.examine import examine, examine_all
from ffvit.doctor.probes import PROBES

REPOSITORY = Path(__file__).parents[2]
MISSING = ["torch", "torchvision", "timm", "numba", "ffcv", "numpy", "packaging", "cv2"]


def break_imports(folder: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> None:
    """Put modules of this content before all others, for this process's children."""
    for name, content in modules.items():
        (folder / f"{name}.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ffvit", "doctor", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_bare_python_gets_a_whole_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {name: f'raise ModuleNotFoundError("No module named {name!r}")' for name in MISSING}
    modules["sitecustomize"] = (
        "import sys\n"
        "class NoKernel:\n"
        "    def find_spec(name, path, target=None):\n"
        "        if name.endswith('_kernel'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}')\n"
        "sys.meta_path.insert(0, NoKernel)\n"
    )
    break_imports(tmp_path, monkeypatch, **modules)
    done = doctor("--json", "--beton", str(tmp_path / "no.beton"))
    assert done.returncode == 1
    assert done.stderr == ""
    report = json.loads(done.stdout)
    levels = {finding["name"]: finding["level"] for finding in report["findings"]}
    for name in ("packages", "torch", "numba", "kernel", "storage"):
        assert levels[name] == "error", name
    # These would only repeat what torch and numba say.
    for name in ("torchvision", "ffcv", "GPUs", "NCCL", "beton"):
        assert levels[name] == "warning", name
    assert {"python", "g++", "cores", "memory", "/dev/shm", "disk", "limits"} <= set(levels)
    mends = {finding["name"]: finding["mend"] for finding in report["findings"]}
    assert mends["kernel"] == "rm -f .venv/.done-run && make kernel"
    assert all(finding["mend"] for finding in report["findings"] if finding["level"] != "ok")
    assert report["num_errors"] == sum(level == "error" for level in levels.values())


def test_a_probe_that_hangs_is_given_up_and_what_it_found_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_imports(
        tmp_path,
        monkeypatch,
        torch="class ops:\n    class torchvision:\n        nms = print\ntensor = ones = print\n",
        torchvision="__version__ = '0.99'",
        timm="import subprocess\nsubprocess.run(['sleep', '60'])",
    )
    probe = dataclasses.replace(PROBES["torchvision"], limit_s=3)
    begin = time.monotonic()
    found, stuck = examine(probe)
    assert time.monotonic() - begin < 20
    assert (found.level, found.text) == ("ok", "0.99")
    assert (stuck.level, stuck.text) == ("error", "no answer within 3 s")
    assert stuck.mend


def test_a_probe_that_crashes_is_an_error_with_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)"
    break_imports(tmp_path, monkeypatch, torch=crash)
    (finding,) = examine(PROBES["torch"])
    assert finding.level == "error"
    assert finding.text.startswith("crashed by SIGSEGV")


def test_what_a_library_prints_does_not_stand_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = "import os\nprint('hello')\nos.system('echo hello')\n"
    content = noise + "__version__ = '9'\nclass version:\n    cuda = hip = None"
    break_imports(tmp_path, monkeypatch, torch=content)
    (finding,) = examine(PROBES["torch"])
    assert finding.text == "9, for CPUs only"


@pytest.mark.parametrize(
    ("message", "mend"),
    [
        ("ModuleNotFoundError: No module named 'distutils'", '"setuptools>=77"'),
        ("ModuleNotFoundError: No module named 'distutils.log'", '"setuptools>=77"'),
        (
            "ImportError: libopencv_imgproc.so.406: cannot open shared object file: No such file",
            ".done-",
        ),
        ("ImportError: libGL.so.1: cannot open shared object file", "opencv-python-headless"),
        ("RuntimeError: operator torchvision::nms does not exist", "torch torchvision"),
        ("ImportError: Numba needs NumPy 2.3 or less. Got NumPy 2.4.", "constraints.txt numba"),
        (
            "ImportError: /lib/libstdc++.so.6: version `GLIBCXX_3.4.30' not found",
            "LD_LIBRARY_PATH",
        ),
        ("ImportError: /lib/libc.so.6: version `GLIBC_2.34' not found", "rm -rf .venv"),
        ("ImportError: something new", PROBES["ffcv"].mend),
    ],
)
def test_known_failures_have_a_mend_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, mend: str
) -> None:
    kind, _, text = message.partition(": ")
    break_imports(
        tmp_path,
        monkeypatch,
        ffcv=f"raise {kind}({text!r})",
        torch="get_num_threads=int\nset_num_threads=id\n",
    )
    (finding,) = examine(PROBES["ffcv"])
    assert finding.level == "error"
    assert finding.text == message
    assert mend in finding.mend


def test_without_the_environment_active_the_first_thing_to_do_is_to_activate_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    monkeypatch.setattr(examining, "REPOSITORY", tmp_path)
    break_imports(tmp_path, monkeypatch, numba="raise ImportError('No module named x')")
    (finding,) = examine(PROBES["numba"])
    assert finding.mend == "source .venv/bin/activate"


def test_what_compiles_may_be_missing_where_all_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = os.path.dirname(sys.executable)  # noqa: PTH120
    monkeypatch.setenv("PATH", empty)
    chosen = ("kernel", "compiler", "libraries")
    monkeypatch.setattr(examining, "PROBES", {name: PROBES[name] for name in chosen})
    findings = {finding.name: finding for finding in examine_all([])}
    assert findings["kernel"].level == "ok"
    for name in ("g++", "pkg-config", "opencv4", "libturbojpeg", "libjpeg"):
        assert findings[name].level == "warning"
        assert "only to compile" in findings[name].text
    broken = {"kernel": dataclasses.replace(PROBES["kernel"], limit_s=0.001)}
    monkeypatch.setattr(examining, "PROBES", broken | {"compiler": PROBES["compiler"]})
    levels = {finding.name: finding.level for finding in examine_all([])}
    assert levels["g++"] == "error"
