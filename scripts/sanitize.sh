#!/usr/bin/env bash
# Runs the JPEG kernel under g++'s sanitizers:
#
# 1. AddressSanitizer and UBSan: all tests of tests/jpeg, with ../shared/data where it is there;
# 2. ThreadSanitizer: tests/sanitize/threads.cpp.
#
#   scripts/sanitize.sh [PYTEST_OPTION ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly FOLDER=build/sanitize

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

command -v g++ >/dev/null || die "expected g++, which this machine lacks: apt-get install g++"
pkg-config --exists libturbojpeg libjpeg 2>/dev/null ||
    die "expected libjpeg-turbo and pkg-config: apt-get install libturbojpeg0-dev libjpeg-dev pkg-config"
libasan=$(g++ -print-file-name=libasan.so)
version=$(g++ -dumpversion | cut -d. -f1)
[ -e "$libasan" ] || die "expected g++'s sanitizers: apt-get install libgcc-$version-dev"

# shellcheck source=scripts/kernel_objects.sh
source scripts/kernel_objects.sh
read -ra turbojpeg <<<"$(pkg-config --cflags --libs libturbojpeg libjpeg)"
flags=(-std=c++17 -g -Wall -Wextra -Werror -ffp-contract=off -fPIC -fno-omit-frame-pointer -Iffvit/jpeg)

address=(-O2 "-fsanitize=address,undefined" -fno-sanitize-recover=all)
mkdir -p "$FOLDER/address" "$FOLDER/thread"
compile_kernel g++ "$FOLDER/address" "${flags[@]}" "${address[@]}"
g++ "${flags[@]}" "${address[@]}" -shared "$FOLDER"/address/*.o "${turbojpeg[@]}" -pthread \
    -o "$FOLDER/kernel.so"

# Python is not instrumented: what it leaves behind at exit is no leak of the kernel's. Big blocks
# may fail as they do without a sanitizer, and fresh ones are not zero. Python takes each block from
# malloc, as what lies behind a sample must not be another object of Python's; and pytest must not
# swallow the reports, which do not go through Python.
FFVIT_KERNEL=$FOLDER/kernel.so PYTHONPATH=tests/sanitize PYTHONMALLOC=malloc LD_PRELOAD="$libasan $(g++ -print-file-name=libstdc++.so.6)" \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:max_malloc_fill_size=65536:malloc_fill_byte=205 \
    UBSAN_OPTIONS=print_stacktrace=1 \
    .venv/bin/python -m pytest tests/jpeg -m "not gpu" --capture=sys -p other_kernel -p no:cacheprovider "$@"

# The kernel's fence orders stores past the caches; locks order everything that ThreadSanitizer knows
# of, so it may ignore the fence.
thread=(-O2 -fsanitize=thread -Wno-tsan)
compile_kernel g++ "$FOLDER/thread" "${flags[@]}" "${thread[@]}"
g++ "${flags[@]}" "${thread[@]}" tests/sanitize/threads.cpp "$FOLDER"/thread/*.o "${turbojpeg[@]}" \
    -pthread -o "$FOLDER/threads"
.venv/bin/python tests/sanitize/make_images.py "$FOLDER/images"
TSAN_OPTIONS=halt_on_error=1 "$FOLDER/threads" "$FOLDER"/images/*.jpg
