// Entropy-coded segments: where restart markers divide a scan, and the bytes without their
// stuffing. Source: ITU-T T.81, B.1.1.5 and E.1.4.
#pragma once

#include <cstdint>
#include <vector>

#include "frame.h"
#include "scan.h"
#include "target.h"

namespace ffvit {

// Goes to any MCU of a scan. For one thread, one image after another.
class SegmentReader {
 public:
  // Find the segments of the frame's scan, which must outlive this. Returns false unless all
  // restart markers are there, in their order, and the image ends behind the last one.
  bool open(const Target& target, const Frame& frame);

  // Decode `num_mcus` MCUs from number `first` on, which is not before the end of the last call's
  // unless a segment begins between them. The MCUs must lie in one segment. wanted: bit b is set if
  // block b of each MCU is of use. coefficients: num_mcus * blocks * 64 int16; overwritten, with
  // zeros where they are not wanted. Returns false if the data are damaged.
  bool decode(int64_t first, int64_t num_mcus, uint32_t wanted, int16_t* coefficients);

  // Pass over every MCU, to see whether the data are sound.
  bool check_all();

  // The end of the segment that holds the MCU.
  int64_t segment_end(int64_t mcu) const;

 private:
  bool go_to(int64_t mcu);
  void enter(int64_t segment);
  bool advance(int64_t num_mcus, uint32_t wanted, int16_t* coefficients);

  const Target* target_ = nullptr;
  const Frame* frame_ = nullptr;
  std::vector<const uint8_t*> markers_;  // behind each segment: its second byte
  std::vector<uint8_t> bytes_;           // of the current segment, without stuffing
  BitPosition position_;
  int64_t segment_ = -1;  // the current one
  int64_t next_mcu_ = 0;  // that `position_` is at
};

}  // namespace ffvit
