#!/usr/bin/env bash
# Compiles the JPEG kernel for this machine and for 64-bit ARM, runs the latter in an emulator, and compares what
# every target of either makes of the same images: all must give the same bits.
#
# Needs neither an ARM machine nor its libraries: tests/jpeg/cross has a libjpeg-turbo that decodes nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly BUILD=build/check-aarch64 CROSS=tests/jpeg/cross
# As in CMakeLists.txt.
readonly FLAGS=(-std=c++17 -O3 -Wall -Wextra -Wpedantic -Werror -ffp-contract=off -fvisibility=hidden)

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# build COMPILER FOLDER: makes FOLDER/driver for what the compiler compiles for.
build() {
    local compiler=$1 folder=$2 own_target flags=() source vector_flags job
    case $("$compiler" -dumpmachine) in
        x86_64-*) own_target=target_avx2 flags=(-mavx2 -mbmi -mbmi2 -mmovbe) ;;
        aarch64-*) own_target=target_neon ;;
        *) die "expected a compiler for x86_64 or aarch64, but $compiler is for $("$compiler" -dumpmachine)" ;;
    esac
    mkdir -p "$folder"
    rm -f "$folder"/*.o
    for source in ffvit/jpeg/*.cpp "$CROSS"/*.cpp; do
        vector_flags=()
        case $(basename "$source" .cpp) in
            module) continue ;; # Python's side
            codec | transcode | shrink | area) continue ;; # the writer's side, which needs libjpeg
            "$own_target" | lanes_check) vector_flags=(${flags[@]+"${flags[@]}"}) ;;
            target | target_plain) ;;
            target_*) continue ;;
        esac
        "$compiler" "${FLAGS[@]}" ${vector_flags[@]+"${vector_flags[@]}"} "-I$CROSS" -Iffvit/jpeg -c "$source" \
            -o "$folder/$(basename "$source" .cpp).o" &
    done
    for job in $(jobs -p); do wait "$job"; done
    # Static: the emulator needs no ARM system around it.
    "$compiler" -static -pthread "$folder"/*.o -o "$folder/driver"
}

# run_targets NAME COMMAND...: writes BUILD/NAME-TARGET.txt for each target that the driver COMMAND has.
run_targets() {
    local name=$1 targets target
    shift
    targets=$("$@")
    for target in $targets; do
        "$@" "$target" "$BUILD/jobs" >"$BUILD/$name-$target.txt"
    done
}

missing=()
command -v g++ >/dev/null || missing+=(g++)
command -v aarch64-linux-gnu-g++ >/dev/null || missing+=(g++-aarch64-linux-gnu)
command -v qemu-aarch64 >/dev/null || missing+=(qemu-user)
[ ${#missing[@]} = 0 ] || die "expected a compiler for 64-bit ARM and an emulator: install (Debian's names) ${missing[*]}"

mkdir -p "$BUILD"
rm -f "$BUILD"/*.txt
.venv/bin/python "$CROSS/make_jobs.py" "$BUILD/jobs"
build g++ "$BUILD/host"
build aarch64-linux-gnu-g++ "$BUILD/aarch64"
run_targets "$(uname -m)" "$BUILD/host/driver"
run_targets emulated qemu-aarch64 "$BUILD/aarch64/driver"

[ -e "$BUILD/emulated-neon.txt" ] || die "expected the emulated machine to have the target neon"
reference=$BUILD/emulated-plain.txt
# A status of 0 is a decoded image; the others' pixels are black, and alike on any machine.
if awk '$1 !~ /^vivid/ && ($1 ~ /^damaged/) == ($2 == 0)' "$reference" | grep .; then
    die "expected all of these to be decoded, and none that is damaged"
fi
for results in "$BUILD"/*.txt; do
    if ! diff "$reference" "$results" >"$results.diff"; then
        cat "$results.diff"
        die "expected $(basename "$results" .txt) to give the bits of $(basename "$reference" .txt)"
    fi
done
[ "$(awk '$1 ~ /^vivid/ && $2 == 0' "$reference" | wc -l)" -gt 30 ] || die "expected most vivid images to be decoded"
echo "$(wc -l <"$reference") images: the same bits from $(cd "$BUILD" && echo *.txt | sed 's/\.txt//g')"
