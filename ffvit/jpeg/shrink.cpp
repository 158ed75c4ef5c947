#include "shrink.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "area.h"
#include "codec.h"

namespace ffvit {
namespace {

constexpr int kNumPlanes = 3;
constexpr int64_t kBlock = 8;       // samples
constexpr int64_t kChromaStep = 2;  // luma samples per chroma sample of 4:2:0, on each axis

// One component's samples, padded to whole blocks.
struct Plane {
  int64_t height = 0;
  int64_t width = 0;
  int64_t stride = 0;       // bytes from row to row
  int64_t row_step = 1;     // luma samples per sample, down
  int64_t column_step = 1;  // and across
  std::unique_ptr<uint8_t[]> samples;

  // `num_rows` and `row_size` include the padding. The samples have no values yet.
  void allocate(int64_t num_rows, int64_t row_size) {
    stride = row_size;
    samples.reset(new uint8_t[static_cast<size_t>(num_rows * row_size)]);
  }
  uint8_t* row(int64_t y) const { return samples.get() + y * stride; }
  Samples view() const { return {samples.get(), stride, width, 1}; }
};

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

// --- The calls of libjpeg: no objects with destructors in these functions ------------------------

int64_t open_image(Codec* codec, const uint8_t* data, int64_t size, int64_t height, int64_t width,
                   uint8_t* out, int64_t capacity) {
  if (setjmp(codec->jump) != 0) return codec->status;
  codec->open(data, size, out, capacity);
  codec->read_header(height, width);
  jpeg_decompress_struct& reader = codec->reader;
  if (reader.num_components != kNumPlanes || reader.jpeg_color_space != JCS_YCbCr)
    return kBadHeader;
  for (int i = 0; i < kNumPlanes; ++i) {
    const jpeg_component_info& component = reader.comp_info[i];
    if (component.h_samp_factor > 2 || component.v_samp_factor > 2) return kBadHeader;
    if (i > 0 && (component.h_samp_factor != 1 || component.v_samp_factor != 1)) return kBadHeader;
  }
  return kOk;
}

int64_t read_planes(Codec* codec, const Plane* planes) {
  if (setjmp(codec->jump) != 0) return codec->status;
  jpeg_decompress_struct& reader = codec->reader;
  reader.raw_data_out = TRUE;
  reader.dct_method = JDCT_ISLOW;
  jpeg_start_decompress(&reader);
  JSAMPROW rows[kNumPlanes][2 * kBlock];
  JSAMPARRAY arrays[kNumPlanes] = {rows[0], rows[1], rows[2]};
  const auto num_lines = static_cast<JDIMENSION>(reader.max_v_samp_factor * kBlock);
  for (int64_t group = 0; reader.output_scanline < reader.output_height; ++group) {
    for (int i = 0; i < kNumPlanes; ++i) {
      const int64_t num_rows = reader.comp_info[i].v_samp_factor * kBlock;
      for (int64_t y = 0; y < num_rows; ++y) rows[i][y] = planes[i].row(group * num_rows + y);
    }
    jpeg_read_raw_data(&reader, arrays, num_lines);
  }
  jpeg_finish_decompress(&reader);
  return kOk;
}

int64_t write_planes(Codec* codec, const Plane* planes, int64_t quality, int64_t restart_interval) {
  if (setjmp(codec->jump) != 0) return codec->status;
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

// -------------------------------------------------------------------------------------------------

// A file's planes at full size, without values yet.
void allocate_planes(const jpeg_decompress_struct& reader, Plane* planes) {
  const int64_t height = reader.image_height, width = reader.image_width;
  for (int i = 0; i < kNumPlanes; ++i) {
    const jpeg_component_info& component = reader.comp_info[i];
    Plane& plane = planes[i];
    plane.row_step = reader.max_v_samp_factor / component.v_samp_factor;
    plane.column_step = reader.max_h_samp_factor / component.h_samp_factor;
    plane.height = divide_up(height, plane.row_step);
    plane.width = divide_up(width, plane.column_step);
    // Whole MCUs.
    plane.allocate(
        divide_up(height, reader.max_v_samp_factor * kBlock) * component.v_samp_factor * kBlock,
        divide_up(width, reader.max_h_samp_factor * kBlock) * component.h_samp_factor * kBlock);
  }
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
        shrink_area(source.view(), Coverage(height, source.row_step, new_height, step),
                    Coverage(width, source.column_step, new_width, step), target.view());
      }
      source = std::move(target);
    }
    pad(source);
  }
}

int64_t shrink_jpeg(Codec* codec, int64_t new_height, int64_t new_width, int64_t quality,
                    int64_t restart_interval) {
  Plane planes[kNumPlanes];
  allocate_planes(codec->reader, planes);
  const int64_t status = read_planes(codec, planes);
  if (status != kOk) return status;
  shrink_planes(new_height, new_width, planes);
  return write_planes(codec, planes, quality, restart_interval);
}

}  // namespace
}  // namespace ffvit

int64_t ffvit_shrink_jpeg(const void* data, int64_t size, int64_t height, int64_t width,
                          int64_t new_height, int64_t new_width, int64_t quality,
                          int64_t restart_interval, void* out, int64_t capacity) {
  ffvit::Codec codec = {};
  int64_t result = ffvit::open_image(&codec, static_cast<const uint8_t*>(data), size, height, width,
                                     static_cast<uint8_t*>(out), capacity);
  if (result == ffvit::kOk) {
    try {
      result = ffvit::shrink_jpeg(&codec, new_height, new_width, quality, restart_interval);
    } catch (const std::bad_alloc&) {
      result = ffvit::kOutOfMemory;
    }
  }
  codec.close();
  return result;
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
