#include "lanes_check.h"

#include <cstdint>
#include <random>
#include <vector>

namespace ffvit {
namespace {

struct LanesResult {
  const char* operation;
  std::vector<int16_t> values;
};

}  // namespace
}  // namespace ffvit

#define FFVIT_TARGET plain
#include "lanes_plain.h"
#include "lanes_results.h"
#undef FFVIT_TARGET
#if defined(__AVX2__)
#define FFVIT_TARGET avx2
#include "lanes_avx2.h"
#elif defined(__aarch64__)
#define FFVIT_TARGET neon
#include "lanes_neon.h"
#endif
#include "lanes_results.h"

namespace {

constexpr int kNumRounds = 1000;
constexpr int kNumValues = 128;

int16_t random_value(std::mt19937* engine) {
  constexpr int16_t kExtremes[] = {-32768, -32767, -16384, -129, -128,  -1,
                                   0,      1,      127,    128,  16384, 32767};
  const uint32_t bits = (*engine)();
  return bits >> 30 == 0 ? kExtremes[bits % 12] : static_cast<int16_t>(bits);
}

}  // namespace

const char* wrong_lane_operation() {
  std::mt19937 engine{7};
  for (int round = 0; round < kNumRounds; ++round) {
    int16_t p[kNumValues], q[kNumValues];
    for (int i = 0; i < kNumValues; ++i) {
      p[i] = random_value(&engine);
      q[i] = random_value(&engine);
      if (p[i] == -32768 && q[i] == -32768) q[i] = 32767;
    }
    const auto expected = ffvit::plain::lanes_results(p, q);
    const auto results = ffvit::FFVIT_TARGET::lanes_results(p, q);
    for (size_t i = 0; i < expected.size(); ++i) {
      if (results[i].values != expected[i].values) return expected[i].operation;
    }
  }
  return nullptr;
}
