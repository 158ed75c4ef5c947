#include "decode.h"

#include <cstddef>

namespace ffvit {

Status Decoder::decode(const Job& job, const uint8_t** pixels) {
  const uint8_t* data = reinterpret_cast<const uint8_t*>(job.data);
  const int64_t num_bytes = job.height * job.width * 3;
  if (job.mode == kRaw) {
    if (job.size < num_bytes) return kShortSample;
    *pixels = data;
    return kOk;
  }
  if (job.mode != kJpeg) return kUnknownMode;
  if (handle_ == nullptr) return kOutOfMemory;

  int width = 0, height = 0, subsampling = 0, colorspace = 0;
  const auto size = static_cast<unsigned long>(job.size);
  if (tjDecompressHeader3(handle_, data, size, &width, &height, &subsampling, &colorspace) != 0)
    return kBadHeader;
  if (width <= 0 || height <= 0) return kBadHeader;  // tables without an image
  if (width != job.width || height != job.height) return kWrongSize;
  pixels_.resize(static_cast<size_t>(num_bytes));
  // A warning fails too: libjpeg-turbo warns where data are missing and paints the rest grey.
  if (tjDecompress2(handle_, data, size, pixels_.data(), width, 0, height, TJPF_RGB,
                    TJFLAG_ACCURATEDCT) != 0) {
    return kDamaged;
  }
  *pixels = pixels_.data();
  return kOk;
}

}  // namespace ffvit
