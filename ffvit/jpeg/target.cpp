#include "target.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace ffvit {

extern const Target kPlainTarget;
#if defined(__x86_64__)
extern const Target kAvx2Target;
#elif defined(__aarch64__)
extern const Target kNeonTarget;
#endif

#if defined(__x86_64__)
namespace {

// Compilers do not all know this one by name.
bool has_movbe() {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_MOVBE) != 0;
}

}  // namespace
#endif

TargetList available_targets() {
  TargetList list;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
      __builtin_cpu_supports("bmi2") && has_movbe()) {
    list.targets[list.count++] = &kAvx2Target;
  }
#elif defined(__aarch64__)
  list.targets[list.count++] = &kNeonTarget;  // part of every 64-bit ARM
#endif
  list.targets[list.count++] = &kPlainTarget;
  return list;
}

}  // namespace ffvit
