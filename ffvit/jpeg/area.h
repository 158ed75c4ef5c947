// Shrinking by exact area coverage: each result is the mean of what it covers, edges by their part.
#pragma once

#include <cstdint>
#include <vector>

namespace ffvit {

// Which sources each target of one axis covers, and how much of them.
//
// Both grids cover the same length, `length` units here and `new_length` smaller-or-equal ones
// there. A step is the units that one sample stands for; the last sample's may be cut off.
class Coverage {
 public:
  Coverage(int64_t length, int64_t source_step, int64_t new_length, int64_t target_step);

  int64_t num_targets() const { return static_cast<int64_t>(first.size()); }

  std::vector<int64_t> first;  // source of each target
  std::vector<int64_t> begin;  // of each target's weights; one more entry ends the last one's
  std::vector<float> weights;  // of successive sources; each target's sum to 1
};

// Samples of (height, width, num_channels) uint8; rows `stride` bytes apart.
struct Samples {
  uint8_t* data;
  int64_t stride;
  int64_t width;
  int64_t num_channels;
};

// Write rows.num_targets() x columns.num_targets() samples, target.width of them in a row.
void shrink_area(const Samples& source, const Coverage& rows, const Coverage& columns,
                 const Samples& target);

}  // namespace ffvit
