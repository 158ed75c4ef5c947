// Sixteen int16 lanes in two NEON registers. lanes_plain.h says what each operation means.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace ffvit {
namespace FFVIT_TARGET {

struct Lanes {
  int16x8_t low, high;
};

inline Lanes load_halves(const int16_t* low, const int16_t* high) {
  return {vld1q_s16(low), vld1q_s16(high)};
}
inline Lanes load(const int16_t* p) { return load_halves(p, p + 8); }
inline void store_halves(int16_t* low, int16_t* high, Lanes a) {
  vst1q_s16(low, a.low);
  vst1q_s16(high, a.high);
}
inline void store(int16_t* p, Lanes a) { store_halves(p, p + 8, a); }
inline Lanes fill(int16_t value) { return {vdupq_n_s16(value), vdupq_n_s16(value)}; }

inline Lanes add(Lanes a, Lanes b) { return {vaddq_s16(a.low, b.low), vaddq_s16(a.high, b.high)}; }
inline Lanes add_saturated(Lanes a, Lanes b) {
  return {vqaddq_s16(a.low, b.low), vqaddq_s16(a.high, b.high)};
}
inline Lanes subtract_saturated(Lanes a, Lanes b) {
  return {vqsubq_s16(a.low, b.low), vqsubq_s16(a.high, b.high)};
}
inline Lanes keep_bits(Lanes a, Lanes mask) {
  return {vandq_s16(a.low, mask.low), vandq_s16(a.high, mask.high)};
}
inline Lanes multiply_low(Lanes a, Lanes b) {
  return {vmulq_s16(a.low, b.low), vmulq_s16(a.high, b.high)};
}
inline Lanes scale(Lanes a, Lanes b) {
  return {vqrdmulhq_s16(a.low, b.low), vqrdmulhq_s16(a.high, b.high)};
}
inline Lanes maximum(Lanes a, Lanes b) {
  return {vmaxq_s16(a.low, b.low), vmaxq_s16(a.high, b.high)};
}
inline int highest(Lanes a) { return vmaxvq_s16(vmaxq_s16(a.low, a.high)); }
inline Lanes clamp(Lanes a, int16_t low, int16_t high) {
  const int16x8_t least = vdupq_n_s16(low), most = vdupq_n_s16(high);
  return {vminq_s16(vmaxq_s16(a.low, least), most), vminq_s16(vmaxq_s16(a.high, least), most)};
}
template <int kBits>
inline Lanes shift_left(Lanes a) {
  return {vshlq_n_s16(a.low, kBits), vshlq_n_s16(a.high, kBits)};
}
template <int kBits>
inline Lanes shift_right(Lanes a) {
  return {vshrq_n_s16(a.low, kBits), vshrq_n_s16(a.high, kBits)};
}

inline Lanes double_low(Lanes a) { return {vzip1q_s16(a.low, a.low), vzip2q_s16(a.low, a.low)}; }
inline Lanes double_high(Lanes a) {
  return {vzip1q_s16(a.high, a.high), vzip2q_s16(a.high, a.high)};
}
inline Lanes add_neighbours(Lanes low, Lanes high) {
  return {vpaddq_s16(low.low, low.high), vpaddq_s16(high.low, high.high)};
}

// Swaps single values, then pairs, then fours across the diagonal.
inline void transpose(int16x8_t (&r)[8]) {
  int32x4_t a[8];
  int64x2_t b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = vreinterpretq_s32_s16(vtrn1q_s16(r[i], r[i + 1]));
    a[i + 1] = vreinterpretq_s32_s16(vtrn2q_s16(r[i], r[i + 1]));
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = i; j < i + 2; ++j) {
      b[j] = vreinterpretq_s64_s32(vtrn1q_s32(a[j], a[j + 2]));
      b[j + 2] = vreinterpretq_s64_s32(vtrn2q_s32(a[j], a[j + 2]));
    }
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = vreinterpretq_s16_s64(vtrn1q_s64(b[i], b[i + 4]));
    r[i + 4] = vreinterpretq_s16_s64(vtrn2q_s64(b[i], b[i + 4]));
  }
}

inline void transpose_halves(Lanes* r) {
  int16x8_t low[8], high[8];
  for (int i = 0; i < 8; ++i) low[i] = r[i].low, high[i] = r[i].high;
  transpose(low);
  transpose(high);
  for (int i = 0; i < 8; ++i) r[i] = {low[i], high[i]};
}

// Clips to -128 to 127, then moves that to 0 to 255.
inline uint8x16_t to_bytes(Lanes a) {
  const int8x16_t clipped = vqmovn_high_s16(vqmovn_s16(a.low), a.high);
  return veorq_u8(vreinterpretq_u8_s8(clipped), vdupq_n_u8(128));
}
inline void store_bytes(uint8_t* low, uint8_t* high, Lanes a) {
  const uint8x16_t bytes = to_bytes(a);
  vst1_u8(low, vget_low_u8(bytes));
  vst1_u8(high, vget_high_u8(bytes));
}
inline void store_rgb(uint8_t* out, Lanes red, Lanes green, Lanes blue) {
  vst3q_u8(out, {{to_bytes(red), to_bytes(green), to_bytes(blue)}});
}
// Nothing both interleaves and passes the caches by; to do it in two steps has not been tried.
inline void stream_rgb(uint8_t* out, Lanes red, Lanes green, Lanes blue) {
  store_rgb(out, red, green, blue);
}

constexpr int kBytesAtOnce = 32;

// NEON has no instruction that gathers sign bits. Byte i keeps bit i mod 8; then neighbours are
// added until a byte holds eight of them.
inline uint32_t bytes_equal(const uint8_t* bytes, uint8_t value) {
  const uint8x16_t bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  const uint8x16_t wanted = vdupq_n_u8(value);
  const uint8x16_t low = vandq_u8(vceqq_u8(vld1q_u8(bytes), wanted), bits);
  const uint8x16_t high = vandq_u8(vceqq_u8(vld1q_u8(bytes + 16), wanted), bits);
  uint8x16_t sums = vpaddq_u8(low, high);
  sums = vpaddq_u8(sums, sums);
  sums = vpaddq_u8(sums, sums);
  return vgetq_lane_u32(vreinterpretq_u32_u8(sums), 0);
}
inline void copy_bytes(const uint8_t* from, uint8_t* to) {
  vst1q_u8(to, vld1q_u8(from));
  vst1q_u8(to + 16, vld1q_u8(from + 16));
}

}  // namespace FFVIT_TARGET
}  // namespace ffvit
