#include "turbo.h"

#include <turbojpeg.h>

namespace ffvit {
namespace {

// A handle of libjpeg-turbo's for one file: it keeps the tables of earlier files for files that
// lack theirs, and after an error in a header it reads on from there in the next file.
class Handle {
 public:
  Handle() : handle_(tjInitDecompress()) {}
  ~Handle() {
    if (handle_ != nullptr) tjDestroy(handle_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  tjhandle get() const { return handle_; }

 private:
  tjhandle handle_;
};

}  // namespace

// Not a vector, which would write all of it: where a damaged header tells of gigabytes, most of
// them are never touched.
uint8_t* TurboDecoder::make_room(size_t size) {
  if (capacity_ < size) {
    capacity_ = 0;
    pixels_.reset();
    pixels_.reset(new uint8_t[size]);
    capacity_ = size;
  }
  return pixels_.get();
}

Status TurboDecoder::decode(const Job& job, const uint8_t** pixels) {
  const Handle turbo;
  if (turbo.get() == nullptr) return kOutOfMemory;
  const auto* data = reinterpret_cast<const uint8_t*>(job.data);
  const auto size = static_cast<unsigned long>(job.size);
  int width = 0, height = 0, subsampling = 0, colorspace = 0;
  // An unknown subsampling (-1) is an error too, but only libjpeg-turbo's planes need to know it.
  if (tjDecompressHeader3(turbo.get(), data, size, &width, &height, &subsampling, &colorspace) !=
          0 &&
      subsampling >= 0) {
    return kBadHeader;
  }
  if (width <= 0 || height <= 0) return kBadHeader;  // tables without an image
  if (colorspace == TJCS_CMYK || colorspace == TJCS_YCCK) return kUnsupported;
  if (width != job.width || height != job.height) return kWrongSize;
  uint8_t* out = make_room(static_cast<size_t>(job.height * job.width * 3));
  // A warning fails too: libjpeg-turbo warns where data are missing and paints the rest grey.
  if (tjDecompress2(turbo.get(), data, size, out, width, 0, height, TJPF_RGB,
                    TJFLAG_ACCURATEDCT | TJFLAG_STOPONWARNING) != 0) {
    return kDamaged;
  }
  *pixels = out;
  return kOk;
}

}  // namespace ffvit
