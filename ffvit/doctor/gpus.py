"""Probes of GPUs, through torch and through the driver's own program, and of NCCL."""

import importlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ffvit.doctor import ERROR, OK, WARNING, Finding, in_bytes

NCCL_MEND = (
    "NCCL_DEBUG=INFO python -m ffvit doctor, then NCCL_P2P_DISABLE=1: GPUs that cannot reach each "
    "other (IOMMU, ACS) hang"
)
_INSTALL = "python -m pip install --force-reinstall torch torchvision"
_OTHER_CUDA = (
    "update the driver, or install a torch for a CUDA version that it knows: "
    "https://pytorch.org/get-started/previous-versions"
)
# bf16 in hardware from here on (Ampere).
_BF16_CAPABILITY = (8, 0)


def num_devices(root: str = "/") -> int:
    """Count the GPUs whose device files NVIDIA's driver has made."""
    return len(list(Path(root).glob("dev/nvidia[0-9]*")))


def has_gpus(root: str = "/") -> bool:
    """Tell whether there is any sign of a GPU: a device file (also AMD's, WSL2's), a driver."""
    others = any((Path(root) / "dev" / name).exists() for name in ("kfd", "dxg"))
    return num_devices(root) > 0 or others or shutil.which("nvidia-smi") is not None


def gpus(root: str = "/") -> Iterator[Finding]:
    """Look at each GPU that torch sees, and at those it does not."""
    if not has_gpus(root):
        text = "none: training runs on the CPU, fit for small images only"
        yield Finding(OK, "GPUs", text)
        return
    torch = importlib.import_module("torch")
    driver = _driver()
    if not torch.cuda.is_available():
        yield _no_gpu(torch, driver, num_devices(root))
        return
    count = torch.cuda.device_count()
    hidden = num_devices(root) - count
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    text = f"{count}, {driver or 'driver unknown'}"
    if hidden > 0 and visible is not None:
        text += f"; {hidden} more hidden by CUDA_VISIBLE_DEVICES={visible}"
    yield Finding(OK, "GPUs", text)
    for index in range(count):
        yield _gpu(torch, index)


def _no_gpu(torch: Any, driver: str, num_present: int) -> Finding:
    """Say why torch sees no GPU."""
    if not driver:
        text = f"{num_present} device files, but the driver does not answer"
        return Finding(ERROR, "GPUs", text, "nvidia-smi (shows why; after an update, reboot)")
    if torch.version.cuda is None:
        text = f"{driver}, but this torch is built for CPUs only"
        return Finding(ERROR, "GPUs", text, _INSTALL)
    try:
        torch.cuda.init()
        reason = "no GPU is visible"
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Finding(ERROR, "GPUs", "hidden", "unset CUDA_VISIBLE_DEVICES")
    text = f"{driver}, but torch for CUDA {torch.version.cuda} cannot use it: {reason}"
    return Finding(ERROR, "GPUs", text, _OTHER_CUDA)


def _gpu(torch: Any, index: int) -> Finding:
    """Look at one GPU and let it compute."""
    name = f"GPU {index}"
    properties = torch.cuda.get_device_properties(index)
    capability = (properties.major, properties.minor)
    version = ".".join(map(str, capability))
    free, total = torch.cuda.mem_get_info(index)
    text = f"{properties.name}, {in_bytes(total)}, compute capability {version}"
    try:
        ones = torch.ones(64, 64, device=f"cuda:{index}")
        is_right = bool((ones @ ones == 64).all())
    except RuntimeError as error:
        known = ", ".join(torch.cuda.get_arch_list())
        text += f"; cannot compute: {str(error).splitlines()[0]} (this torch is for {known})"
        return Finding(ERROR, name, text, _OTHER_CUDA)
    if not is_right:
        return Finding(ERROR, name, f"{text}; multiplies wrongly", "nvidia-smi -q -d ECC")
    if free < 0.9 * total:
        text += f", of which {in_bytes(total - free)} are in use"
        return Finding(WARNING, name, text, "nvidia-smi (shows by which processes)")
    if capability < _BF16_CAPABILITY:
        text += "; no bf16 in hardware"
        return Finding(WARNING, name, text, "--training.mixed_precision=false")
    return Finding(OK, name, text)


def nccl() -> Iterator[Finding]:
    """Let all GPUs add up a tensor: what hangs where they cannot reach each other."""
    if not has_gpus():
        yield Finding(OK, "NCCL", "not needed without GPUs")
        return
    torch = importlib.import_module("torch")
    if not torch.distributed.is_nccl_available():
        has_several = num_devices() > 1
        text = "not in this torch" + ("" if has_several else ", and not needed")
        yield Finding(WARNING if has_several else OK, "NCCL", text, _INSTALL if has_several else "")
        return
    version = ".".join(map(str, torch.cuda.nccl.version()))
    count = torch.cuda.device_count()
    if count < 2:
        yield Finding(OK, "NCCL", f"{version}; nothing to exchange with {count} GPUs")
        return
    tensors = [torch.ones(1 << 20, device=f"cuda:{index}") for index in range(count)]
    torch.cuda.nccl.all_reduce(tensors)
    for tensor in tensors:
        if not bool((tensor == count).all()):
            yield Finding(ERROR, "NCCL", f"{version}; GPUs add up wrongly", NCCL_MEND)
            return
    peers = all(
        torch.cuda.can_device_access_peer(a, b)
        for a in range(count)
        for b in range(count)
        if a != b
    )
    way = "directly" if peers else "by way of the host's memory"
    yield Finding(OK, "NCCL", f"{version}; {count} GPUs reach each other {way}")


def _driver() -> str:
    """Ask the driver's program for its version and GPUs; empty if there is none."""
    query = ["nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = done.stdout.strip().splitlines()
    if not lines:
        return ""
    version, _, name = lines[0].partition(", ")
    return f"driver {version} with {len(lines)} x {name}"
