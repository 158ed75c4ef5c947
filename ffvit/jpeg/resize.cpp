#include "resize.h"

#include <algorithm>
#include <cmath>

namespace ffvit {
namespace {

constexpr int kWeightBits = 14;
// Rows between the passes keep 6 bits below the pixel's unit: 255 << 6, and bicubic's overshoot,
// fit an int16.
constexpr int kRowBits = 6;

// Keys' cubic with a = -1/2, as Pillow and torchvision use it (Keys 1981, "Cubic convolution
// interpolation").
double cubic(double x) {
  x = std::fabs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

double overlap(double begin, double end, double pixel) {
  return std::max(0.0, std::min(end, pixel + 1) - std::max(begin, pixel));
}

// The share of the input pixel in one output pixel, not yet normalised. `scale` is input pixels per
// output pixel.
double weight(Filter filter, double scale, double output, double pixel) {
  if (filter == kBicubic) {
    return cubic((pixel + 0.5 - (output + 0.5) * scale) / std::max(scale, 1.0));
  }
  if (scale >= 1) return overlap(output * scale, (output + 1) * scale, pixel);
  return std::max(0.0, 1 - std::fabs(pixel + 0.5 - (output + 0.5) * scale));
}

uint8_t to_pixel(int32_t sum) {
  constexpr int kShift = kWeightBits + kRowBits;
  const int32_t value = (sum + (1 << (kShift - 1))) >> kShift;
  return static_cast<uint8_t>(std::clamp(value, 0, 255));
}

}  // namespace

void fill_taps(Filter filter, int64_t input, int64_t output, Taps* taps) {
  const double scale = static_cast<double>(input) / static_cast<double>(output);
  const double radius =
      filter == kBicubic ? 2 * std::max(scale, 1.0) : std::max(scale / 2, scale < 1 ? 1.0 : 0.5);
  taps->num_taps = std::min(input, static_cast<int64_t>(std::ceil(radius)) * 2 + 1);
  taps->starts.resize(static_cast<size_t>(output));
  taps->weights.resize(static_cast<size_t>(output * taps->num_taps));
  std::vector<double> shares(static_cast<size_t>(taps->num_taps));

  for (int64_t i = 0; i < output; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = static_cast<int64_t>(std::floor(center - radius));
    const int64_t start = std::clamp<int64_t>(first, 0, input - taps->num_taps);
    taps->starts[static_cast<size_t>(i)] = start;
    double sum = 0;
    for (int64_t k = 0; k < taps->num_taps; ++k) {
      const double share =
          weight(filter, scale, static_cast<double>(i), static_cast<double>(start + k));
      shares[static_cast<size_t>(k)] = share;
      sum += share;
    }
    // Round, and give the rest to the largest weight, so that a constant image stays exactly
    // constant.
    int16_t* weights = &taps->weights[static_cast<size_t>(i * taps->num_taps)];
    int32_t rest = 1 << kWeightBits;
    for (int64_t k = 0; k < taps->num_taps; ++k) {
      const double exact = shares[static_cast<size_t>(k)] / sum * (1 << kWeightBits);
      weights[k] = static_cast<int16_t>(std::lround(exact));
      rest -= weights[k];
    }
    int16_t* largest = std::max_element(weights, weights + taps->num_taps);
    *largest = static_cast<int16_t>(*largest + rest);
  }
}

void Resizer::resize(const uint8_t* pixels, const Job& job, Filter filter, int64_t resolution,
                     uint8_t* out) {
  fill_taps(filter, job.crop_width, resolution, &horizontal_);
  fill_taps(filter, job.crop_height, resolution, &vertical_);
  const int64_t row_size = resolution * 3;
  rows_.resize(static_cast<size_t>(job.crop_height * row_size));
  sums_.resize(static_cast<size_t>(row_size));

  for (int64_t y = 0; y < job.crop_height; ++y) {
    const uint8_t* source = pixels + ((job.top + y) * job.width + job.left) * 3;
    int16_t* row = &rows_[static_cast<size_t>(y * row_size)];
    for (int64_t x = 0; x < resolution; ++x) {
      const uint8_t* pixel = source + horizontal_.starts[static_cast<size_t>(x)] * 3;
      const int16_t* weights = &horizontal_.weights[static_cast<size_t>(x * horizontal_.num_taps)];
      int32_t red = 0, green = 0, blue = 0;
      for (int64_t k = 0; k < horizontal_.num_taps; ++k) {
        red += weights[k] * pixel[3 * k];
        green += weights[k] * pixel[3 * k + 1];
        blue += weights[k] * pixel[3 * k + 2];
      }
      constexpr int kShift = kWeightBits - kRowBits;
      constexpr int32_t kHalf = 1 << (kShift - 1);
      int16_t* target = row + 3 * (job.flip != 0 ? resolution - 1 - x : x);
      target[0] = static_cast<int16_t>((red + kHalf) >> kShift);
      target[1] = static_cast<int16_t>((green + kHalf) >> kShift);
      target[2] = static_cast<int16_t>((blue + kHalf) >> kShift);
    }
  }

  for (int64_t y = 0; y < resolution; ++y) {
    std::fill(sums_.begin(), sums_.end(), 0);
    const int64_t start = vertical_.starts[static_cast<size_t>(y)];
    for (int64_t k = 0; k < vertical_.num_taps; ++k) {
      const int32_t share = vertical_.weights[static_cast<size_t>(y * vertical_.num_taps + k)];
      if (share == 0) continue;
      const int16_t* row = &rows_[static_cast<size_t>((start + k) * row_size)];
      int32_t* sums = sums_.data();
      for (int64_t x = 0; x < row_size; ++x) sums[x] += share * row[x];
    }
    uint8_t* target = out + y * row_size;
    for (int64_t x = 0; x < row_size; ++x) target[x] = to_pixel(sums_[static_cast<size_t>(x)]);
  }
}

}  // namespace ffvit
