// Whole images by libjpeg-turbo: what the kernel's own decoder does not handle.
#pragma once

#include <turbojpeg.h>

#include <cstdint>
#include <vector>

#include "kernel.h"

namespace ffvit {

// Decodes one image after another; for one thread at a time.
class TurboDecoder {
 public:
  TurboDecoder() = default;
  ~TurboDecoder();
  TurboDecoder(const TurboDecoder&) = delete;
  TurboDecoder& operator=(const TurboDecoder&) = delete;

  // Point *pixels at the job's whole image, (height, width, 3) uint8 RGB, which belongs to the
  // decoder until the next call.
  Status decode(const Job& job, const uint8_t** pixels);

 private:
  tjhandle handle_ = nullptr;
  std::vector<uint8_t> pixels_;
};

}  // namespace ffvit
