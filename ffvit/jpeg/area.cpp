#include "area.h"

#include <algorithm>

namespace ffvit {

Coverage::Coverage(int64_t length, int64_t source_step, int64_t new_length, int64_t target_step) {
  const double scale = static_cast<double>(length) / static_cast<double>(new_length);
  const int64_t num_sources = (length + source_step - 1) / source_step;
  begin.push_back(0);
  for (int64_t position = 0; position < new_length; position += target_step) {
    const double low = static_cast<double>(position) * scale;
    const double high = static_cast<double>(std::min(position + target_step, new_length)) * scale;
    int64_t source = std::min(static_cast<int64_t>(low) / source_step, num_sources - 1);
    first.push_back(source);
    do {
      const auto source_low = static_cast<double>(source * source_step);
      const auto source_high = static_cast<double>(std::min((source + 1) * source_step, length));
      const double covered = std::min(high, source_high) - std::max(low, source_low);
      weights.push_back(static_cast<float>(std::max(covered, 0.0) / (high - low)));
      ++source;
    } while (source < num_sources && static_cast<double>(source * source_step) < high);
    begin.push_back(static_cast<int64_t>(weights.size()));
  }
}

void shrink_area(const Samples& source, const Coverage& rows, const Coverage& columns,
                 const Samples& target) {
  const int64_t num_channels = source.num_channels;
  std::vector<float> sums(static_cast<size_t>(source.width * num_channels));
  for (int64_t y = 0; y < rows.num_targets(); ++y) {
    // Down first: whole rows at once.
    std::fill(sums.begin(), sums.end(), 0.0F);
    const auto row = static_cast<size_t>(y);
    const uint8_t* samples = source.data + rows.first[row] * source.stride;
    for (int64_t k = rows.begin[row]; k < rows.begin[row + 1]; ++k, samples += source.stride) {
      const float weight = rows.weights[static_cast<size_t>(k)];
      for (size_t x = 0; x < sums.size(); ++x) sums[x] += weight * samples[x];
    }
    uint8_t* out = target.data + y * target.stride;
    for (int64_t x = 0; x < columns.num_targets(); ++x) {
      const auto column = static_cast<size_t>(x);
      for (int64_t channel = 0; channel < num_channels; ++channel) {
        const float* values = sums.data() + columns.first[column] * num_channels + channel;
        float sum = 0.5F;  // to the nearest
        for (int64_t k = columns.begin[column]; k < columns.begin[column + 1];
             ++k, values += num_channels)
          sum += columns.weights[static_cast<size_t>(k)] * *values;
        *out++ = static_cast<uint8_t>(std::min(sum, 255.0F));
      }
    }
  }
}

}  // namespace ffvit
