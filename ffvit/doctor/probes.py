"""The list of probes, in the order of the report."""

import dataclasses
from collections.abc import Callable, Iterator

from ffvit.doctor import Finding, build_tools, gpus, machine, packages, storage


@dataclasses.dataclass(frozen=True)
class Probe:
    """Something that is looked at.

    Attributes:
        name: Of the probe, and of the finding if it fails.
        run: Gives its findings, or raises; called with a beton's path if it takes one.
        mend: What to do if it fails, unless its message tells more.
        limit_s: How long it may take.
        needs: Probes without which it makes no sense.
        takes_beton: Whether it looks at a beton.
        only_to_compile: Whether what it looks at matters only while something is to be compiled.
    """

    name: str
    run: Callable[..., Iterator[Finding]]
    mend: str = "rm -f .venv/.done-* && make setup"
    limit_s: float = 30
    needs: tuple[str, ...] = ()
    takes_beton: bool = False
    only_to_compile: bool = False


# Importing torch from a cold network disk takes over a minute.
_IMPORT_LIMIT_S = 180

_STUCK_DISK = "wait for the disk, or use another one: it does not answer"

PROBES = {
    probe.name: probe
    for probe in (
        Probe("python", packages.python),
        Probe("packages", packages.requirements),
        Probe("torch", packages.torch, limit_s=_IMPORT_LIMIT_S),
        Probe("torchvision", packages.torchvision, limit_s=_IMPORT_LIMIT_S, needs=("torch",)),
        Probe("numba", packages.numba, limit_s=_IMPORT_LIMIT_S),
        Probe(
            "ffcv",
            packages.ffcv,
            "rm -f .venv/.done-ffcv && make setup",
            limit_s=_IMPORT_LIMIT_S,
            needs=("torch", "numba"),
        ),
        Probe("kernel", packages.kernel, "rm -f .venv/.done-run && make kernel"),
        Probe("compiler", build_tools.compiler, only_to_compile=True),
        Probe("libraries", build_tools.libraries, only_to_compile=True),
        Probe("GPUs", gpus.gpus, "nvidia-smi (does it answer?)", 120, needs=("torch",)),
        Probe("NCCL", gpus.nccl, gpus.NCCL_MEND, 120, needs=("torch", "GPUs")),
        Probe("cores", machine.cores),
        Probe("memory", machine.memory),
        Probe("/dev/shm", machine.shared_memory),
        Probe("disk", machine.disk, _STUCK_DISK),
        Probe("limits", machine.limits),
        Probe(
            "beton",
            storage.beton,
            limit_s=_IMPORT_LIMIT_S,
            needs=("ffcv",),
            takes_beton=True,
        ),
        Probe("storage", storage.read_speed, _STUCK_DISK, 30, takes_beton=True),
    )
}
