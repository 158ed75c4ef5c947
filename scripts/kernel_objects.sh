# shellcheck shell=bash
# Compiles the JPEG kernel outside of CMake, with other compilers and flags. Sourced by fuzz.sh and
# sanitize.sh.

# compile_kernel COMPILER FOLDER FLAG...: leaves FOLDER/*.o, and skips what is newer than all sources.
compile_kernel() {
    local compiler=$1 folder=$2 source object extra
    shift 2
    for source in ffvit/jpeg/*.cpp; do
        object=$folder/$(basename "$source" .cpp).o
        extra=()
        case $(uname -m)/$source in
            */ffvit/jpeg/module.cpp) continue ;; # Python's part
            x86_64/*avx2.cpp) extra=(-mavx2 -mbmi -mbmi2 -mmovbe) ;;
            *avx2.cpp) continue ;;
            aarch64/*neon.cpp) ;;
            *neon.cpp) continue ;;
        esac
        if [ ! -e "$object" ] || [ -n "$(find ffvit/jpeg scripts/kernel_objects.sh -newer "$object" -print -quit)" ]; then
            "$compiler" "$@" ${extra[@]+"${extra[@]}"} -c "$source" -o "$object"
        fi
    done
}
