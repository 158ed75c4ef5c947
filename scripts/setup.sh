#!/usr/bin/env bash
# Sets up all that ffvit needs on a Debian or Ubuntu machine; what is done already is skipped.
#
#   scripts/setup.sh [--dry-run] [run|dev]     run: to use it; dev (default): to test and change it as well
#
# 1. Debian packages that ffcv and the JPEG kernel compile against: by apt-get as root or by a sudo
#    that asks for no password; otherwise downloaded and unpacked under .prefix, which needs no rights.
# 2. The virtual environment .venv, made by $PYTHON (default: the one that made it, or python3).
# 3. Python packages in it, at the versions of constraints.txt: ffcv compiled from source, ffvit
#    itself in editable mode with its kernel.
#
# --dry-run prints what would be done. Exit status 2: only the user can provide what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CONSTRAINTS=${CONSTRAINTS:-constraints.txt}
readonly VENV=$PWD/.venv PREFIX=$PWD/.prefix
readonly KERNEL_SOURCES=(ffvit/jpeg/CMakeLists.txt ffvit/jpeg/*.cpp ffvit/jpeg/*.h)

dry_run=false
libraries=() # folders of libraries outside the system's own
prefix=""    # $PREFIX once it is in use

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Says what comes next and succeeds if it is to be done for real.
doing() {
    printf 'setup: %s\n' "$*" >&2
    ! $dry_run
}

have() { command -v "$1" >/dev/null; }

# --- system packages ---------------------------------------------------------------------------

# Prints the Debian packages that this machine lacks, in one line.
missing_packages() {
    local missing=() version headers
    have g++ || missing+=(g++)
    have pkg-config || missing+=(pkg-config)
    pkg-config --exists opencv4 2>/dev/null || missing+=(libopencv-dev)
    pkg-config --exists libturbojpeg 2>/dev/null || missing+=(libturbojpeg0-dev)
    pkg-config --exists libjpeg 2>/dev/null || missing+=(libjpeg-dev) # a name that Debian and Ubuntu share
    if have "$PYTHON"; then
        version=$("$PYTHON" -c 'import sys; print("python{}.{}".format(*sys.version_info))')
        headers=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')
        [ -e "$headers/Python.h" ] || [ -e "$prefix$headers/Python.h" ] || missing+=("$version-dev")
        "$PYTHON" -c 'import ensurepip' 2>/dev/null || [ -n "$(pip_wheel)" ] || missing+=("$version-venv")
    elif [[ $PYTHON = */* ]]; then
        die "PYTHON: expected a program, got '$PYTHON', which does not exist; name a Python >= 3.10"
    else
        missing+=("$PYTHON" "$PYTHON-dev" "$PYTHON-venv")
    fi
    echo "${missing[*]}"
}

# Debian keeps the pip that goes into virtual environments in a package of its own.
pip_wheel() { [ -z "$prefix" ] || compgen -G "$prefix/usr/share/python-wheels/pip-*.whl" || true; }

set_up_system() {
    local packages root
    packages=$(missing_packages)
    [ -n "$packages" ] || return 0
    if [ "$(cat "$PREFIX/.packages" 2>/dev/null)" = "$packages" ]; then
        use_prefix
        return
    fi
    have apt-get || die "expected a compiler, OpenCV and libjpeg-turbo, but this machine lacks" \
        "(Debian's names) $packages: install them, or let an administrator do it, then run this again"
    if [ "$(id -u)" = 0 ]; then
        root="env"
    elif have sudo && sudo -n true 2>/dev/null; then
        root=sudo
    else
        if doing "unpack $packages and what they need under .prefix, as there are no root rights"; then
            unpack_under_prefix "$packages"
            use_prefix
        fi
        return
    fi
    if doing "apt-get install $packages"; then
        $root apt-get -q -o DPkg::Lock::Timeout=300 update
        # shellcheck disable=SC2086  # one word per package
        $root DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 \
            install --yes --no-install-recommends $packages
    fi
}

# Downloads the packages $1 with what they depend on and this machine lacks, and unpacks them.
unpack_under_prefix() {
    local part=$PREFIX.part archive link target
    local apt=(apt-get -q -o Debug::NoLocking=1)
    apt+=(-o "Dir::State::lists=$part/lists" -o "Dir::Cache=$part/cache")
    [[ $PREFIX != *[[:space:],:]* ]] || die "expected a folder without blanks, commas or colons, got $PWD;" \
        "compilers are told of .prefix in lists that these separate: move the repository"
    rm -rf "$PREFIX" "$part"
    mkdir -p "$part"/{lists,cache/archives}/partial "$PREFIX"
    "${apt[@]}" update
    # shellcheck disable=SC2086  # one word per package
    "${apt[@]}" install --download-only --yes --no-install-recommends $1 ||
        die "could not download $1 for .prefix: install them (Debian's names), then run this again"
    for archive in "$part"/cache/archives/*.deb; do
        # Not a newer version of what is installed: a second C library would crash every program.
        is_installed "$(dpkg-deb --field "$archive" Package)" || dpkg-deb --extract "$archive" "$PREFIX"
    done
    # The files that name folders: pkg-config's, and the linker scripts among the libraries.
    find "$PREFIX" -name '*.pc' -exec sed -i "s|=/usr|=$PREFIX/usr|" {} +
    { grep -rlI --include='*.so' 'GNU ld script' "$PREFIX" || true; } |
        xargs -r sed -i "s| /usr/lib| $PREFIX/usr/lib|g"
    # A -dev package's libx.so points to the libx.so.1 beside it, which may be an installed one.
    find "$PREFIX" -xtype l -name '*.so*' | while IFS= read -r link; do
        target=$(readlink "$link")
        [[ $target = /* ]] || target=$(dirname "${link#"$PREFIX"}")/$target
        [ ! -e "$target" ] || ln -sf "$target" "$link"
    done
    rm -rf "$part"
    echo "$1" >"$PREFIX/.packages"
}

is_installed() {
    dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null | grep -q '^installed'
}

# Points the compiler, the linker and pkg-config of this process to .prefix.
use_prefix() {
    local folder includes="" IFS=:
    prefix=$PREFIX
    for folder in "$PREFIX"/{usr/,}lib/*-linux-gnu*{,/blas,/lapack}; do
        [ ! -d "$folder" ] || libraries+=("$folder")
    done
    # After the system's own folders, as C++ headers look for C headers in later folders only.
    for folder in "$PREFIX"/usr/include{,/*-linux-gnu*,/python3*}; do
        [ ! -d "$folder" ] || includes+=" -idirafter $folder"
        [ ! -e "$folder/Python.h" ] || export CMAKE_ARGS="-DPython_INCLUDE_DIR=$folder"
    done
    export PATH=$PATH:$PREFIX/usr/bin LIBRARY_PATH=${libraries[*]} LD_LIBRARY_PATH=${libraries[*]}
    export CPPFLAGS=$includes CXXFLAGS=$includes
    PKG_CONFIG_PATH=$(printf '%s/pkgconfig:' "${libraries[@]}")
    export PKG_CONFIG_PATH
}

# --- Python packages ---------------------------------------------------------------------------

check_python() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "expected Python 3.10 or newer, got $("$PYTHON" --version) from $(command -v "$PYTHON");" \
            "name another: make setup PYTHON=/path/to/python3.12"
}

pip_install() { "$VENV/bin/python" -m pip --disable-pip-version-check install -c "$CONSTRAINTS" "$@"; }

# Succeeds if the modules $1 import in a fresh shell.
imports() { env -u LD_LIBRARY_PATH -u PYTHONPATH "$VENV/bin/python" -c "import $1"; }

# Succeeds if step $1 was last done with the same inputs $2.
is_done() { [ "$(cat "$VENV/.done-$1" 2>/dev/null)" = "$2" ]; }

key_of() { printf '%s\n' "$@" | sha256sum | cut -d' ' -f1; }

# An environment works with one Python and in one folder.
venv_key() { echo "$("$1" --version 2>/dev/null) in $VENV"; }

create_venv() {
    local wheel
    ! is_done venv "$(venv_key "$PYTHON")" || return 0
    doing "create .venv with $("$PYTHON" --version)" || return 0
    if "$PYTHON" -c 'import ensurepip' 2>/dev/null; then
        "$PYTHON" -m venv --clear "$VENV"
    else
        wheel=$(pip_wheel)
        "$PYTHON" -m venv --clear --without-pip "$VENV"
        "$VENV/bin/python" "$wheel/pip" install --no-index "$wheel" # python runs what a zip file holds
    fi
    venv_key "$PYTHON" >"$VENV/.done-venv"
}

# Lets libraries outside the system's folders (.prefix, conda, modules) be found when Python runs.
set_linker_flags() {
    local folder
    for folder in $(pkg-config --libs-only-L opencv4 libturbojpeg libjpeg 2>/dev/null); do
        libraries+=("${folder#-L}")
    done
    # An old-style RPATH also holds for the libraries' own libraries, a RUNPATH does not.
    LDFLAGS="-Wl,--as-needed,--disable-new-dtags ${LDFLAGS:-}"
    for folder in ${libraries[@]+"${libraries[@]}"}; do
        LDFLAGS="-Wl,-rpath,$folder $LDFLAGS"
    done
    export LDFLAGS
}

set_up_python() {
    local level=$1 versions sources system_key project_key quiet=()
    create_venv
    set_linker_flags
    versions=$("$PYTHON" --version && pkg-config --modversion opencv4 libturbojpeg)
    sources=$(sha256sum pyproject.toml "$CONSTRAINTS" scripts/setup.sh "${KERNEL_SOURCES[@]}")
    system_key=$(key_of "$versions" "$LDFLAGS")
    project_key=$(key_of "$system_key" "$(pkg-config --modversion libjpeg)" "$sources")

    # Not from pip's cache: a build against another OpenCV would not load.
    if ! is_done ffcv "$system_key" && doing "compile ffcv"; then
        pip_install --upgrade "pip>=25.1" setuptools scikit-build-core cmake ninja
        pip_install --no-cache-dir --force-reinstall --no-deps --no-build-isolation \
            "$(grep -o 'ffcv==[0-9.]*' pyproject.toml)"
        echo "$system_key" >"$VENV/.done-ffcv"
    fi
    if ! is_done run "$project_key" && doing "install ffvit, what it needs, and its kernel"; then
        [ ! -e "$VENV/.done-run" ] || quiet=(--quiet)
        pip_install ${quiet[@]+"${quiet[@]}"} --no-build-isolation --editable .
        # opencv-python needs the libraries of a desktop; its headless twin holds the same cv2.
        imports cv2 2>/dev/null || pip_install --force-reinstall --no-deps opencv-python-headless
        imports "ffcv, ffvit.jpeg._kernel"
        echo "$project_key" >"$VENV/.done-run"
    fi
    if [ "$level" = dev ] && ! is_done dev "$project_key" && doing "install the tools for tests"; then
        pip_install --group dev
        echo "$project_key" >"$VENV/.done-dev"
    fi
}

main() {
    local level=dev argument missing
    for argument in "$@"; do
        case $argument in
            --dry-run) dry_run=true ;;
            run | dev) level=$argument ;;
            *) die "expected [--dry-run] [run|dev], got '$argument'" ;;
        esac
    done
    if [ -z "${PYTHON:-}" ] && is_done venv "$(venv_key "$VENV/bin/python")"; then
        PYTHON=$VENV/bin/python
    fi
    PYTHON=${PYTHON:-python3}
    ! have "$PYTHON" || check_python
    set_up_system
    missing=$(missing_packages)
    if [ -z "$missing" ]; then
        check_python
        set_up_python "$level"
    elif doing "then create .venv and install the Python packages"; then
        die "expected the system packages to be usable by now, but $missing cannot be found"
    fi
}

main "$@"
