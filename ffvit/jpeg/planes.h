// Whole baseline JPEGs as planes of bytes, for the writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "frame.h"
#include "segments.h"
#include "target.h"

namespace ffvit {

constexpr int kNumPlanes = 3;

// One component's samples, padded to whole blocks.
struct Plane {
  int64_t height = 0;
  int64_t width = 0;
  int64_t stride = 0;       // bytes from row to row
  int64_t row_step = 1;     // luma samples per sample, down
  int64_t column_step = 1;  // and across
  std::unique_ptr<uint8_t[]> samples;

  // `num_rows` and `row_size` include the padding. The samples have no values yet.
  void allocate(int64_t num_rows, int64_t row_size) {
    stride = row_size;
    samples.reset(new uint8_t[static_cast<size_t>(num_rows * row_size)]);
  }
  uint8_t* row(int64_t y) const { return samples.get() + y * stride; }
};

// For one thread, one image after another.
class PlaneReader {
 public:
  // Read the headers. Returns false if the file is not for the kernel's own decoder.
  bool open(const Target& target, const uint8_t* data, size_t size);
  const Frame& frame() const { return frame_; }

  // Decode the whole image into Y, Cb and Cr, which get their sizes here. Returns false if it is
  // damaged; the planes are then undefined.
  bool read(Plane* planes);

 private:
  void add_mcu(const int16_t* coefficients, int64_t mcu_column, int64_t mcu_row, Plane* planes);

  const Target* target_ = nullptr;
  HuffmanCache tables_;
  Frame frame_;
  SegmentReader reader_;
  alignas(32) int16_t luma_quantization_[2 * kBlockSize];
  alignas(32) int16_t chroma_quantization_[2 * kBlockSize];
};

}  // namespace ffvit
