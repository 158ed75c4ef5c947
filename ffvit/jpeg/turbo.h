// Whole images by libjpeg-turbo: what the kernel's own decoder does not handle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "kernel.h"

namespace ffvit {

// Decodes one image after another; for one thread at a time.
class TurboDecoder {
 public:
  // Point *pixels at the job's whole image, (height, width, 3) uint8 RGB, which belongs to the
  // decoder until the next call.
  Status decode(const Job& job, const uint8_t** pixels);

 private:
  uint8_t* make_room(size_t size);

  std::unique_ptr<uint8_t[]> pixels_;
  size_t capacity_ = 0;
};

}  // namespace ffvit
