// From coefficients to pixels, sixteen values at a time. Compiled once for each target (target.h).
//
// Samples are int16 with kSampleBits below the unit and 128 subtracted, so that they need no
// rounding between the steps: -16384 is 0, 16256 is 255. All sums are in a fixed order, so that
// every target computes the same bits.
#pragma once

#include <cstdint>
#include <cstring>
#include <numeric>

#include "target.h"

namespace ffvit {
namespace FFVIT_TARGET {

// Colours that lie outside of RGB by less are left to the end, levels.
constexpr int kClipTolerance = 24;

// What a channel loses is squared by `scale`, which gives half of the squared levels.
constexpr int kExcessShift = 3;
static_assert(kExcessUnit == 2 << kExcessShift);
static_assert(2 * kSampleBits == 14);

constexpr double kScaleUnit = 32768;  // of `scale`
inline Lanes scale_by(Lanes a, double factor) {
  return scale(a, fill(static_cast<int16_t>(factor * kScaleUnit + 0.5)));
}

// One-dimensional inverse DCT across r[0] to r[7], lane by lane, of gain sqrt(8): the even part and
// rotations of Arai, Agui and Nakajima (1988), with coefficients that need no scaling before.
inline void inverse_dct(Lanes* r) {
  const auto plus = [](Lanes a, Lanes b) { return add_saturated(a, b); };
  const auto minus = [](Lanes a, Lanes b) { return subtract_saturated(a, b); };

  const Lanes sum04 = plus(r[0], r[4]), difference04 = minus(r[0], r[4]);
  const Lanes low26 = minus(scale_by(r[2], 0.541196100), plus(r[6], scale_by(r[6], 0.306562965)));
  const Lanes high26 = plus(plus(r[2], scale_by(r[2], 0.306562965)), scale_by(r[6], 0.541196100));
  const Lanes even0 = plus(sum04, high26), even3 = minus(sum04, high26);
  const Lanes even1 = plus(difference04, low26), even2 = minus(difference04, low26);

  const Lanes a3 = plus(r[3], scale_by(r[3], 0.414213562));  // times sqrt(2)
  const Lanes a5 = plus(r[5], scale_by(r[5], 0.414213562));
  const Lanes difference17 = minus(r[1], r[7]), sum17 = plus(r[1], r[7]);
  const Lanes b4 = plus(difference17, a5), b6 = minus(difference17, a5);
  const Lanes b7 = plus(sum17, a3), b5 = minus(sum17, a3);
  const Lanes odd0 = plus(scale_by(b4, 0.555570233), scale_by(b7, 0.831469612));
  const Lanes odd1 = plus(scale_by(b5, 0.195090322), scale_by(b6, 0.980785280));
  const Lanes odd2 = minus(scale_by(b5, 0.980785280), scale_by(b6, 0.195090322));
  const Lanes odd3 = minus(scale_by(b4, 0.831469612), scale_by(b7, 0.555570233));

  r[0] = plus(even0, odd0), r[7] = minus(even0, odd0);
  r[1] = plus(even1, odd1), r[6] = minus(even1, odd1);
  r[2] = plus(even2, odd2), r[5] = minus(even2, odd2);
  r[3] = plus(even3, odd3), r[4] = minus(even3, odd3);
}

// Turn two blocks of coefficients into samples. quantization: 8 rows of 16, for `first` and
// `second`. r: the columns of the first block in the lower lanes, of the second in the upper ones.
inline void columns_of_blocks(const int16_t* first, const int16_t* second,
                              const int16_t* quantization, Lanes* r) {
  for (int i = 0; i < 8; ++i) {
    const Lanes levels = load_halves(first + 8 * i, second + 8 * i);
    // The two passes have a gain of 8.
    r[i] = shift_left<kSampleBits - 3>(multiply_low(levels, load(quantization + 16 * i)));
  }
  inverse_dct(r);
  transpose_halves(r);
  // Round to whole levels, as every decoder does: half a level to all samples, by way of the
  // constant term, and no bits below the unit.
  r[0] = add_saturated(r[0], fill(1 << (kSampleBits - 1)));
  inverse_dct(r);
  const Lanes whole = fill(-(1 << kSampleBits));
  for (int i = 0; i < 8; ++i) {
    r[i] = clamp(keep_bits(r[i], whole), kLowestSample, kHighestSample);
  }
}

// The same, stored: each output is 8 columns of 8 samples, kStripeHeight apart.
inline void blocks_to_samples(const int16_t* first, const int16_t* second,
                              const int16_t* quantization, int16_t* first_out,
                              int16_t* second_out) {
  Lanes r[8];
  columns_of_blocks(first, second, quantization, r);
  for (int i = 0; i < 8; ++i) {
    store_halves(first_out + kStripeHeight * i, second_out + kStripeHeight * i, r[i]);
  }
}

// The same as bytes: each output is 8 rows of 8 levels, `stride` apart.
inline void blocks_to_bytes(const int16_t* first, const int16_t* second,
                            const int16_t* quantization, uint8_t* first_out, uint8_t* second_out,
                            int64_t stride) {
  Lanes r[8];
  columns_of_blocks(first, second, quantization, r);
  transpose_halves(r);
  for (int i = 0; i < 8; ++i) {
    store_bytes(first_out + stride * i, second_out + stride * i, shift_right<kSampleBits>(r[i]));
  }
}

// Colour from samples less 128 (JFIF, ITU-R BT.601).
struct Colour {
  Lanes red, green, blue;
};
inline Colour to_rgb(Lanes y, Lanes cb, Lanes cr) {
  return {add_saturated(y, add_saturated(cr, scale_by(cr, 0.402))),
          subtract_saturated(subtract_saturated(y, scale_by(cb, 0.344136286)),
                             scale_by(cr, 0.714136286)),
          add_saturated(y, add_saturated(cb, scale_by(cb, 0.772)))};
}

// What clipping to the range of a byte adds.
inline Lanes excess(Lanes a) {
  return subtract_saturated(clamp(a, kLowestSample, kHighestSample), a);
}

// Returns whether some colour of an MCU may lie outside of RGB by more than kClipTolerance levels,
// judged by its largest luma and chroma. Arguments as of clip_colours.
inline bool may_clip(const int16_t* luma, int across, int down, const int16_t* chroma) {
  Lanes most_luma = fill(0), most_chroma = fill(0);
  const auto magnitude = [](Lanes a) { return maximum(a, subtract_saturated(fill(0), a)); };
  for (int i = 0; i < 8 * across; ++i, luma += kStripeHeight) {
    // Where blocks are not tall, nobody has set the upper lanes.
    const Lanes column = down == 2 ? load(luma) : load_halves(luma, luma);
    most_luma = maximum(most_luma, magnitude(column));
  }
  for (int i = 0; i < 8; ++i, chroma += kStripeHeight) {
    most_chroma = maximum(most_chroma, magnitude(load(chroma)));
  }
  const int chroma_part = highest(most_chroma);
  const int most = highest(most_luma) + chroma_part + (chroma_part * 3 >> 2);
  return most > kHighestSample + (kClipTolerance << kSampleBits);
}

// Clip the colours of an MCU to RGB, as a decoder does to pixels before anybody averages them.
// luma: 8 columns for each of `across` blocks; of their samples 8 for each of `down` blocks are
// used. chroma: 8 columns of 8 Cb, 8 Cr. What a pixel loses is taken from its luma and, averaged
// over the pixels that share it, from its chroma. Returns the sum of the squares of what the
// channels lose, in units of kExcessUnit squared levels, saturated.
inline int64_t clip_colours(int16_t* luma, int across, int down, int16_t* chroma) {
  if (!may_clip(luma, across, down, chroma)) return 0;
  Lanes squares = fill(0);
  for (int64_t column = 0; column < 8; ++column, chroma += kStripeHeight) {
    const Lanes both = load(chroma);
    const bool is_tall = down == 2;
    const Lanes cb = is_tall ? double_low(both) : load_halves(chroma, chroma);
    const Lanes cr = is_tall ? double_high(both) : load_halves(chroma + 8, chroma + 8);
    Lanes change_cb = fill(0), change_cr = fill(0);
    for (int i = 0; i < across; ++i, luma += kStripeHeight) {
      const Lanes y = load(luma);
      const Colour colour = to_rgb(y, cb, cr);
      const Lanes red = excess(colour.red), green = excess(colour.green);
      const Lanes blue = excess(colour.blue);
      for (const Lanes lost : {red, green, blue}) {
        squares = add_saturated(squares, shift_right<kExcessShift>(scale(lost, lost)));
      }
      const Lanes change_y =
          add(add(scale_by(red, 0.299), scale_by(green, 0.587)), scale_by(blue, 0.114));
      store(luma, add_saturated(y, change_y));
      // Cb = (B - Y) / 1.772, Cr = (R - Y) / 1.402; divided by the number of pixels on a row.
      const Lanes share = fill(static_cast<int16_t>(32767 / across));
      const Lanes minus_y_blue = subtract_saturated(blue, change_y);
      const Lanes minus_y_red = subtract_saturated(red, change_y);
      change_cb = add(change_cb, scale(scale_by(minus_y_blue, 0.564334), share));
      change_cr = add(change_cr, scale(scale_by(minus_y_red, 0.713267), share));
    }
    if (is_tall) {
      const Lanes half = fill(16384);
      const Lanes change = add_neighbours(scale(change_cb, half), scale(change_cr, half));
      store(chroma, add_saturated(both, change));
    } else {
      int16_t changes[2][kStripeHeight];
      store(changes[0], change_cb);
      store(changes[1], change_cr);
      store(chroma, add_saturated(both, load_halves(changes[0], changes[1])));
    }
  }
  int16_t sums[kStripeHeight];
  store(sums, squares);
  return std::accumulate(sums, sums + 8 * down, int64_t{0});
}

// Resize a stripe along its rows. columns: of kStripeHeight samples, `stride` int16 apart, the
// first one that of taps.starts value `origin`. rows: where to put each row's `size` samples, at
// whose end up to 7 more are overwritten.
template <int kTaps>
inline void resize_stripe_by(const int16_t* columns, int64_t stride, int64_t origin,
                             const Taps& taps, bool flip, int64_t size, int16_t* const* rows) {
  const int64_t num_taps = kTaps > 0 ? kTaps : taps.num_taps;
  for (int64_t x = 0; x < size; x += 8) {
    Lanes r[8];
    for (int64_t i = 0; i < 8; ++i) {
      if (x + i >= size) {
        r[i] = fill(0);
        continue;
      }
      const int64_t output = flip ? size - 1 - x - i : x + i;
      const int16_t* column = columns + (taps.starts[output] - origin) * stride;
      const int16_t* weights = taps.weights + output * num_taps;
      Lanes sum = scale(load(column), fill(weights[0]));
      for (int64_t k = 1; k < num_taps; ++k) {
        sum = add(sum, scale(load(column + k * stride), fill(weights[k])));
      }
      r[i] = taps.are_halved ? add_saturated(sum, sum) : sum;
    }
    transpose_halves(r);
    for (int i = 0; i < 8; ++i) store_halves(rows[i] + x, rows[8 + i] + x, r[i]);
  }
}

inline void resize_stripe(const int16_t* columns, int64_t stride, int64_t origin, const Taps& taps,
                          bool flip, int64_t size, int16_t* const* rows) {
  switch (taps.num_taps) {
    case 2:
      return resize_stripe_by<2>(columns, stride, origin, taps, flip, size, rows);
    case 3:
      return resize_stripe_by<3>(columns, stride, origin, taps, flip, size, rows);
    case 4:
      return resize_stripe_by<4>(columns, stride, origin, taps, flip, size, rows);
    default:
      return resize_stripe_by<0>(columns, stride, origin, taps, flip, size, rows);
  }
}

// The rows of a plane that are blended; kRows of them, or any number where that is 0.
template <int kRows>
class Blend {
 public:
  explicit Blend(const WeightedRows& rows) : source_(rows) {
    for (int k = 0; k < kRows; ++k) weights_[k] = fill(rows.weights[k]);
  }

  // Samples x to x + 15 of the row.
  Lanes at(int64_t x) const {
    Lanes sum = scale(load(source_.rows[0] + x), weight(0));
    for (int64_t k = 1; k < (kRows > 0 ? kRows : source_.num_rows); ++k) {
      sum = add(sum, scale(load(source_.rows[k] + x), weight(k)));
    }
    return source_.are_halved ? add_saturated(sum, sum) : sum;
  }

 private:
  Lanes weight(int64_t k) const { return kRows > 0 ? weights_[k] : fill(source_.weights[k]); }

  const WeightedRows source_;
  Lanes weights_[kRows > 0 ? kRows : 1];
};

inline Lanes round_sample(Lanes a) {
  return shift_right<kSampleBits>(add_saturated(a, fill(1 << (kSampleBits - 1))));
}

template <int kLumaRows, int kChromaRows>
inline void finish_row_of(const WeightedRows* planes, bool is_ycbcr, int64_t size, uint8_t* out) {
  const Blend<kLumaRows> first(planes[0]);
  const Blend<kChromaRows> second(planes[1]), third(planes[2]);
  for (int64_t x = 0; x < size; x += 16) {
    const Lanes a = first.at(x), b = second.at(x), c = third.at(x);
    const Colour colour = is_ycbcr ? to_rgb(a, b, c) : Colour{a, b, c};
    const Lanes red = round_sample(colour.red), green = round_sample(colour.green);
    const Lanes blue = round_sample(colour.blue);
    if (size - x >= 16) {
      stream_rgb(out + 3 * x, red, green, blue);
    } else {
      uint8_t pixels[48];
      store_rgb(pixels, red, green, blue);
      std::memcpy(out + 3 * x, pixels, static_cast<size_t>(3 * (size - x)));
    }
  }
}

// Blend each plane's rows to one row of `size` RGB pixels; from YCbCr if `is_ycbcr`. Planes 1 and 2
// have as many rows as each other.
inline void finish_row(const WeightedRows* planes, bool is_ycbcr, int64_t size, uint8_t* out) {
  // The usual numbers of rows keep their weights in registers.
  switch (planes[0].num_rows * 8 + planes[1].num_rows) {
    case 1 * 8 + 2:
      return finish_row_of<1, 2>(planes, is_ycbcr, size, out);
    case 2 * 8 + 2:
      return finish_row_of<2, 2>(planes, is_ycbcr, size, out);
    case 2 * 8 + 3:
      return finish_row_of<2, 3>(planes, is_ycbcr, size, out);
    case 3 * 8 + 2:
      return finish_row_of<3, 2>(planes, is_ycbcr, size, out);
    case 3 * 8 + 3:
      return finish_row_of<3, 3>(planes, is_ycbcr, size, out);
    default:
      return finish_row_of<0, 0>(planes, is_ycbcr, size, out);
  }
}

}  // namespace FFVIT_TARGET
}  // namespace ffvit
