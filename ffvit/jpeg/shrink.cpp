#include "shrink.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "area.h"
#include "codec.h"
#include "planes.h"

namespace ffvit {
namespace {

constexpr int64_t kBlock = 8;       // samples
constexpr int64_t kChromaStep = 2;  // luma samples per chroma sample of 4:2:0, on each axis

Samples view(const Plane& plane) { return {plane.samples.get(), plane.stride, plane.width, 1}; }

int64_t divide_up(int64_t number, int64_t divisor) { return (number + divisor - 1) / divisor; }

// Halve both axes of a plane of even or odd sides, as the encoder of 4:2:0 does.
void halve(const Plane& source, const Plane& target) {
  for (int64_t y = 0; y < target.height; ++y) {
    const uint8_t* upper = source.row(2 * y);
    const uint8_t* lower = source.row(std::min(2 * y + 1, source.height - 1));
    uint8_t* out = target.row(y);
    const int64_t num_pairs = source.width / 2;
    for (int64_t x = 0; x < num_pairs; ++x) {
      const int sum = upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1];
      out[x] = static_cast<uint8_t>((sum + 1 + (x & 1)) >> 2);  // rounds up as often as down
    }
    if (source.width % 2 != 0) {
      const int sum = upper[source.width - 1] + lower[source.width - 1];
      out[num_pairs] = static_cast<uint8_t>((sum + 1) >> 1);
    }
  }
}

// Repeat the last sample of each row up to a whole block.
void pad(const Plane& plane) {
  const int64_t rest = divide_up(plane.width, kBlock) * kBlock - plane.width;
  for (int64_t y = 0; y < plane.height && rest > 0; ++y) {
    uint8_t* end = plane.row(y) + plane.width;
    std::memset(end, end[-1], static_cast<size_t>(rest));
  }
}

// The calls of libjpeg: no object with a destructor in this function.
int64_t write_planes(Codec* codec, const Plane* planes, int64_t quality, int64_t restart_interval,
                     uint8_t* out, int64_t capacity) {
  if (setjmp(codec->jump) != 0) return codec->status;
  codec->open_writer(out, capacity);
  jpeg_compress_struct& writer = codec->writer;
  writer.image_height = static_cast<JDIMENSION>(planes[0].height);
  writer.image_width = static_cast<JDIMENSION>(planes[0].width);
  writer.input_components = kNumPlanes;
  writer.in_color_space = JCS_YCbCr;
  jpeg_set_defaults(&writer);  // 4:2:0, the standard Huffman tables
  jpeg_set_quality(&writer, static_cast<int>(quality), TRUE);
  writer.dct_method = JDCT_ISLOW;
  writer.restart_interval = static_cast<unsigned int>(restart_interval);
  writer.raw_data_in = TRUE;
  jpeg_start_compress(&writer, TRUE);
  JSAMPROW rows[kNumPlanes][2 * kBlock];
  JSAMPARRAY arrays[kNumPlanes] = {rows[0], rows[1], rows[2]};
  for (int64_t group = 0; writer.next_scanline < writer.image_height; ++group) {
    for (int i = 0; i < kNumPlanes; ++i) {
      const int64_t num_rows = i == 0 ? kChromaStep * kBlock : kBlock;
      for (int64_t y = 0; y < num_rows; ++y)
        rows[i][y] = planes[i].row(std::min(group * num_rows + y, planes[i].height - 1));
    }
    jpeg_write_raw_data(&writer, arrays, static_cast<JDIMENSION>(kChromaStep * kBlock));
  }
  jpeg_finish_compress(&writer);
  return codec->num_written();
}

// Bring planes to 4:2:0 at the new size.
void shrink_planes(int64_t new_height, int64_t new_width, Plane* planes) {
  const int64_t height = planes[0].height, width = planes[0].width;
  for (int i = 0; i < kNumPlanes; ++i) {
    const int64_t step = i == 0 ? 1 : kChromaStep;
    Plane& source = planes[i];
    const bool is_full_size = new_height == height && new_width == width;
    if (!is_full_size || source.row_step != step || source.column_step != step) {
      Plane target;
      target.height = divide_up(new_height, step);
      target.width = divide_up(new_width, step);
      target.allocate(target.height, divide_up(target.width, kBlock) * kBlock);
      if (is_full_size && source.row_step == 1 && source.column_step == 1) {
        halve(source, target);
      } else {
        shrink_area(view(source), Coverage(height, source.row_step, new_height, step),
                    Coverage(width, source.column_step, new_width, step), view(target));
      }
      source = std::move(target);
    }
    pad(source);
  }
}

int64_t shrink_jpeg(const Target& target, const uint8_t* data, int64_t size, int64_t height,
                    int64_t width, int64_t new_height, int64_t new_width, int64_t quality,
                    int64_t restart_interval, uint8_t* out, int64_t capacity) {
  PlaneReader reader;
  if (!reader.open(target, data, static_cast<size_t>(size))) {
    return kBadHeader;
  }
  if (reader.frame().height != height || reader.frame().width != width) return kWrongSize;
  Plane planes[kNumPlanes];
  if (!reader.read(planes)) return kDamaged;
  shrink_planes(new_height, new_width, planes);
  Codec codec = {};
  const int64_t result = write_planes(&codec, planes, quality, restart_interval, out, capacity);
  codec.close();
  return result;
}

}  // namespace
}  // namespace ffvit

int64_t ffvit_shrink_jpeg(int64_t target, const void* data, int64_t size, int64_t height,
                          int64_t width, int64_t new_height, int64_t new_width, int64_t quality,
                          int64_t restart_interval, void* out, int64_t capacity) {
  const ffvit::TargetList list = ffvit::available_targets();
  if (target < 0 || target >= list.count) return ffvit::kUnknownMode;
  try {
    return ffvit::shrink_jpeg(*list.targets[target], static_cast<const uint8_t*>(data), size,
                              height, width, new_height, new_width, quality, restart_interval,
                              static_cast<uint8_t*>(out), capacity);
  } catch (const std::bad_alloc&) {
    return ffvit::kOutOfMemory;
  }
}

int64_t ffvit_shrink_pixels(const void* pixels, int64_t height, int64_t width, int64_t new_height,
                            int64_t new_width, void* out) {
  // Only read, but `Samples` serve both ways.
  auto* source = static_cast<uint8_t*>(const_cast<void*>(pixels));
  try {
    ffvit::shrink_area({source, 3 * width, width, 3}, ffvit::Coverage(height, 1, new_height, 1),
                       ffvit::Coverage(width, 1, new_width, 1),
                       {static_cast<uint8_t*>(out), 3 * new_width, new_width, 3});
  } catch (const std::bad_alloc&) {
    return ffvit::kOutOfMemory;
  }
  return ffvit::kOk;
}
