#include "segments.h"

#include <algorithm>
#include <cstring>

namespace ffvit {
namespace {

constexpr int kRestart0 = 0xD0, kEndOfImage = 0xD9;

}  // namespace

bool SegmentReader::open(const Target& target, const Frame& frame) {
  target_ = &target;
  frame_ = &frame;
  segment_ = -1;
  const int64_t interval = frame.restart_interval;
  const int64_t num_segments = interval == 0 ? 1 : (frame.num_mcus() + interval - 1) / interval;
  // One marker ends each segment; where the headers promise more than there can be, save the
  // memory.
  if (num_segments > (frame.end - frame.scan) / 2) return false;
  markers_.resize(static_cast<size_t>(num_segments));
  const int64_t num_markers =
      target.find_markers(frame.scan, frame.end, num_segments, markers_.data());
  if (num_markers < num_segments) return false;
  for (int64_t i = 0; i + 1 < num_segments; ++i) {
    if (*markers_[static_cast<size_t>(i)] != kRestart0 + (i & 7)) return false;
  }
  return *markers_[static_cast<size_t>(num_segments) - 1] == kEndOfImage;
}

int64_t SegmentReader::segment_end(int64_t mcu) const {
  const int64_t interval = frame_->restart_interval, all = frame_->num_mcus();
  return interval == 0 ? all : std::min(all, (mcu / interval + 1) * interval);
}

void SegmentReader::enter(int64_t segment) {
  const auto index = static_cast<size_t>(segment);
  const uint8_t* begin = index == 0 ? frame_->scan : markers_[index - 1] + 1;
  const uint8_t* end = markers_[index] - 1;
  const auto needed = static_cast<size_t>(end - begin + kEntropyPadding);
  if (bytes_.size() < needed) bytes_.resize(needed);
  uint8_t* last = target_->copy_unstuffed(begin, end, frame_->end, bytes_.data());
  std::memset(last, 0, sizeof(uint64_t) * 2);
  position_ = BitPosition{};
  position_.next = bytes_.data();
  position_.end = last;
  segment_ = segment;
  next_mcu_ = segment * frame_->restart_interval;
}

bool SegmentReader::advance(int64_t num_mcus, uint32_t wanted, int16_t* coefficients) {
  if (!target_->decode_mcus(&position_, frame_->layout, wanted, num_mcus, coefficients)) {
    return false;
  }
  next_mcu_ += num_mcus;
  // What was taken from behind the segment's end is not the image's; and a segment that is decoded
  // to its end has used all its bytes: anything else is damaged.
  const int64_t bits_left =
      (position_.end - position_.next) * 8 + static_cast<int64_t>(position_.count);
  return bits_left >= 0 && (bits_left < 8 || next_mcu_ != segment_end(next_mcu_ - 1));
}

bool SegmentReader::go_to(int64_t mcu) {
  const int64_t interval = frame_->restart_interval;
  const int64_t segment = interval == 0 ? 0 : mcu / interval;
  if (segment != segment_) enter(segment);
  return mcu == next_mcu_ || advance(mcu - next_mcu_, 0, nullptr);
}

bool SegmentReader::decode(int64_t first, int64_t num_mcus, uint32_t wanted,
                           int16_t* coefficients) {
  const int64_t num_blocks = num_mcus * frame_->layout.num_blocks;
  std::memset(coefficients, 0, static_cast<size_t>(num_blocks) * kBlockSize * sizeof *coefficients);
  return go_to(first) && advance(num_mcus, wanted, coefficients);
}

bool SegmentReader::check_all() {
  for (int64_t mcu = 0; mcu < frame_->num_mcus(); mcu = segment_end(mcu)) {
    if (!go_to(mcu) || !advance(segment_end(mcu) - mcu, 0, nullptr)) return false;
  }
  return true;
}

}  // namespace ffvit
