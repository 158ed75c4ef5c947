#include "segments.h"

#include <algorithm>
#include <cstring>

namespace ffvit {
namespace {

constexpr int kRestart0 = 0xD0, kEndOfImage = 0xD9;

const uint8_t* find_ff(const uint8_t* begin, const uint8_t* end) {
  const void* found = std::memchr(begin, 0xFF, static_cast<size_t>(end - begin));
  return found == nullptr ? end : static_cast<const uint8_t*>(found);
}

// Copy [begin, end) without the zero behind each 0xFF. Returns the end of what was written.
uint8_t* copy_unstuffed(const uint8_t* begin, const uint8_t* end, uint8_t* out) {
  while (begin < end) {
    const uint8_t* found = find_ff(begin, end);
    const auto count = static_cast<size_t>((found == end ? end : found + 1) - begin);
    std::memcpy(out, begin, count);
    out += count;
    begin = found == end ? end : found + 2;
  }
  return out;
}

}  // namespace

bool SegmentReader::open(const Target& target, const Frame& frame) {
  target_ = &target;
  frame_ = &frame;
  segment_ = -1;
  const int64_t interval = frame.restart_interval;
  const int64_t num_segments = interval == 0 ? 1 : (frame.num_mcus() + interval - 1) / interval;
  begins_.clear();
  begins_.push_back(frame.scan);
  for (const uint8_t* byte = frame.scan;;) {
    byte = find_ff(byte, frame.end);
    if (frame.end - byte < 2) return false;  // no end of image
    const int marker = byte[1];
    byte += 2;
    if (marker == 0) continue;
    const auto number = static_cast<int64_t>(begins_.size());
    begins_.push_back(byte);
    if (marker == kEndOfImage) return number == num_segments;
    if (marker != kRestart0 + static_cast<int>((number - 1) & 7) || number == num_segments) {
      return false;
    }
  }
}

int64_t SegmentReader::segment_end(int64_t mcu) const {
  const int64_t interval = frame_->restart_interval, all = frame_->num_mcus();
  return interval == 0 ? all : std::min(all, (mcu / interval + 1) * interval);
}

bool SegmentReader::enter(int64_t segment) {
  const uint8_t* begin = begins_[static_cast<size_t>(segment)];
  const uint8_t* end = begins_[static_cast<size_t>(segment) + 1] - 2;  // the marker
  const auto needed = static_cast<size_t>(end - begin + kEntropyPadding);
  if (bytes_.size() < needed) bytes_.resize(needed);
  uint8_t* last = copy_unstuffed(begin, end, bytes_.data());
  std::memset(last, 0, sizeof(uint64_t) * 2);
  position_ = BitPosition{};
  position_.next = bytes_.data();
  position_.end = last;
  segment_ = segment;
  next_mcu_ = segment * frame_->restart_interval;
  return true;
}

bool SegmentReader::advance(int64_t num_mcus, int16_t* coefficients) {
  if (!target_->decode_mcus(&position_, frame_->layout, num_mcus, coefficients)) return false;
  next_mcu_ += num_mcus;
  if (next_mcu_ != segment_end(next_mcu_ - 1)) return true;
  // A segment that is decoded to its end has used all its bytes: anything else is damaged.
  const int64_t bits_left =
      (position_.end - position_.next) * 8 + static_cast<int64_t>(position_.count);
  return bits_left >= 0 && bits_left < 8;
}

bool SegmentReader::go_to(int64_t mcu) {
  const int64_t interval = frame_->restart_interval;
  const int64_t segment = interval == 0 ? 0 : mcu / interval;
  if (segment != segment_ && !enter(segment)) return false;
  return mcu == next_mcu_ || advance(mcu - next_mcu_, nullptr);
}

bool SegmentReader::decode(int64_t first, int64_t num_mcus, int16_t* coefficients) {
  const int64_t num_blocks = num_mcus * frame_->layout.num_blocks;
  std::memset(coefficients, 0, static_cast<size_t>(num_blocks) * kBlockSize * sizeof *coefficients);
  return go_to(first) && advance(num_mcus, coefficients);
}

bool SegmentReader::check_all() {
  for (int64_t mcu = 0; mcu < frame_->num_mcus(); mcu = segment_end(mcu)) {
    if (!go_to(mcu) || !advance(segment_end(mcu) - mcu, nullptr)) return false;
  }
  return true;
}

}  // namespace ffvit
