// Filter weights for resizing one axis of a plane.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel.h"
#include "target.h"

namespace ffvit {

// One axis: `size` pixels of the image from `begin` on become `output` pixels.
struct Axis {
  int64_t begin;
  int64_t size;
  int64_t output;
};

// Weights that are computed anew only when they change: validation asks for the same ones again and
// again.
class FilterTaps {
 public:
  // Weights on the axis's own pixels.
  void fill(Filter filter, const Axis& axis);

  // Weights on a plane of half as many samples, `limit` of them: those of `full` after smooth
  // upsampling, which takes 3/4 of the nearer sample and 1/4 of the next one (libjpeg's "fancy").
  void fill_halved(const FilterTaps& full, int64_t limit);

  Taps view() const { return {num_taps_, starts_.data(), weights_.data(), are_halved_}; }
  int64_t first() const { return starts_.front(); }  // the first sample that has a weight
  int64_t end() const;                               // behind the last one

 private:
  void resize(int64_t num_outputs, int64_t num_taps);
  void fill_area(const Axis& axis);
  void fill_triangle(const Axis& axis);
  void fill_bicubic(const Axis& axis);

  int64_t num_taps_ = 0;
  std::vector<int32_t> starts_;
  std::vector<int16_t> weights_;
  bool are_halved_ = false;
  std::vector<int64_t> key_;  // what the weights were computed for
};

}  // namespace ffvit
