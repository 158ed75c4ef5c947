"""Probes of Python, the packages and the kernel. Whatever does not import raises here."""

import base64
import importlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterator

from ffvit.cpus import available_cpus
from ffvit.doctor import ERROR, OK, REPOSITORY, WARNING, Finding

_OLDEST_PYTHON = (3, 10)
_SETUP = "make setup PYTHON=/path/to/python3.12"

# Of which no newer or older partner helps: these are compiled against each other.
_PAIRS = ("torch", "torchvision", "numba", "numpy", "llvmlite")

# One grey pixel, a JPEG file.
_JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxO"
    "QERXRTc4UG1RV19iZ2hnPk1xeXBkeFxlZ2P/wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAABP/E"
    "ABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AC//Z"
)


def python() -> Iterator[Finding]:
    """Look at the system and at the Python that runs."""
    system, machine = platform.system(), platform.machine()
    libc, libc_version = platform.libc_ver()
    text = f"{system} {machine}, {libc or 'no glibc'} {libc_version}".strip()
    if system != "Linux" or libc != "glibc":
        mend = "use Linux with glibc, such as Debian or Ubuntu, WSL2 or the Dockerfile"
        yield Finding(ERROR, "system", f"{text}; ffcv needs Linux and glibc", mend)
    else:
        yield Finding(OK, "system", text)
    venv = REPOSITORY / ".venv"
    is_own = os.path.realpath(sys.prefix) == os.path.realpath(venv)
    version = f"{platform.python_version()} in {'.venv' if is_own else sys.prefix}"
    if sys.version_info < _OLDEST_PYTHON:
        yield Finding(ERROR, "python", f"{version}; 3.10 or newer is needed", _SETUP)
    elif (venv / "bin/python").exists() and not is_own:
        text = f"{version}; set-up has made {venv}, which is not active"
        yield Finding(WARNING, "python", text, "source .venv/bin/activate")
    else:
        yield Finding(OK, "python", version)


def requirements() -> Iterator[Finding]:
    """Compare the installed versions with what ffvit, and each of its packages, asks for."""
    from packaging.requirements import Requirement  # noqa: PLC0415 - may be missing

    problems = 0
    try:
        wanted = importlib.metadata.requires("ffvit") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(ERROR, "packages", "ffvit itself is not installed", "make setup")
        return
    direct = [Requirement(text) for text in wanted]
    direct = [
        requirement
        for requirement in direct
        if not requirement.marker or requirement.marker.evaluate({"extra": ""})
    ]
    for requirement in direct:
        name = requirement.name
        found = _version(name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            problems += 1
            mend = f'python -m pip install -c constraints.txt "{name}{requirement.specifier}"'
            text = f"{found or 'missing'}, ffvit needs {name}{requirement.specifier}"
            yield Finding(ERROR, name, text, mend)
        if found is None:
            continue
        for other in map(Requirement, importlib.metadata.requires(name) or []):
            if other.marker and not other.marker.evaluate({"extra": ""}):
                continue
            have = _version(other.name)
            # What is missing shows when it is imported: opencv-python may be its headless twin.
            if have and not other.specifier.contains(have, prereleases=True):
                problems += 1
                text = f"{found} needs {other.name}{other.specifier}, got {have}"
                mend = f'python -m pip install --upgrade {name} "{other.name}{other.specifier}"'
                level = ERROR if name in _PAIRS and other.name in _PAIRS else WARNING
                yield Finding(level, name, text, mend)
    if not problems:
        yield Finding(OK, "packages", f"all {len(direct)} that ffvit asks for, in fitting versions")


def torch() -> Iterator[Finding]:
    """Import torch."""
    begin = time.monotonic()
    module = importlib.import_module("torch")
    took_s = time.monotonic() - begin
    build = module.version.cuda or module.version.hip
    text = f"{module.__version__}, for {f'CUDA {build}' if build else 'CPUs only'}"
    if took_s > 30:
        mend = "put .venv on a local disk: every process of a run waits so long"
        yield Finding(WARNING, "torch", f"{text}; its import took {took_s:.0f} s", mend)
    else:
        yield Finding(OK, "torch", text)


def torchvision() -> Iterator[Finding]:
    """Import torchvision and timm, and call one of torchvision's compiled operations."""
    torch_module = importlib.import_module("torch")
    module = importlib.import_module("torchvision")
    boxes = torch_module.tensor([[0.0, 0.0, 1.0, 1.0]])
    torch_module.ops.torchvision.nms(boxes, torch_module.ones(1), 0.5)
    yield Finding(OK, "torchvision", str(module.__version__))
    yield Finding(OK, "timm", str(importlib.import_module("timm").__version__))


def numba() -> Iterator[Finding]:
    """Import numba and let it compile something."""
    module = importlib.import_module("numba")
    if module.config.DISABLE_JIT:
        text = f"{module.__version__}, told to compile nothing"
        yield Finding(ERROR, "numba", text, "unset NUMBA_DISABLE_JIT")
        return
    module.njit(lambda number: number + 1)(1)
    layer = os.environ.get("NUMBA_THREADING_LAYER", "workqueue")
    if layer != "workqueue":
        text = f"{module.__version__}; NUMBA_THREADING_LAYER={layer} may hang at exit or kill forks"
        yield Finding(WARNING, "numba", text, "unset NUMBA_THREADING_LAYER")
    else:
        yield Finding(OK, "numba", str(module.__version__))


def ffcv() -> Iterator[Finding]:
    """Import ffcv, the way ffvit does, and what it compiled."""
    importlib.import_module("ffvit.data")
    importlib.import_module("ffcv.libffcv")
    yield Finding(OK, "ffcv", _version("ffcv") or "of unknown version")


def kernel() -> Iterator[Finding]:
    """Load the JPEG kernel, and let it decode an image in as many threads as there are cores."""
    module = importlib.import_module("ffvit.jpeg.kernel")
    num_threads = available_cpus()
    pool = module.ThreadPool(num_threads)
    status = module.check_jpeg(pool.address, _JPEG, len(_JPEG), 1, 1)
    if status != 0:
        raise RuntimeError(f"it decodes wrongly: {module.STATUS_TEXT[status]}")
    path, *others = module.targets()
    text = f"{path}{f' (of {path}, ' + ', '.join(others) + ')' if others else ''}"
    text += f", {num_threads} threads"
    if path == "plain":
        mend = (
            "use a machine with AVX2 or NEON; a virtual machine may hide it: give it the host's CPU"
        )
        yield Finding(WARNING, "kernel", f"{text}; several times slower than with AVX2", mend)
    else:
        yield Finding(OK, "kernel", text)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
