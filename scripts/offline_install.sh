#!/usr/bin/env bash
# Installs ffvit from the folder of this script, without a network: docs/offline.md in ffvit/.
#
#   ./install.sh     into the environment of $PYTHON (default: python3), which has torch and torchvision
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

PYTHON=${PYTHON:-python3}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# What the bundle was built for, by name.
built_for() { sed -n "s/^$1=//p" built_for; }

pip_install() { "$PYTHON" -m pip --disable-pip-version-check install --no-index --find-links wheels "$@"; }

version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
    die "PYTHON=$PYTHON: expected a Python $(built_for python), which does not run; name another, PYTHON=/path/to/python"
[ "$version" = "$(built_for python)" ] ||
    die "$PYTHON: this bundle is for Python $(built_for python), got $version; name another, or build one for it:" \
        "make offline-bundle FOR_PYTHON=$version"
[ "$(uname -m)" = "$(built_for machine)" ] ||
    die "this bundle is for $(built_for machine), and this machine is $(uname -m); build it on such a machine"
glibc=$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)
[ "$(printf '%s\n' "$glibc" "$(built_for glibc)" | sort -V | head -n 1)" = "$(built_for glibc)" ] ||
    die "this bundle needs glibc $(built_for glibc) or newer, got $glibc; build it on an older system"
"$PYTHON" -c 'import torch, torchvision' 2>/dev/null ||
    die "$PYTHON: expected torch and torchvision, which this bundle does not hold; install them, or name the Python" \
        "that has them: PYTHON=/path/to/python ./install.sh"

pip_install ffvit
# opencv-python, if there is one, may miss a desktop's libraries.
"$PYTHON" -c 'import cv2' 2>/dev/null || pip_install --no-deps --force-reinstall opencv-python-headless
"$PYTHON" -c 'import ffcv, ffvit.jpeg.kernel'
cat <<TEXT
ffvit is installed for $("$PYTHON" -c 'import sys; print(sys.executable)'). To see it work:
    cd $PWD/ffvit
    $PYTHON -m ffvit sample samples/digits
    $PYTHON write_imagenet.py --data_dir=samples/digits --out_dir=betons/quickstart
    $PYTHON train_imagenet.py --config ff_configs/quickstart.yaml
TEXT
