"""What a measurement was made on and with: hardware, versions, commit. No host names, no paths."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]

# Distributions whose version may explain a figure; what is not installed is left out.
PACKAGES = (
    "ffvit",
    "ffcv",
    "numba",
    "numpy",
    "torch",
    "torchvision",
    "timm",
    "pillow",
    "opencv-python",
    "opencv-python-headless",
    "nvidia-dali-cuda130",
    "webdataset",
)
# Libraries that ffcv and the kernel are linked with, by their pkg-config names.
LIBRARIES = {"opencv of ffcv": "opencv4", "libjpeg-turbo of ffcv and ffvit": "libturbojpeg"}


def describe_machine() -> dict[str, Any]:
    """Describe this machine, the software that is measured and its commit."""
    return {
        "cpu": _cpu_model(),
        "num_cpu_cores": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "python": platform.python_version(),
        "versions": _versions(),
        "git_commit": _git("rev-parse", "HEAD"),
        "has_uncommitted_changes": _git("status", "--porcelain", "--untracked-files=no") != "",
    }


def short_name(machine: dict[str, Any]) -> str:
    """Name a machine in a file name: what its processor is called, and how many cores it has."""
    words = str(machine["cpu"]).lower().replace("(r)", "").replace("(tm)", "").split()
    kept = [word for word in words if word.isalnum()][:2]
    return "".join(kept) + f"_{machine['num_cpu_cores']}cores"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions() -> dict[str, str]:
    import PIL.features  # noqa: PLC0415 - callers that only name a file need not wait for it

    installed = {d.name.lower(): d.version for d in metadata.distributions()}
    versions = {name: installed[name] for name in PACKAGES if name in installed}
    versions["libjpeg-turbo of pillow"] = PIL.features.version("libjpeg_turbo") or "none"
    for name, library in LIBRARIES.items():
        versions[name] = _output("pkg-config", "--modversion", library) or "unknown"
    return versions


def _git(*arguments: str) -> str:
    return _output("git", *arguments)


def _output(*command: str) -> str:
    """Return what a command prints, or nothing if it is not there or fails."""
    try:
        result = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()
