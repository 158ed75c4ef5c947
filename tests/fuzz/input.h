// How an input of the fuzzer is read: some bytes of options, then a JPEG file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernel.h"

namespace ffvit {

constexpr size_t kNumOptions = 8;

// The marker segments of a file, as far as their lengths can be followed.
class Markers {
 public:
  Markers(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  // Go to the next segment; returns false after the start of the scan, and at damage. `begin` is
  // the first byte behind the length, `end` behind the content.
  bool next() {
    if (is_last_) return false;
    while (place_ < size_ && data_[place_] == 0xFF) ++place_;
    if (place_ + 3 > size_) return false;
    marker = data_[place_];
    const size_t length = static_cast<size_t>(data_[place_ + 1] << 8 | data_[place_ + 2]);
    if (length < 2 || length - 2 > size_ - place_ - 3) return false;
    begin = place_ + 3;
    end = place_ + 1 + length;
    place_ = end;
    is_last_ = marker == 0xDA;
    return true;
  }

  int marker = 0;
  size_t begin = 0;
  size_t end = 0;

 private:
  const uint8_t* data_;
  size_t size_;
  size_t place_ = 2;  // behind the start of the image
  bool is_last_ = false;
};

inline bool is_frame(int marker) {
  return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

// What the kernel is asked for: the image's own size where the file tells it, and a crop inside.
struct Options {
  Job job = {};
  int64_t filter = kArea;
  int64_t out_height = 1;
  int64_t out_width = 1;

  Options(const uint8_t* options, const uint8_t* file, size_t size) {
    job.height = job.width = 16;
    for (Markers markers(file, size); markers.next();) {
      if (!is_frame(markers.marker) || markers.end - markers.begin < 5) continue;
      const uint8_t* content = file + markers.begin;
      job.height = std::max(1, content[1] << 8 | content[2]);
      job.width = std::max(1, content[3] << 8 | content[4]);
    }
    filter = options[0] & 1 ? kBicubic : kArea;
    job.flip = options[0] >> 1 & 1;
    if ((options[0] >> 2 & 31) == 31) ++job.height;  // not the image's
    job.top = options[1] * job.height / 256;
    job.left = options[2] * job.width / 256;
    job.crop_height = 1 + options[3] * (job.height - job.top) / 256;
    job.crop_width = 1 + options[4] * (job.width - job.left) / 256;
    out_height = 1 + (options[5] & 63);
    out_width = options[6] & 64 ? out_height : 1 + (options[6] & 63);
  }
};

}  // namespace ffvit
