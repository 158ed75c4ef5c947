// Searching entropy-coded bytes for 0xFF. Compiled once for each target (target.h). Source: ITU-T
// T.81, B.1.1.
#pragma once

#include <cstdint>

#include "target.h"

namespace ffvit {
namespace FFVIT_TARGET {

// Write where each marker of [begin, end) has its second byte: 0xFF and what is neither a stuffed
// zero nor behind the end. Returns how many there are, of which at most `limit` are written.
inline int64_t find_markers(const uint8_t* begin, const uint8_t* end, int64_t limit,
                            const uint8_t** markers) {
  int64_t count = 0;
  const uint8_t* byte = begin;
  for (; end - byte > kBytesAtOnce; byte += kBytesAtOnce) {
    uint32_t bits = bytes_equal(byte, 0xFF) & ~bytes_equal(byte + 1, 0);
    for (; bits != 0; bits &= bits - 1, ++count) {
      if (count < limit) markers[count] = byte + __builtin_ctz(bits) + 1;
    }
  }
  for (; end - byte > 1; ++byte) {
    if (byte[0] != 0xFF || byte[1] == 0) continue;
    if (count < limit) markers[count] = byte + 1;
    ++count;
  }
  return count;
}

// Copy [begin, end) without the byte behind each 0xFF, a stuffed zero. out: of that size and
// kBytesAtOnce more. `readable` is the end of what may be read. Returns the end of what was
// written.
inline uint8_t* copy_unstuffed(const uint8_t* begin, const uint8_t* end, const uint8_t* readable,
                               uint8_t* out) {
  const uint8_t* byte = begin;
  while (end - byte > 0 && readable - byte >= kBytesAtOnce) {
    copy_bytes(byte, out);
    const uint32_t bits = bytes_equal(byte, 0xFF);
    const int64_t count = bits == 0 ? kBytesAtOnce : __builtin_ctz(bits) + 1;
    // What is copied beyond the end is overwritten.
    if (count > end - byte) return out + (end - byte);
    byte += count + (bits == 0 ? 0 : 1);
    out += count;
  }
  while (end - byte > 0) {
    *out = *byte++;
    if (*out++ == 0xFF) ++byte;
  }
  return out;
}

}  // namespace FFVIT_TARGET
}  // namespace ffvit
