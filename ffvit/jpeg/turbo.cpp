#include "turbo.h"

#include <cstddef>

namespace ffvit {

TurboDecoder::~TurboDecoder() {
  if (handle_ != nullptr) tjDestroy(handle_);
}

Status TurboDecoder::decode(const Job& job, const uint8_t** pixels) {
  if (handle_ == nullptr) handle_ = tjInitDecompress();  // most loaders never need it
  if (handle_ == nullptr) return kOutOfMemory;
  const auto* data = reinterpret_cast<const uint8_t*>(job.data);
  const auto size = static_cast<unsigned long>(job.size);
  int width = 0, height = 0, subsampling = 0, colorspace = 0;
  // An unknown subsampling (-1) is an error too, but only libjpeg-turbo's planes need to know it.
  if (tjDecompressHeader3(handle_, data, size, &width, &height, &subsampling, &colorspace) != 0 &&
      subsampling >= 0) {
    // It stays where it met the error, and would read the next file from there.
    tjDestroy(handle_);
    handle_ = nullptr;
    return kBadHeader;
  }
  if (width <= 0 || height <= 0) return kBadHeader;  // tables without an image
  if (colorspace == TJCS_CMYK || colorspace == TJCS_YCCK) return kUnsupported;
  if (width != job.width || height != job.height) return kWrongSize;
  pixels_.resize(static_cast<size_t>(job.height * job.width * 3));
  // A warning fails too: libjpeg-turbo warns where data are missing and paints the rest grey.
  if (tjDecompress2(handle_, data, size, pixels_.data(), width, 0, height, TJPF_RGB,
                    TJFLAG_ACCURATEDCT) != 0) {
    return kDamaged;
  }
  *pixels = pixels_.data();
  return kOk;
}

}  // namespace ffvit
