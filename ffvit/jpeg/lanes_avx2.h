// Sixteen int16 lanes in an AVX2 register. lanes_plain.h says what each operation means.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace ffvit {
namespace FFVIT_TARGET {

struct Lanes {
  __m256i v;
};

inline Lanes load(const int16_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
inline Lanes load_halves(const int16_t* low, const int16_t* high) {
  const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(low));
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(high));
  return {_mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1)};
}
inline void store(int16_t* p, Lanes a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
inline void store_halves(int16_t* low, int16_t* high, Lanes a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(low), _mm256_castsi256_si128(a.v));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(high), _mm256_extracti128_si256(a.v, 1));
}
inline Lanes fill(int16_t value) { return {_mm256_set1_epi16(value)}; }

inline Lanes add(Lanes a, Lanes b) { return {_mm256_add_epi16(a.v, b.v)}; }
inline Lanes add_saturated(Lanes a, Lanes b) { return {_mm256_adds_epi16(a.v, b.v)}; }
inline Lanes subtract_saturated(Lanes a, Lanes b) { return {_mm256_subs_epi16(a.v, b.v)}; }
inline Lanes keep_bits(Lanes a, Lanes mask) { return {_mm256_and_si256(a.v, mask.v)}; }
inline Lanes multiply_low(Lanes a, Lanes b) { return {_mm256_mullo_epi16(a.v, b.v)}; }
inline Lanes scale(Lanes a, Lanes b) { return {_mm256_mulhrs_epi16(a.v, b.v)}; }
inline Lanes maximum(Lanes a, Lanes b) { return {_mm256_max_epi16(a.v, b.v)}; }
inline int highest(Lanes a) {
  const __m128i b = _mm_max_epi16(_mm256_castsi256_si128(a.v), _mm256_extracti128_si256(a.v, 1));
  // There is a search for the lowest of unsigned values.
  const __m128i below = _mm_sub_epi16(_mm_set1_epi16(32767), b);
  return 32767 - (_mm_cvtsi128_si32(_mm_minpos_epu16(below)) & 0xFFFF);
}
inline Lanes clamp(Lanes a, int16_t low, int16_t high) {
  return {_mm256_min_epi16(_mm256_max_epi16(a.v, _mm256_set1_epi16(low)), _mm256_set1_epi16(high))};
}
template <int kBits>
inline Lanes shift_left(Lanes a) {
  return {_mm256_slli_epi16(a.v, kBits)};
}
template <int kBits>
inline Lanes shift_right(Lanes a) {
  return {_mm256_srai_epi16(a.v, kBits)};
}

inline Lanes double_low(Lanes a) {
  const __m256i b = _mm256_permute4x64_epi64(a.v, 0x10);
  return {_mm256_unpacklo_epi16(b, b)};
}
inline Lanes double_high(Lanes a) {
  const __m256i b = _mm256_permute4x64_epi64(a.v, 0x32);
  return {_mm256_unpacklo_epi16(b, b)};
}
inline Lanes add_neighbours(Lanes low, Lanes high) {
  return {_mm256_permute4x64_epi64(_mm256_hadd_epi16(low.v, high.v), 0xD8)};
}

inline void transpose_halves(Lanes* r) {
  __m256i a[8], b[8];
  for (int i = 0; i < 4; ++i) {
    a[2 * i] = _mm256_unpacklo_epi16(r[2 * i].v, r[2 * i + 1].v);
    a[2 * i + 1] = _mm256_unpackhi_epi16(r[2 * i].v, r[2 * i + 1].v);
  }
  for (int i = 0; i < 2; ++i) {
    b[4 * i + 0] = _mm256_unpacklo_epi32(a[4 * i + 0], a[4 * i + 2]);
    b[4 * i + 1] = _mm256_unpackhi_epi32(a[4 * i + 0], a[4 * i + 2]);
    b[4 * i + 2] = _mm256_unpacklo_epi32(a[4 * i + 1], a[4 * i + 3]);
    b[4 * i + 3] = _mm256_unpackhi_epi32(a[4 * i + 1], a[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    r[2 * i].v = _mm256_unpacklo_epi64(b[i], b[i + 4]);
    r[2 * i + 1].v = _mm256_unpackhi_epi64(b[i], b[i + 4]);
  }
}

inline void store_bytes(uint8_t* low, uint8_t* high, Lanes a) {
  const __m256i sign = _mm256_set1_epi8(-128);
  const __m256i bytes = _mm256_xor_si256(_mm256_packs_epi16(a.v, a.v), sign);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(low), _mm256_castsi256_si128(bytes));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(high), _mm256_extracti128_si256(bytes, 1));
}

// Bytes 3 * i + channel of 48 come from byte i of the channel.
struct Rgb {
  __m128i parts[3];
};
inline Rgb merge_rgb(Lanes red, Lanes green, Lanes blue) {
  const __m256i sign = _mm256_set1_epi8(-128);
  const __m256i rg = _mm256_xor_si256(_mm256_packs_epi16(red.v, green.v), sign);
  const __m256i bb = _mm256_xor_si256(_mm256_packs_epi16(blue.v, blue.v), sign);
  const __m256i rg_in_order = _mm256_permute4x64_epi64(rg, 0xD8);
  const __m128i r = _mm256_castsi256_si128(rg_in_order);
  const __m128i g = _mm256_extracti128_si256(rg_in_order, 1);
  const __m128i b = _mm256_castsi256_si128(_mm256_permute4x64_epi64(bb, 0xD8));
  // clang-format off
  const __m128i r0 = _mm_setr_epi8(0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5);
  const __m128i g0 = _mm_setr_epi8(-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1);
  const __m128i b0 = _mm_setr_epi8(-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1);
  const __m128i r1 = _mm_setr_epi8(-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1);
  const __m128i g1 = _mm_setr_epi8(5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10);
  const __m128i b1 = _mm_setr_epi8(-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1);
  const __m128i r2 = _mm_setr_epi8(-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1);
  const __m128i g2 = _mm_setr_epi8(-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1);
  const __m128i b2 = _mm_setr_epi8(10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15);
  // clang-format on
  const auto merge = [&](__m128i from_r, __m128i from_g, __m128i from_b) {
    return _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(r, from_r), _mm_shuffle_epi8(g, from_g)),
                        _mm_shuffle_epi8(b, from_b));
  };
  return {merge(r0, g0, b0), merge(r1, g1, b1), merge(r2, g2, b2)};
}

inline void store_rgb(uint8_t* out, Lanes red, Lanes green, Lanes blue) {
  const Rgb rgb = merge_rgb(red, green, blue);
  auto* target = reinterpret_cast<__m128i*>(out);
  for (int i = 0; i < 3; ++i) _mm_storeu_si128(target + i, rgb.parts[i]);
}
inline void stream_rgb(uint8_t* out, Lanes red, Lanes green, Lanes blue) {
  if ((reinterpret_cast<uintptr_t>(out) & 15) != 0) return store_rgb(out, red, green, blue);
  const Rgb rgb = merge_rgb(red, green, blue);
  auto* target = reinterpret_cast<__m128i*>(out);
  for (int i = 0; i < 3; ++i) _mm_stream_si128(target + i, rgb.parts[i]);
}

constexpr int kBytesAtOnce = 32;

inline uint32_t bytes_equal(const uint8_t* bytes, uint8_t value) {
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
  const __m256i is_equal = _mm256_cmpeq_epi8(v, _mm256_set1_epi8(static_cast<char>(value)));
  return static_cast<uint32_t>(_mm256_movemask_epi8(is_equal));
}
inline void copy_bytes(const uint8_t* from, uint8_t* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

}  // namespace FFVIT_TARGET
}  // namespace ffvit
