// Crops of images whose RGB pixels are at hand.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel.h"
#include "resizer.h"

namespace ffvit {

// For one thread, one image after another.
class RgbResizer {
 public:
  // pixels: (job.height, job.width, 3) uint8; the job's crop lies inside.
  void resize(const Target& target, const uint8_t* pixels, const Job& job, const Output& output,
              Resizer* resizer);

 private:
  std::vector<int16_t> stripe_;  // columns of R, G, B in turn
};

}  // namespace ffvit
