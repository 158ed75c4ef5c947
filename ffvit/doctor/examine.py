"""Runs a probe in a process of its own, for so long at most, and says what became of it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

from ffvit.doctor import ERROR, OK, REPOSITORY, WARNING, Finding
from ffvit.doctor.probes import PROBES, Probe

# What the last lines of a failed import say: what to do about it. The first that fits counts.
_KNOWN = {
    r"No module named 'distutils": 'python -m pip install "setuptools>=77"',
    r"No module named '[\w.]*_kernel'": "rm -f .venv/.done-run && make kernel",
    r"operator torchvision::nms does not exist": (
        "python -m pip install --upgrade torch torchvision (they belong together in pairs)"
    ),
    r"GLIBCXX_|CXXABI_": (
        "unset LD_LIBRARY_PATH (an older libstdc++, often conda's, is found before the system's)"
    ),
    r"GLIBC_\d": "rm -rf .venv && make setup (it was compiled on a newer system)",
    r"libGL\.|libgthread|libSM\.|libXext": (
        "python -m pip install --force-reinstall --no-deps opencv-python-headless"
    ),
    # ffcv was compiled against an OpenCV or libjpeg-turbo that has been replaced since.
    r"lib(opencv|turbojpeg|jpeg)\w*\.so|undefined symbol: \w*(cv|tj)": (
        "rm -f .venv/.done-* && make setup (compiles it anew against the libraries of today)"
    ),
    r"[Nn]umba needs NumPy|_ARRAY_API|compiled using NumPy 1": (
        "python -m pip install -c constraints.txt numba numpy"
    ),
    r"CUDA driver version is insufficient|driver on your system is too old": (
        "update the driver, or install a torch for its CUDA version: see pytorch.org"
    ),
    r"out of memory": "nvidia-smi (shows which processes hold the memory of the GPUs)",
}


def examine_all(betons: list[str]) -> Iterator[Finding]:
    """Run every probe, one after the other: they would disturb each other's times.

    Args:
        betons: Files, for the probes that look at one.
    """
    failed: set[str] = set()
    for probe in PROBES.values():
        for target in betons if probe.takes_beton else [None]:
            missing = [name for name in probe.needs if name in failed]
            if missing:
                cause = f"not looked at, as {missing[0]} does not work"
                findings = [Finding(WARNING, probe.name, cause, f"mend {missing[0]} first")]
            else:
                findings = examine(probe, target)
            if missing or any(finding.level == ERROR for finding in findings):
                failed.add(probe.name)
            if probe.only_to_compile and not failed & {"kernel", "ffcv"}:
                findings = [_only_to_compile(finding) for finding in findings]
            yield from findings


def examine(probe: Probe, target: str | None = None) -> list[Finding]:
    """Run one probe; it may raise, crash or hang.

    Returns:
        What it found, and how it ended if not well. A process that cannot even be killed, as it
        waits for a dead disk, is left behind.
    """
    command = [sys.executable, "-m", "ffvit.doctor", probe.name, *([target] if target else [])]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    problem = ""
    errors = b""
    try:
        output, errors = process.communicate(timeout=probe.limit_s)
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        problem = f"no answer within {probe.limit_s:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
    found = [
        Finding(**json.loads(line))
        for line in output.decode().splitlines(keepends=True)
        if line.endswith("\n")
    ]
    mend = probe.mend
    if not problem and process.returncode:
        message = errors.decode(errors="replace").strip()
        problem = _last_line(message) or "it ended without a word"
        if process.returncode < 0:
            problem = f"crashed by {signal.Signals(-process.returncode).name}: {problem}"
        mend = _known_mend(message) or probe.mend
    if problem:
        found.append(Finding(ERROR, probe.name, problem, _in_the_environment(mend)))
    return found


def _last_line(message: str) -> str:
    """Take the line that says what went wrong: the last that is not indented."""
    lines = [line for line in message.splitlines() if line.strip() and not line[0].isspace()]
    return lines[-1][:300] if lines else ""


def _known_mend(message: str) -> str:
    tail = message[-2000:]
    return next((mend for pattern, mend in _KNOWN.items() if re.search(pattern, tail)), "")


def _in_the_environment(mend: str) -> str:
    """Say to activate the environment first, if there is one that is not in use."""
    venv = REPOSITORY / ".venv"
    if (venv / "bin/python").exists() and os.path.realpath(sys.prefix) != os.path.realpath(venv):
        return "source .venv/bin/activate"
    return mend


def _only_to_compile(finding: Finding) -> Finding:
    """Lower an error about what compiles to a warning, as all that it compiles is there."""
    if finding.level == OK:
        return finding
    text = f"{finding.text}; needed only to compile ffcv or the kernel again"
    return Finding(WARNING, finding.name, text, finding.mend)
