// Crops of baseline JPEG files: only the MCUs under the crop are decoded.
#pragma once

#include <cstdint>
#include <vector>

#include "frame.h"
#include "kernel.h"
#include "resizer.h"
#include "segments.h"

namespace ffvit {

// For one thread, one image after another.
class BaselineDecoder {
 public:
  // Read the headers. Returns false if the file is not for this decoder.
  bool open(const Target& target, const uint8_t* data, size_t size);
  const Frame& frame() const { return frame_; }

  enum Outcome { kDecoded, kIsDamaged, kIsVivid };

  // Decode the job's crop, which lies inside the image. Unless it returns kDecoded the output is
  // undefined: the data under the crop are damaged or, not if `takes_vivid`, the colours so far
  // outside of RGB that only whole pixels can be clipped rightly.
  Outcome decode(const Job& job, const Output& output, bool takes_vivid, Resizer* resizer);

  // Returns whether every coefficient of the image can be decoded.
  bool check_all() { return reader_.open(*target_, frame_) && reader_.check_all(); }

 private:
  struct Range {
    int64_t begin;
    int64_t end;
    bool has(int64_t value) const { return value >= begin && value < end; }
  };
  // Which blocks of an MCU touch these columns and rows of luma blocks, as bits; chroma always
  // does.
  uint32_t wanted_blocks(Range columns, Range rows, int64_t mcu_column, int64_t mcu_row) const;
  void add_mcu(const int16_t* coefficients, uint32_t wanted, int64_t number);

  const Target* target_ = nullptr;
  HuffmanCache tables_;
  Frame frame_;
  SegmentReader reader_;
  bool is_resized_ = false;
  int64_t excess_ = 0;           // what clip_colours returned, of all MCUs
  std::vector<int16_t> luma_;    // a stripe, kStripeHeight samples for each column
  std::vector<int16_t> chroma_;  // the same of Cb, in the lower half, and Cr
  alignas(32) int16_t luma_quantization_[2 * kBlockSize];
  alignas(32) int16_t chroma_quantization_[2 * kBlockSize];
};

}  // namespace ffvit
