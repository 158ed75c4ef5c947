#!/usr/bin/env bash
# Runs the fuzzer of the JPEG kernel: clang's libFuzzer with AddressSanitizer and UBSan.
#
#   scripts/fuzz.sh [DURATION_S [LIBFUZZER_OPTION ...]]
#
# Inputs that reach new code are kept in build/fuzz/corpus, from run to run; an input that breaks a
# promise of kernel.h stops the run and lies in build/fuzz. Seeds come from tests/fuzz/make_seeds.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly DURATION_S=${1:-60} FOLDER=build/fuzz
shift || true

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# The newest clang that is there, whatever its suffix.
clang=$(compgen -c clang++ | grep -E '^clang\+\+(-[0-9]+)?$' | sort -Vu | tail -1 || true)
[ -n "$clang" ] || die "expected clang++, which this machine lacks: apt-get install clang"
pkg-config --exists libturbojpeg libjpeg 2>/dev/null ||
    die "expected libjpeg-turbo and pkg-config: apt-get install libturbojpeg0-dev libjpeg-dev pkg-config"
version=$("$clang" -dumpversion | cut -d. -f1)

mkdir -p "$FOLDER/corpus"
flags=(-std=c++17 -O2 -g -Wall -Wextra -Werror -ffp-contract=off -Iffvit/jpeg)
flags+=("-fsanitize=fuzzer,address,undefined" -fno-sanitize-recover=all -fno-omit-frame-pointer)
read -ra turbojpeg <<<"$(pkg-config --cflags --libs libturbojpeg libjpeg)"
echo 'int main() { return 0; }' | "$clang" -x c++ -fsanitize=address - -o "$FOLDER/probe" 2>/dev/null ||
    die "expected clang's sanitizers and fuzzer: apt-get install libclang-rt-$version-dev" \
        "(or libclang-common-$version-dev)"

# shellcheck source=scripts/kernel_objects.sh
source scripts/kernel_objects.sh
compile_kernel "$clang" "$FOLDER" "${flags[@]}"
"$clang" "${flags[@]}" tests/fuzz/*.cpp "$FOLDER"/*.o "${turbojpeg[@]}" -pthread \
    -o "$FOLDER/fuzz_decode"
.venv/bin/python tests/fuzz/make_seeds.py "$FOLDER/seeds"

# Uninitialised or left-over memory must show: fresh blocks are filled with a byte that is none of
# the zeros that calloc would give.
export ASAN_OPTIONS=max_malloc_fill_size=1048576:malloc_fill_byte=205:allocator_may_return_null=1
exec "$FOLDER/fuzz_decode" -max_total_time="$DURATION_S" -dict=tests/fuzz/jpeg.dict -max_len=6000 \
    -timeout=20 -rss_limit_mb=3000 -artifact_prefix="$FOLDER/" -print_final_stats=1 "$@" \
    "$FOLDER/corpus" "$FOLDER/seeds" tests/fuzz/regressions
