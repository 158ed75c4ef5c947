#!/usr/bin/env bash
# Runs the benchmarks with the loaders that ffvit is compared with, kept out of .venv.
#
#   scripts/bench.sh [OPTIONS]     options of `python -m benchmarks`
#
# .bench-venv sees the packages of .venv and adds its own. A peer that cannot be installed is no
# error: the benchmark reports it as not measured.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PEERS=(nvidia-dali-cuda130==2.4.0 webdataset==1.0.2)
readonly VENV=$PWD/.bench-venv

packages_of() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }

set_up() {
    local key peer
    key="${PEERS[*]} for $(.venv/bin/python --version) in $VENV"
    [ "$(cat "$VENV/.done" 2>/dev/null)" != "$key" ] || return 0
    echo "bench: create .bench-venv with ${PEERS[*]}" >&2
    .venv/bin/python -m venv --clear --without-pip "$VENV"
    # addsitedir also reads the .pth files there, of which one finds the editable ffvit.
    echo "import site; site.addsitedir('$(packages_of "$PWD/.venv")')" >"$(packages_of "$VENV")/project.pth"
    for peer in "${PEERS[@]}"; do
        .venv/bin/python -m pip --disable-pip-version-check --python "$VENV/bin/python" install --quiet "$peer" ||
            echo "bench: $peer cannot be installed here, so it is not measured" >&2
    done
    echo "$key" >"$VENV/.done"
}

set_up
exec "$VENV/bin/python" -m benchmarks "$@"
