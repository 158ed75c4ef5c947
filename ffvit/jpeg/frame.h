// The headers of a JPEG file, as far as the kernel's own decoder understands them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "huffman.h"
#include "scan.h"

namespace ffvit {

// A baseline file in one scan: 8-bit YCbCr, Huffman coded, luma sampled once or twice as often as
// chroma on each axis.
struct Frame {
  int64_t width = 0;
  int64_t height = 0;
  int luma_across = 0;  // luma blocks per MCU, 1 or 2 on each axis
  int luma_down = 0;
  int64_t mcus_across = 0;
  int64_t mcus_down = 0;
  int64_t restart_interval = 0;               // MCUs; 0: none
  uint16_t quantization[3][kBlockSize] = {};  // of each component, in natural order
  McuLayout layout;
  const uint8_t* scan = nullptr;  // the entropy-coded data
  const uint8_t* end = nullptr;   // of the file

  int64_t num_mcus() const { return mcus_across * mcus_down; }
  // Two components' tables side by side: 8 rows of 16, as the inverse DCT wants them.
  void pair_quantization(int first, int second, int16_t* out) const;
};

// Read all headers before the first scan. Returns false if the file is of another kind, or damaged:
// which of the two, libjpeg-turbo may find out. Reads nothing outside of the `size` bytes.
// Source: ITU-T T.81, annex B; the colour space by the rules of libjpeg.
bool read_frame(const uint8_t* data, size_t size, HuffmanCache* tables, Frame* frame);

}  // namespace ffvit
