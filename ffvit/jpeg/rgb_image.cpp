#include "rgb_image.h"

#include <algorithm>
#include <limits>

namespace ffvit {

void RgbResizer::resize(const Target& target, const uint8_t* pixels, const Job& job,
                        const Output& output, Resizer* resizer) {
  resizer->across.fill(output.filter, {job.left, job.crop_width, output.width});
  resizer->down.fill(output.filter, {job.top, job.crop_height, output.height});
  resizer->begin(target, output, false);
  const int64_t num_values = job.crop_width * 3;
  stripe_.resize(static_cast<size_t>(num_values * kStripeHeight));
  const int64_t bottom = job.top + job.crop_height;
  for (int64_t y = job.top; y < bottom; y += kStripeHeight) {
    const int64_t num_rows = std::min<int64_t>(kStripeHeight, bottom - y);
    for (int64_t lane = 0; lane < num_rows; ++lane) {
      const uint8_t* source = pixels + ((y + lane) * job.width + job.left) * 3;
      int16_t* out = stripe_.data() + lane;
      for (int64_t i = 0; i < num_values; ++i, out += kStripeHeight) {
        *out = static_cast<int16_t>((source[i] - 128) * (1 << kSampleBits));
      }
    }
    for (int plane = 0; plane < 3; ++plane) {
      resizer->add_stripe(stripe_.data() + plane * kStripeHeight, 3 * kStripeHeight, job.left,
                          {plane, y}, {plane, y + 8});
    }
    const int64_t end = y + num_rows == bottom ? std::numeric_limits<int64_t>::max() : y + num_rows;
    resizer->finish_rows(end, end);
  }
}

}  // namespace ffvit
