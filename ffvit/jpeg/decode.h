// Whole images to RGB, by libjpeg-turbo.
#pragma once

#include <turbojpeg.h>

#include <cstdint>
#include <vector>

#include "kernel.h"

namespace ffvit {

// Decodes one image after another; for one thread at a time.
class Decoder {
 public:
  Decoder() : handle_(tjInitDecompress()) {}
  ~Decoder() {
    if (handle_ != nullptr) tjDestroy(handle_);
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // Point *pixels at the job's whole image, (height, width, 3) uint8 RGB. It belongs to the
  // decoder, or to the sample where the sample is raw, until the next call.
  Status decode(const Job& job, const uint8_t** pixels);

 private:
  tjhandle handle_;
  std::vector<uint8_t> pixels_;
};

}  // namespace ffvit
