// Sixteen int16 lanes as an array: what every other lanes_*.h must compute, bit by bit.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace ffvit {
namespace FFVIT_TARGET {

struct Lanes {
  int16_t v[16];
};

inline Lanes load(const int16_t* p) {
  Lanes a;
  std::memcpy(a.v, p, sizeof a.v);
  return a;
}
// Lanes 0 to 7 from `low`, 8 to 15 from `high`.
inline Lanes load_halves(const int16_t* low, const int16_t* high) {
  Lanes a;
  std::memcpy(a.v, low, sizeof a.v / 2);
  std::memcpy(a.v + 8, high, sizeof a.v / 2);
  return a;
}
inline void store(int16_t* p, const Lanes& a) { std::memcpy(p, a.v, sizeof a.v); }
inline void store_halves(int16_t* low, int16_t* high, const Lanes& a) {
  std::memcpy(low, a.v, sizeof a.v / 2);
  std::memcpy(high, a.v + 8, sizeof a.v / 2);
}

template <typename Function>
inline Lanes each_lane(Function function) {
  Lanes result;
  for (int i = 0; i < 16; ++i) result.v[i] = static_cast<int16_t>(function(i));
  return result;
}
inline int saturate(int value) { return std::min(std::max(value, -32768), 32767); }

inline Lanes fill(int16_t value) {
  return each_lane([=](int) { return value; });
}
// Wraps around.
inline Lanes add(const Lanes& a, const Lanes& b) {
  return each_lane([&](int i) { return a.v[i] + b.v[i]; });
}
inline Lanes add_saturated(const Lanes& a, const Lanes& b) {
  return each_lane([&](int i) { return saturate(a.v[i] + b.v[i]); });
}
inline Lanes subtract_saturated(const Lanes& a, const Lanes& b) {
  return each_lane([&](int i) { return saturate(a.v[i] - b.v[i]); });
}
inline Lanes keep_bits(const Lanes& a, const Lanes& mask) {
  return each_lane([&](int i) { return a.v[i] & mask.v[i]; });
}
// The low 16 bits of the product.
inline Lanes multiply_low(const Lanes& a, const Lanes& b) {
  return each_lane([&](int i) { return a.v[i] * b.v[i]; });
}
// a * b / 32768, rounded to the nearest, halves up. Not both may be -32768.
inline Lanes scale(const Lanes& a, const Lanes& b) {
  return each_lane([&](int i) { return (a.v[i] * b.v[i] + 16384) >> 15; });
}
inline Lanes maximum(const Lanes& a, const Lanes& b) {
  return each_lane([&](int i) { return std::max(a.v[i], b.v[i]); });
}
// The largest of the lanes.
inline int highest(const Lanes& a) { return *std::max_element(a.v, a.v + 16); }
inline Lanes clamp(const Lanes& a, int16_t low, int16_t high) {
  return each_lane([&](int i) { return std::min(std::max(a.v[i], low), high); });
}
template <int kBits>
inline Lanes shift_left(const Lanes& a) {
  return each_lane([&](int i) { return static_cast<uint16_t>(a.v[i]) << kBits; });
}
template <int kBits>
inline Lanes shift_right(const Lanes& a) {
  return each_lane([&](int i) { return a.v[i] >> kBits; });
}

// Lanes 0 to 7, or 8 to 15, each twice.
inline Lanes double_low(const Lanes& a) {
  return each_lane([&](int i) { return a.v[i / 2]; });
}
inline Lanes double_high(const Lanes& a) {
  return each_lane([&](int i) { return a.v[8 + i / 2]; });
}
// Sums, which wrap around, of neighbours in `low`, then of those in `high`.
inline Lanes add_neighbours(const Lanes& low, const Lanes& high) {
  return each_lane([&](int i) {
    const int16_t* v = i < 8 ? low.v : high.v;
    return v[i % 8 * 2] + v[i % 8 * 2 + 1];
  });
}

// Transpose lanes 0 to 7 of r[0] to r[7] as a matrix, and lanes 8 to 15 as another one.
inline void transpose_halves(Lanes* r) {
  for (int half = 0; half < 16; half += 8) {
    for (int i = 0; i < 8; ++i) {
      for (int j = 0; j < i; ++j) std::swap(r[i].v[half + j], r[j].v[half + i]);
    }
  }
}

// Write lanes 0 to 7, and 8 to 15, as 8 bytes each, given less 128; what lies outside of a byte's
// range is clipped.
inline void store_bytes(uint8_t* low, uint8_t* high, const Lanes& a) {
  const auto level = [&](int i) {
    return static_cast<uint8_t>(std::min(std::max(a.v[i] + 128, 0), 255));
  };
  for (int i = 0; i < 8; ++i) {
    low[i] = level(i);
    high[i] = level(8 + i);
  }
}

// Write 16 RGB pixels, 48 bytes, whose channels are given less 128; what lies outside of a byte's
// range is clipped.
inline void store_rgb(uint8_t* out, const Lanes& red, const Lanes& green, const Lanes& blue) {
  for (int i = 0; i < 16; ++i) {
    out[3 * i] = static_cast<uint8_t>(std::min(std::max(red.v[i] + 128, 0), 255));
    out[3 * i + 1] = static_cast<uint8_t>(std::min(std::max(green.v[i] + 128, 0), 255));
    out[3 * i + 2] = static_cast<uint8_t>(std::min(std::max(blue.v[i] + 128, 0), 255));
  }
}

// The same, to memory that is not read again soon, where the machine has instructions for that.
inline void stream_rgb(uint8_t* out, const Lanes& red, const Lanes& green, const Lanes& blue) {
  store_rgb(out, red, green, blue);
}

// Bytes that the operations below take; up to 32.
constexpr int kBytesAtOnce = 8;

// Bit i tells whether byte i has the value.
inline uint32_t bytes_equal(const uint8_t* bytes, uint8_t value) {
  uint32_t bits = 0;
  for (int i = 0; i < kBytesAtOnce; ++i) bits |= (bytes[i] == value ? 1u : 0u) << i;
  return bits;
}
inline void copy_bytes(const uint8_t* from, uint8_t* to) { std::memcpy(to, from, kBytesAtOnce); }

}  // namespace FFVIT_TARGET
}  // namespace ffvit
