#include "filters.h"

#include <algorithm>
#include <cmath>

namespace ffvit {
namespace {

constexpr int32_t kUnit = 32768;

// A weight of one does not fit; what is missing is less than a sample's last bit.
int16_t to_weight(int32_t weight) { return static_cast<int16_t>(std::min(weight, kUnit - 1)); }

// Keys' cubic with a = -1/2, as Pillow and torchvision use it (Keys 1981, "Cubic convolution
// interpolation").
double cubic(double x) {
  x = std::fabs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

}  // namespace

int64_t FilterTaps::end() const {
  int64_t count = num_taps_;
  const int16_t* weights = &weights_[weights_.size() - static_cast<size_t>(num_taps_)];
  while (weights[count - 1] == 0) --count;
  return starts_.back() + count;
}

void FilterTaps::resize(int64_t num_outputs, int64_t num_taps) {
  num_taps_ = num_taps;
  starts_.assign(static_cast<size_t>(num_outputs), 0);
  weights_.assign(static_cast<size_t>(num_outputs * num_taps), 0);
}

void FilterTaps::fill(Filter filter, const Axis& axis) {
  const std::vector<int64_t> key = {filter, axis.begin, axis.size, axis.output};
  if (key == key_) return;
  key_.clear();                      // should memory run out below, these are nobody's weights
  are_halved_ = filter == kBicubic;  // at a border a weight may be above one
  if (filter == kBicubic) {
    fill_bicubic(axis);
  } else if (axis.size >= axis.output) {
    fill_area(axis);
  } else {
    fill_triangle(axis);
  }
  key_ = key;
}

// Exact coverage: output i is the mean of [i * size / output, (i + 1) * size / output). Lengths are
// counted in 1/output of a pixel, so that they are whole numbers.
void FilterTaps::fill_area(const Axis& axis) {
  const int64_t size = axis.size, output = axis.output;
  resize(output, size % output == 0 ? size / output : std::min(size, (size - 1) / output + 2));
  const double scale = static_cast<double>(kUnit) / static_cast<double>(size);
  for (int64_t i = 0; i < output; ++i) {
    const int64_t begin = i * size, first = begin / output;
    const int64_t start = std::min(first, size - num_taps_);
    starts_[static_cast<size_t>(i)] = static_cast<int32_t>(axis.begin + start);
    int16_t* weights = &weights_[static_cast<size_t>(i * num_taps_)];
    // Rounding the covered length up to each pixel's end makes the weights sum to the unit.
    int32_t before = 0;
    for (int64_t pixel = first; before < kUnit; ++pixel) {
      const int64_t covered = std::min((pixel + 1) * output - begin, size);
      const auto until = static_cast<int32_t>(static_cast<double>(covered) * scale + 0.5);
      weights[pixel - start] = to_weight(until - before);
      before = until;
    }
  }
}

// Linear interpolation between the centres of the pixels; outside of the axis is nothing.
void FilterTaps::fill_triangle(const Axis& axis) {
  const int64_t size = axis.size, output = axis.output;
  resize(output, std::min<int64_t>(size, 2));
  const double scale = static_cast<double>(kUnit) / static_cast<double>(2 * output);
  for (int64_t i = 0; i < output; ++i) {
    // In 1/(2 * output) of a pixel, less half a pixel, plus one to stay positive.
    const int64_t center = (2 * i + 1) * size + output;
    const int64_t left = center / (2 * output) - 1;
    const int64_t start = std::clamp<int64_t>(left, 0, size - num_taps_);
    starts_[static_cast<size_t>(i)] = static_cast<int32_t>(axis.begin + start);
    int16_t* weights = &weights_[static_cast<size_t>(i * num_taps_)];
    if (left < 0 || left + 1 >= size) {  // only one of the two pixels is there
      weights[left < 0 ? 0 : num_taps_ - 1] = to_weight(kUnit);
      continue;
    }
    const auto right_weight =
        static_cast<int32_t>(static_cast<double>(center % (2 * output)) * scale + 0.5);
    weights[0] = to_weight(kUnit - right_weight);
    weights[1] = to_weight(right_weight);
  }
}

// Pillow's bicubic, widened where the axis shrinks; outside of the axis is nothing.
void FilterTaps::fill_bicubic(const Axis& axis) {
  const double scale = static_cast<double>(axis.size) / static_cast<double>(axis.output);
  const double width = std::max(scale, 1.0), radius = 2 * width;
  resize(axis.output, std::min(axis.size, static_cast<int64_t>(std::ceil(radius)) * 2 + 1));
  std::vector<double> shares(static_cast<size_t>(num_taps_));
  for (int64_t i = 0; i < axis.output; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = static_cast<int64_t>(std::floor(center - radius));
    const int64_t start = std::clamp<int64_t>(first, 0, axis.size - num_taps_);
    starts_[static_cast<size_t>(i)] = static_cast<int32_t>(axis.begin + start);
    double sum = 0;
    for (int64_t k = 0; k < num_taps_; ++k) {
      const double share = cubic((static_cast<double>(start + k) + 0.5 - center) / width);
      shares[static_cast<size_t>(k)] = share;
      sum += share;
    }
    // Round, and give the rest to the largest, so that a constant image stays constant.
    int16_t* weights = &weights_[static_cast<size_t>(i * num_taps_)];
    int32_t rest = kUnit / 2;
    for (int64_t k = 0; k < num_taps_; ++k) {
      weights[k] = to_weight(
          static_cast<int32_t>(std::lround(shares[static_cast<size_t>(k)] / sum * (kUnit / 2))));
      rest -= weights[k];
    }
    int16_t* largest = std::max_element(weights, weights + num_taps_);
    *largest = to_weight(*largest + rest);
  }
}

void FilterTaps::fill_halved(const FilterTaps& full, int64_t limit) {
  std::vector<int64_t> key = full.key_;
  key.push_back(limit);
  if (key == key_) return;
  key_.clear();  // should memory run out below, these are nobody's weights
  are_halved_ = full.are_halved_;
  const auto num_outputs = static_cast<int64_t>(full.starts_.size());
  resize(num_outputs, std::min(limit, full.num_taps_ / 2 + 2));
  // The weights of one output, with zeros around them.
  std::vector<int32_t> around(static_cast<size_t>(full.num_taps_ + 4 * num_taps_ + 10));
  int32_t* own = around.data() + 2 * num_taps_ + 4;
  for (int64_t i = 0; i < num_outputs; ++i) {
    const int64_t first = full.starts_[static_cast<size_t>(i)];
    const int64_t start = std::clamp<int64_t>((first >> 1) - (~first & 1), 0, limit - num_taps_);
    starts_[static_cast<size_t>(i)] = static_cast<int32_t>(start);
    const int16_t* full_weights = &full.weights_[static_cast<size_t>(i * full.num_taps_)];
    for (int64_t k = 0; k < full.num_taps_; ++k) own[k] = full_weights[k];
    int16_t* weights = &weights_[static_cast<size_t>(i * num_taps_)];
    int32_t sum = 2, before = 0;
    for (int64_t k = 0; k < num_taps_; ++k) {
      // Four pixels take a part of this sample; the first and the last of a line repeat it.
      const int32_t* left = own + 2 * (start + k) - 1 - first;
      sum += left[0] + 3 * (left[1] + left[2]) + left[3];
      if (start + k == 0) sum += left[1];
      if (start + k == limit - 1) sum += left[2];
      weights[k] = to_weight((sum >> 2) - before);
      before = sum >> 2;
    }
  }
  key_ = key;
}

}  // namespace ffvit
