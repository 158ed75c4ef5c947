#include "resizer.h"

namespace ffvit {

void Resizer::begin(const Target& target, const Output& output, bool is_ycbcr) {
  target_ = &target;
  output_ = output;
  is_ycbcr_ = is_ycbcr;
  next_row_ = 0;
  pitch_ = (output.width + 15) / 16 * 16;
  // A row is kept from the stripe that brings it to the last output row that needs it; luma also
  // waits for the chroma of a later stripe.
  int64_t needed = down.view().num_taps + 2 * kStripeHeight;
  if (is_ycbcr) needed += 2 * chroma_down.view().num_taps;
  capacity_ = 1;
  while (capacity_ < needed) capacity_ *= 2;
  rows_.resize(static_cast<size_t>((3 * capacity_ + 1) * pitch_));
}

int16_t* Resizer::row(int plane, int64_t number) {
  const int64_t index = plane < 0 ? 3 * capacity_ : plane * capacity_ + (number & (capacity_ - 1));
  return rows_.data() + index * pitch_;
}

void Resizer::add_stripe(const int16_t* columns, int64_t stride, int64_t origin, HalfStripe low,
                         HalfStripe high) {
  int16_t* rows[kStripeHeight];
  for (int i = 0; i < kStripeHeight / 2; ++i) {
    rows[i] = row(low.plane, low.first_row + i);
    rows[kStripeHeight / 2 + i] = row(high.plane, high.first_row + i);
  }
  const bool is_chroma = is_ycbcr_ && low.plane > 0;
  const Taps taps = (is_chroma ? chroma_across : across).view();
  target_->resize_stripe(columns, stride, origin, taps, output_.flip, output_.width, rows);
}

void Resizer::finish_rows(int64_t luma_end, int64_t chroma_end) {
  const Taps luma = down.view(), chroma = is_ycbcr_ ? chroma_down.view() : luma;
  pointers_.resize(static_cast<size_t>(luma.num_taps + 2 * chroma.num_taps));
  for (; next_row_ < output_.height; ++next_row_) {
    WeightedRows planes[3];
    const int16_t** pointers = pointers_.data();
    for (int plane = 0; plane < 3; ++plane) {
      const Taps& taps = plane == 0 ? luma : chroma;
      const int64_t start = taps.starts[next_row_];
      const int16_t* weights = taps.weights + next_row_ * taps.num_taps;
      // The last weight is often zero, as an output covers one pixel more or less.
      const int64_t count = taps.num_taps - (weights[taps.num_taps - 1] == 0 ? 1 : 0);
      if (start + count > (plane == 0 ? luma_end : chroma_end)) return;
      for (int64_t k = 0; k < count; ++k) pointers[k] = row(plane, start + k);
      planes[plane] = {count, pointers, weights, taps.are_halved};
      pointers += count;
    }
    uint8_t* out = output_.pixels + next_row_ * output_.width * 3;
    target_->finish_row(planes, is_ycbcr_, output_.width, out);
  }
}

}  // namespace ffvit
