// The inner loops, compiled for several instruction sets; all give the same bits.
//
// markers.h, entropy.h and pixels.h hold the code, lanes_*.h the vector operations under it,
// target_*.cpp compile them. docs/decode.md says how to add one.
#pragma once

#include <cstdint>

#include "scan.h"

namespace ffvit {

// Samples are int16, with this many bits below the unit and 128 subtracted.
constexpr int kSampleBits = 7;
constexpr int16_t kLowestSample = -128 * (1 << kSampleBits);
constexpr int16_t kHighestSample = 127 * (1 << kSampleBits);
// Rows that are resized together. A stripe is stored by columns: one vector of samples for each.
constexpr int kStripeHeight = 16;

// Unit in which clip_colours counts what it clips, squared levels.
constexpr int kExcessUnit = 16;

// Filter weights of one axis: output i is the sum over k of weights[i * num_taps + k] *
// input[starts[i] + k], over 32768. Every output's weights sum to that, or to 32767 if one is
// alone; where some may exceed one, all are halved, and the sum is to be doubled.
struct Taps {
  int64_t num_taps = 0;
  const int32_t* starts = nullptr;
  const int16_t* weights = nullptr;
  bool are_halved = false;
};

// The rows of one plane that make a row of the output, and their weights.
struct WeightedRows {
  int64_t num_rows = 0;
  const int16_t* const* rows = nullptr;
  const int16_t* weights = nullptr;
  bool are_halved = false;
};

struct Target {
  const char* name;
  // What these do stands at their definitions, in markers.h, entropy.h and pixels.h.
  int64_t (*find_markers)(const uint8_t* begin, const uint8_t* end, int64_t limit,
                          const uint8_t** markers);
  uint8_t* (*copy_unstuffed)(const uint8_t* begin, const uint8_t* end, const uint8_t* readable,
                             uint8_t* out);
  bool (*decode_mcus)(BitPosition*, const McuLayout&, uint32_t wanted, int64_t num_mcus,
                      int16_t* coefficients);
  void (*blocks_to_samples)(const int16_t* first, const int16_t* second,
                            const int16_t* quantization, int16_t* first_out, int16_t* second_out);
  void (*blocks_to_bytes)(const int16_t* first, const int16_t* second, const int16_t* quantization,
                          uint8_t* first_out, uint8_t* second_out, int64_t stride);
  int64_t (*clip_colours)(int16_t* luma, int across, int down, int16_t* chroma);
  void (*resize_stripe)(const int16_t* columns, int64_t stride, int64_t origin, const Taps& taps,
                        bool flip, int64_t size, int16_t* const* rows);
  void (*finish_row)(const WeightedRows* planes, bool is_ycbcr, int64_t size, uint8_t* out);
};

// The targets that this machine can run, the fastest first.
constexpr int kMaxTargets = 2;
struct TargetList {
  int count = 0;
  const Target* targets[kMaxTargets] = {};
};
TargetList available_targets();

}  // namespace ffvit
