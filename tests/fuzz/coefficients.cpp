#include "coefficients.h"

#include <turbojpeg.h>

#include <cstdlib>
#include <cstring>
#include <vector>

#include "frame.h"
#include "segments.h"

namespace ffvit {
namespace {

// The inverse DCT keeps 4 bits below the unit in its first pass and gains up to 2 in each, with
// partial sums up to 1.4 of that: an absolute sum of 700 stays below 32768.
constexpr int64_t kModerate = 700;
constexpr uint32_t kAllBlocks = 63;

struct Plane {
  int64_t across = 0;  // blocks
  int64_t down = 0;
  std::vector<int16_t> values;  // 64 per block, in natural order
};

// All coefficients of a file, by the kernel. Returns false if it does not take the file.
class OwnCoefficients {
 public:
  bool read(const Target& target, const Frame& frame) {
    SegmentReader reader;
    const int num_blocks = frame.layout.num_blocks;
    for (int c = 0; c < 3; ++c) {
      planes[c].across = frame.mcus_across * across(frame, c);
      planes[c].down = frame.mcus_down * down(frame, c);
      planes[c].values.resize(static_cast<size_t>(planes[c].across * planes[c].down * kBlockSize));
    }
    if (!reader.open(target, frame)) return false;
    std::vector<int16_t> mcu(static_cast<size_t>(num_blocks * kBlockSize));
    for (int64_t number = 0; number < frame.num_mcus(); ++number) {
      if (!reader.decode(number, 1, kAllBlocks, mcu.data())) return false;
      const int64_t y = number / frame.mcus_across, x = number % frame.mcus_across;
      int in_component = 0;
      for (int b = 0; b < num_blocks; ++b) {
        const int c = frame.layout.component[b];
        if (b > 0 && c != frame.layout.component[b - 1]) in_component = 0;
        const int64_t row = y * down(frame, c) + in_component / across(frame, c);
        const int64_t column = x * across(frame, c) + in_component % across(frame, c);
        std::memcpy(&planes[c].values[static_cast<size_t>((row * planes[c].across + column) * 64)],
                    &mcu[static_cast<size_t>(b * kBlockSize)], kBlockSize * sizeof(int16_t));
        ++in_component;
      }
    }
    return true;
  }

  bool operator==(const OwnCoefficients& other) const {
    for (int c = 0; c < 3; ++c) {
      if (planes[c].values != other.planes[c].values) return false;
    }
    return true;
  }

  Plane planes[3];

 private:
  static int across(const Frame& frame, int c) { return c == 0 ? frame.luma_across : 1; }
  static int down(const Frame& frame, int c) { return c == 0 ? frame.luma_down : 1; }
};

struct Comparison {
  const OwnCoefficients* own;
  const Frame* frame;
  Coefficients result;
};

// Called by libjpeg-turbo for each row of blocks.
int compare_row(short* values, tjregion region, tjregion plane_region, int component, int,
                tjtransform* transform) {
  auto* comparison = static_cast<Comparison*>(transform->data);
  const Plane& plane = comparison->own->planes[component];
  const uint16_t* quantization = comparison->frame->quantization[component];
  if (region.y >= plane_region.h) return 0;  // padding
  for (int64_t x = 0; x < region.w / 8; ++x) {
    const int16_t* expected = values + x * kBlockSize;
    const size_t place = static_cast<size_t>((region.y / 8 * plane.across + x) * kBlockSize);
    const int16_t* own = &plane.values[place];
    if (std::memcmp(own, expected, kBlockSize * sizeof *own) != 0) {
      comparison->result.are_equal = false;
    }
    int64_t sum = 0;
    for (int k = 0; k < kBlockSize; ++k) sum += std::abs(int64_t{own[k]} * quantization[k]);
    if (sum > kModerate) comparison->result.are_moderate = false;
  }
  return 0;
}

}  // namespace

Coefficients compare_coefficients(const uint8_t* data, int64_t size) {
  static HuffmanCache tables;
  Frame frame;
  if (!read_frame(data, static_cast<size_t>(size), &tables, &frame)) return {};
  if (frame.num_mcus() > 1 << 14) return {};
  const TargetList targets = available_targets();
  OwnCoefficients first;
  const bool is_sound = first.read(*targets.targets[0], frame);
  for (int i = 0; i < targets.count; ++i) {
    SegmentReader reader;
    // Passing over coefficients must see the same damage as decoding them.
    const bool skips = reader.open(*targets.targets[i], frame) && reader.check_all();
    OwnCoefficients other;
    if (skips != is_sound || other.read(*targets.targets[i], frame) != is_sound) return {false};
    if (is_sound && !(other == first)) return {false};
  }
  if (!is_sound) return {};

  static tjhandle turbo = tjInitTransform();
  Comparison comparison = {&first, &frame, {true, true}};
  tjtransform transform = {};
  transform.options = TJXOPT_NOOUTPUT;
  transform.data = &comparison;
  transform.customFilter = compare_row;
  unsigned char* output = nullptr;
  unsigned long output_size = 0;
  const int failed = tjTransform(turbo, data, static_cast<unsigned long>(size), 1, &output,
                                 &output_size, &transform, 0);
  tjFree(output);
  if (failed != 0) return {};
  return comparison.result;
}

}  // namespace ffvit
