// Resize a crop to a square: separable filters in integer arithmetic, the same bits on every
// machine.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel.h"

namespace ffvit {

// Filter weights of one axis: output i is the sum over k of weights[i * num_taps + k] *
// input[starts[i] + k], over 1 << kWeightBits. Every output's weights sum to exactly that.
struct Taps {
  int64_t num_taps = 0;
  std::vector<int64_t> starts;
  std::vector<int16_t> weights;
};

// Fill `taps` for an axis of `input` pixels resized to `output`; both at least 1.
void fill_taps(Filter filter, int64_t input, int64_t output, Taps* taps);

// Resizes one crop after another; for one thread at a time.
class Resizer {
 public:
  // pixels: (job.height, job.width, 3) uint8 RGB; the job's crop lies inside. out: (resolution,
  // resolution, 3).
  void resize(const uint8_t* pixels, const Job& job, Filter filter, int64_t resolution,
              uint8_t* out);

 private:
  Taps horizontal_;
  Taps vertical_;
  std::vector<int16_t> rows_;  // the crop's rows at output width, scaled by 1 << kRowBits
  std::vector<int32_t> sums_;
};

}  // namespace ffvit
