#include "target.h"

namespace ffvit {

extern const Target kPlainTarget;
#if defined(__x86_64__)
extern const Target kAvx2Target;
#elif defined(__aarch64__)
extern const Target kNeonTarget;
#endif

TargetList available_targets() {
  TargetList list;
#if defined(__x86_64__)
  // movbe came with, or before, AVX2 in every processor.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
      __builtin_cpu_supports("bmi2")) {
    list.targets[list.count++] = &kAvx2Target;
  }
#elif defined(__aarch64__)
  list.targets[list.count++] = &kNeonTarget;  // part of every 64-bit ARM
#endif
  list.targets[list.count++] = &kPlainTarget;
  return list;
}

}  // namespace ffvit
