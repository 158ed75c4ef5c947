#include "baseline.h"

#include <algorithm>
#include <limits>

namespace ffvit {
namespace {

// Where chroma is shared by several pixels, clipping before the resize is not exact: the mean
// squared error was seen to reach a sixth of the mean square of what is clipped. Images that lose
// more than this, squared levels, are libjpeg-turbo's: 45 dB are a mean squared error of 2.06.
constexpr int64_t kMaxExcess = 12;

}  // namespace

bool BaselineDecoder::open(const Target& target, const uint8_t* data, size_t size) {
  target_ = &target;
  frame_ = Frame{};
  return read_frame(data, size, &tables_, &frame_);
}

BaselineDecoder::Outcome BaselineDecoder::decode(const Job& job, const Output& output,
                                                 bool takes_vivid, Resizer* resizer) {
  if (!reader_.open(*target_, frame_)) return kIsDamaged;
  const int64_t mcu_width = 8 * frame_.luma_across, mcu_height = 8 * frame_.luma_down;
  FilterTaps &across = resizer->across, &down = resizer->down;
  FilterTaps &chroma_across = resizer->chroma_across, &chroma_down = resizer->chroma_down;
  across.fill(output.filter, {job.left, job.crop_width, output.width});
  down.fill(output.filter, {job.top, job.crop_height, output.height});
  if (frame_.luma_across == 2) {
    chroma_across.fill_halved(across, (frame_.width + 1) / 2);
  } else {
    chroma_across.fill(output.filter, {job.left, job.crop_width, output.width});
  }
  if (frame_.luma_down == 2) {
    chroma_down.fill_halved(down, (frame_.height + 1) / 2);
  } else {
    chroma_down.fill(output.filter, {job.top, job.crop_height, output.height});
  }
  resizer->begin(*target_, output, true);
  is_resized_ = job.crop_height != output.height || job.crop_width != output.width;

  // Smooth upsampling may need one MCU more than the crop touches.
  const int64_t left = std::min(across.first() / mcu_width, chroma_across.first() / 8);
  const int64_t right = std::max((across.end() - 1) / mcu_width, (chroma_across.end() - 1) / 8) + 1;
  const int64_t top = std::min(down.first() / mcu_height, chroma_down.first() / 8);
  const int64_t bottom = std::max((down.end() - 1) / mcu_height, (chroma_down.end() - 1) / 8) + 1;
  // Weights of zero may lie on columns behind the last one that is decoded.
  const int64_t luma_columns = (right - left) * mcu_width + across.view().num_taps;
  const int64_t chroma_columns = (right - left) * 8 + chroma_across.view().num_taps;
  luma_.resize(static_cast<size_t>(luma_columns * kStripeHeight));
  chroma_.resize(static_cast<size_t>(chroma_columns * kStripeHeight));
  frame_.pair_quantization(0, 0, luma_quantization_);
  frame_.pair_quantization(1, 2, chroma_quantization_);

  const int64_t num_channels = 3 * (right - left) * (bottom - top) * mcu_width * mcu_height;
  const bool is_shared = frame_.luma_across * frame_.luma_down > 1;
  const int64_t most_excess = is_shared && !takes_vivid ? kMaxExcess * num_channels / kExcessUnit
                                                        : std::numeric_limits<int64_t>::max();
  excess_ = 0;

  // Luma blocks under the crop; of the outermost MCUs these may be a part.
  const Range block_columns{across.first() / 8, (across.end() - 1) / 8 + 1};
  const Range block_rows{down.first() / 8, (down.end() - 1) / 8 + 1};

  alignas(32) int16_t coefficients[kMcusAtOnce * kMaxBlocks * kBlockSize];
  for (int64_t y = top; y < bottom; ++y) {
    const int64_t first = y * frame_.mcus_across + left, end = first + right - left;
    for (int64_t mcu = first; mcu < end;) {
      const uint32_t wanted = wanted_blocks(block_columns, block_rows, left + mcu - first, y);
      const bool is_outermost = mcu == first || mcu + 1 == end;
      const int64_t stop =
          is_outermost ? mcu + 1 : std::min({end - 1, reader_.segment_end(mcu), mcu + kMcusAtOnce});
      if (!reader_.decode(mcu, stop - mcu, wanted, coefficients)) return kIsDamaged;
      const int16_t* blocks = coefficients;
      for (; mcu < stop; ++mcu, blocks += frame_.layout.num_blocks * kBlockSize) {
        add_mcu(blocks, wanted, mcu - first);
      }
    }
    if (excess_ > most_excess) return kIsVivid;
    const bool is_tall = frame_.luma_down == 2;
    resizer->add_stripe(luma_.data(), kStripeHeight, left * mcu_width, {0, y * mcu_height},
                        {is_tall ? 0 : -1, y * mcu_height + 8});
    resizer->add_stripe(chroma_.data(), kStripeHeight, left * 8, {1, y * 8}, {2, y * 8});
    constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
    const bool is_last = y + 1 == bottom;
    resizer->finish_rows(is_last ? kAll : (y + 1) * mcu_height, is_last ? kAll : (y + 1) * 8);
  }
  return kDecoded;
}

uint32_t BaselineDecoder::wanted_blocks(Range columns, Range rows, int64_t mcu_column,
                                        int64_t mcu_row) const {
  const int across = frame_.luma_across, down = frame_.luma_down;
  uint32_t wanted = 3u << (across * down);  // chroma
  for (int b = 0; b < across * down; ++b) {
    const int64_t column = mcu_column * across + b % across, row = mcu_row * down + b / across;
    if (columns.has(column) && rows.has(row)) wanted |= 1u << b;
  }
  return wanted;
}

// Put the samples of an MCU where they belong in the stripes, `number` MCUs from their left.
void BaselineDecoder::add_mcu(const int16_t* coefficients, uint32_t wanted, int64_t number) {
  const int across = frame_.luma_across;
  int16_t* const first_luma = luma_.data() + number * across * 8 * kStripeHeight;
  int16_t* luma = first_luma;
  int16_t* chroma = chroma_.data() + number * 8 * kStripeHeight;
  const auto add_luma = [&](int first, int second, int16_t* first_out, int16_t* second_out) {
    if ((wanted & (1u << first | 1u << second)) == 0) return;
    target_->blocks_to_samples(coefficients + first * kBlockSize,
                               coefficients + second * kBlockSize, luma_quantization_, first_out,
                               second_out);
  };
  if (frame_.luma_down == 2) {  // one block above the other
    for (int i = 0; i < across; ++i, luma += 8 * kStripeHeight) {
      add_luma(i, across + i, luma, luma + 8);
    }
  } else {  // side by side; where there is only one, it also fills the half that nobody reads
    add_luma(0, across - 1, luma, across == 2 ? luma + 8 * kStripeHeight : luma + 8);
  }
  const int16_t* blue = coefficients + (frame_.layout.num_blocks - 2) * kBlockSize;
  target_->blocks_to_samples(blue, blue + kBlockSize, chroma_quantization_, chroma, chroma + 8);
  // Chroma is shared by all blocks of the MCU, so all of them must be there.
  const bool is_whole = wanted == (1u << frame_.layout.num_blocks) - 1;
  if (is_resized_ && is_whole) {
    excess_ += target_->clip_colours(first_luma, across, frame_.luma_down, chroma);
  }
}

}  // namespace ffvit
