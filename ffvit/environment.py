"""What a result depends on besides its config: commit, versions, hardware."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torchvision", "timm", "ffcv", "numba", "numpy", "torchmetrics")


def describe_environment() -> dict[str, Any]:
    """Collect what a result depends on besides its config. The machine's name is left out.

    Returns:
        `git_commit` and `git_is_dirty` (None outside a checkout), `python`, `packages` (versions),
        `cuda` (of torch), `cpu`, `num_cpu_cores` (that this process may use), `gpus` (names),
        `gpu_power_limits_w` (None without nvidia-smi).
    """
    import torch  # noqa: PLC0415  reading a log must not need torch

    checkout = Path(__file__).parents[1]
    commit, status, limits = None, None, None
    if (checkout / ".git").exists():
        commit = _output_of("git", "-C", str(checkout), "rev-parse", "HEAD")
        status = _output_of("git", "-C", str(checkout), "status", "--porcelain", "-uno")
    num_gpus = torch.cuda.device_count()
    if num_gpus:
        limits = _output_of(
            "nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader,nounits"
        )
    return {
        "git_commit": commit,
        "git_is_dirty": None if status is None else bool(status),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "cpu": _cpu_model(),
        "num_cpu_cores": len(os.sched_getaffinity(0)),
        "gpus": [torch.cuda.get_device_name(index) for index in range(num_gpus)],
        "gpu_power_limits_w": None if limits is None else limits.splitlines(),
    }


def _output_of(*command: str) -> str | None:
    """Return a command's output, or None where it does not exist, fails or hangs."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
