"""Probes of what compiles ffcv and the kernel: compiler, pkg-config, headers."""

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ffvit.doctor import ERROR, OK, REPOSITORY, Finding

# pkg-config's name: the header to include, and Debian's package.
_LIBRARIES = {
    "opencv4": ("opencv2/core.hpp", "libopencv-dev"),
    "libturbojpeg": ("turbojpeg.h", "libturbojpeg0-dev"),
    "libjpeg": ("cstdio>\n#include <jpeglib.h", "libjpeg-dev"),
}
_LIMIT_S = 20


def compiler() -> Iterator[Finding]:
    """Look for a C++ compiler, pkg-config and Python's headers."""
    for program, package in (("g++", "g++"), ("pkg-config", "pkg-config")):
        version = _output_of(program, "--version").partition("\n")[0]
        if version:
            yield Finding(OK, program, version)
        else:
            yield Finding(ERROR, program, "not found", _install(package))
    headers = Path(sysconfig.get_path("include"))
    prefix = REPOSITORY / ".prefix"
    if any((folder / "Python.h").exists() for folder in (headers, *prefix.glob("usr/include/py*"))):
        yield Finding(OK, "Python.h", str(headers))
    else:
        package = f"python{sysconfig.get_python_version()}-dev"
        yield Finding(ERROR, "Python.h", f"not in {headers}", _install(package))


def libraries() -> Iterator[Finding]:
    """Look for OpenCV and libjpeg-turbo as a compiler sees them: their headers are compiled."""
    for name, (header, package) in _LIBRARIES.items():
        version = _output_of("pkg-config", "--modversion", name)
        if not version:
            text = f"pkg-config does not know {name}"
            if name == "opencv4":
                text += " (pip's opencv-python has no headers)"
            yield Finding(ERROR, name, text, _install(package))
            continue
        flags = _output_of("pkg-config", "--cflags", name).split()
        program = f"#include <{header}>\n"
        command = [os.environ.get("CXX", "g++"), "-x", "c++", "-fsyntax-only", *flags, "-"]
        problem = _problem_of(command, program)
        if problem:
            text = f"{version}, but its headers do not compile: {problem}"
            yield Finding(ERROR, name, text, _install(package))
        else:
            yield Finding(OK, name, version)


def _install(package: str) -> str:
    """Say how to install one of Debian's packages: the set-up does it even without root."""
    if shutil.which("apt-get"):
        return f"sudo apt-get install {package}    (without root: make setup)"
    return f"install {package} (Debian's name), then make setup"


def _environment() -> dict[str, str]:
    """Add what set-up unpacked under .prefix where there was no root."""
    environment = dict(os.environ)
    usr = REPOSITORY / ".prefix/usr"
    folders = [str(folder) for folder in usr.glob("lib/*/pkgconfig")]
    if folders:
        environment["PATH"] += f":{usr / 'bin'}"
        known = environment.get("PKG_CONFIG_PATH", "")
        environment["PKG_CONFIG_PATH"] = ":".join(filter(None, [known, *folders]))
        includes = [usr / "include", *usr.glob("include/*-linux-gnu*")]
        environment["CPATH"] = ":".join(map(str, includes))
    return environment


def _output_of(*command: str) -> str:
    """Return what a program prints; nothing if it is not there or fails."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=True,
            env=_environment(),
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _problem_of(command: list[str], program: str) -> str:
    """Run a compiler on a program; return its first complaint, or nothing."""
    try:
        done = subprocess.run(
            command,
            input=program,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
            env=_environment(),
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    complaints = [line for line in done.stderr.splitlines() if "error" in line]
    return (complaints or ["the compiler fails"])[0][:200]
