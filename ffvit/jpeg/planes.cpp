#include "planes.h"

#include <algorithm>

namespace ffvit {

bool PlaneReader::open(const Target& target, const uint8_t* data, size_t size) {
  target_ = &target;
  frame_ = Frame{};
  return read_frame(data, size, &tables_, &frame_) && reader_.open(target, frame_);
}

bool PlaneReader::read(Plane* planes) {
  for (int i = 0; i < kNumPlanes; ++i) {
    Plane& plane = planes[i];
    const int across = i == 0 ? frame_.luma_across : 1, down = i == 0 ? frame_.luma_down : 1;
    plane.column_step = frame_.luma_across / across;
    plane.row_step = frame_.luma_down / down;
    plane.width = (frame_.width + plane.column_step - 1) / plane.column_step;
    plane.height = (frame_.height + plane.row_step - 1) / plane.row_step;
    plane.allocate(frame_.mcus_down * down * 8, frame_.mcus_across * across * 8);
  }
  frame_.pair_quantization(0, 0, luma_quantization_);
  frame_.pair_quantization(1, 2, chroma_quantization_);
  alignas(32) int16_t coefficients[kMcusAtOnce * kMaxBlocks * kBlockSize];
  for (int64_t y = 0, mcu = 0; y < frame_.mcus_down; ++y) {
    for (int64_t x = 0; x < frame_.mcus_across;) {
      const int64_t rest = std::min(frame_.mcus_across - x, reader_.segment_end(mcu) - mcu);
      const int64_t count = std::min(rest, kMcusAtOnce);
      if (!reader_.decode(mcu, count, ~0u, coefficients)) return false;
      const int16_t* blocks = coefficients;
      for (int64_t i = 0; i < count; ++i, blocks += frame_.layout.num_blocks * kBlockSize) {
        add_mcu(blocks, x + i, y, planes);
      }
      x += count;
      mcu += count;
    }
  }
  return true;
}

void PlaneReader::add_mcu(const int16_t* coefficients, int64_t mcu_column, int64_t mcu_row,
                          Plane* planes) {
  const int across = frame_.luma_across, num_luma = across * frame_.luma_down;
  const auto luma_block = [&](int b) {
    return planes[0].row((mcu_row * frame_.luma_down + b / across) * 8) +
           (mcu_column * across + b % across) * 8;
  };
  for (int b = 0; b < num_luma; b += 2) {
    const int second = std::min(b + 1, num_luma - 1);
    target_->blocks_to_bytes(coefficients + b * kBlockSize, coefficients + second * kBlockSize,
                             luma_quantization_, luma_block(b), luma_block(second),
                             planes[0].stride);
  }
  const int16_t* blue = coefficients + num_luma * kBlockSize;
  const int64_t offset = mcu_row * 8 * planes[1].stride + mcu_column * 8;
  target_->blocks_to_bytes(blue, blue + kBlockSize, chroma_quantization_, planes[1].row(0) + offset,
                           planes[2].row(0) + offset, planes[1].stride);
}

}  // namespace ffvit
