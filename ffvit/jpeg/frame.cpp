#include "frame.h"

#include <cstring>

namespace ffvit {
namespace {

enum Marker : int {
  kStartOfFrame0 = 0xC0,  // baseline
  kDefineHuffman = 0xC4,
  kStartOfImage = 0xD8,
  kStartOfScan = 0xDA,
  kDefineQuantization = 0xDB,
  kDefineRestart = 0xDD,
  kApp0 = 0xE0,
  kApp14 = 0xEE,
  kApp15 = 0xEF,
  kComment = 0xFE,
};

// The content of a segment, read in order; never past its end.
class Segment {
 public:
  Segment(const uint8_t* data, size_t size) : next_(data), end_(data + size) {}

  size_t left() const { return static_cast<size_t>(end_ - next_); }
  const uint8_t* here() const { return next_; }
  // Reading on when nothing is left gives 0, and sets `failed`.
  int byte() {
    if (next_ == end_) {
      failed_ = true;
      return 0;
    }
    return *next_++;
  }
  int word() {
    const int high = byte();
    return high << 8 | byte();
  }
  bool skip(size_t count) {
    failed_ = failed_ || count > left();
    next_ += failed_ ? 0 : count;
    return !failed_;
  }
  bool failed() const { return failed_; }

 private:
  const uint8_t* next_;
  const uint8_t* end_;
  bool failed_ = false;
};

struct Component {
  int id = 0;
  int across = 0;
  int down = 0;
  int quantization = 0;
};

// What the segments before the scan define.
struct Definitions {
  int num_components = 0;
  Component components[3];
  bool has_quantization[4] = {};
  uint16_t quantization[4][kBlockSize];
  HuffmanSpec dc[4];
  HuffmanSpec ac[4];
  bool is_jfif = false;
  int adobe_transform = -1;
};

bool read_quantization(Segment segment, Definitions* definitions) {
  while (segment.left() > 0) {
    const int info = segment.byte();
    if (info > 3) return false;  // 16-bit tables are not for 8-bit baseline
    for (int k = 0; k < kBlockSize; ++k) {
      definitions->quantization[info][kNaturalOrder[k]] = static_cast<uint16_t>(segment.byte());
    }
    definitions->has_quantization[info] = true;
  }
  return !segment.failed();
}

bool read_huffman(Segment segment, Definitions* definitions) {
  while (segment.left() > 0) {
    const int info = segment.byte(), number = info & 15;
    if (info >> 4 > 1 || number > 3) return false;
    HuffmanSpec spec{segment.here(), 16};
    for (int i = 0; i < 16; ++i) spec.size += static_cast<size_t>(segment.byte());
    if (spec.size > 16 + 256 || !segment.skip(spec.size - 16)) return false;
    (info >> 4 == 0 ? definitions->dc : definitions->ac)[number] = spec;
  }
  return true;
}

bool read_start_of_frame(Segment segment, Frame* frame, Definitions* definitions) {
  if (definitions->num_components != 0) return false;
  const int precision = segment.byte();
  frame->height = segment.word();
  frame->width = segment.word();
  definitions->num_components = segment.byte();
  if (precision != 8 || definitions->num_components != 3) return false;
  if (frame->height == 0 || frame->width == 0) return false;
  for (Component& component : definitions->components) {
    component.id = segment.byte();
    const int sampling = segment.byte();
    component.across = sampling >> 4;
    component.down = sampling & 15;
    component.quantization = segment.byte();
    if (component.quantization > 3) return false;
  }
  return !segment.failed() && segment.left() == 0;
}

bool is_ycbcr(const Definitions& definitions) {
  if (definitions.is_jfif) return true;
  if (definitions.adobe_transform >= 0) return definitions.adobe_transform == 1;
  const Component* components = definitions.components;
  return components[0].id == 1 && components[1].id == 2 && components[2].id == 3;
}

// Check the sampling, and lay the MCUs out.
bool arrange(const Definitions& definitions, Frame* frame) {
  const Component* components = definitions.components;
  frame->luma_across = components[0].across;
  frame->luma_down = components[0].down;
  if (frame->luma_across < 1 || frame->luma_across > 2) return false;
  if (frame->luma_down < 1 || frame->luma_down > 2) return false;
  for (int c = 1; c < 3; ++c) {
    if (components[c].across != 1 || components[c].down != 1) return false;
  }
  const int mcu_width = 8 * frame->luma_across, mcu_height = 8 * frame->luma_down;
  frame->mcus_across = (frame->width + mcu_width - 1) / mcu_width;
  frame->mcus_down = (frame->height + mcu_height - 1) / mcu_height;
  // libjpeg does not upsample smoothly where chroma is that narrow.
  return frame->luma_across == 1 || frame->width > 4;
}

bool read_start_of_scan(Segment segment, const Definitions& definitions, HuffmanCache* tables,
                        Frame* frame) {
  if (definitions.num_components != 3 || segment.byte() != 3) return false;
  McuLayout& layout = frame->layout;
  layout.num_blocks = 0;
  for (int c = 0; c < 3; ++c) {
    const int id = segment.byte(), selectors = segment.byte();
    const int dc = selectors >> 4, ac = selectors & 15;
    if (id != definitions.components[c].id || dc > 3 || ac > 3) return false;
    if (definitions.dc[dc].data == nullptr || definitions.ac[ac].data == nullptr) return false;
    const HuffmanTable* dc_table = tables->find(definitions.dc[dc], false);
    const HuffmanTable* ac_table = tables->find(definitions.ac[ac], true);
    if (dc_table == nullptr || ac_table == nullptr) return false;
    const int num_blocks = c == 0 ? frame->luma_across * frame->luma_down : 1;
    for (int i = 0; i < num_blocks; ++i) {
      layout.component[layout.num_blocks] = c;
      layout.dc[layout.num_blocks] = dc_table;
      layout.ac[layout.num_blocks] = ac_table;
      ++layout.num_blocks;
    }
    const int number = definitions.components[c].quantization;
    if (!definitions.has_quantization[number]) return false;
    std::memcpy(frame->quantization[c], definitions.quantization[number],
                sizeof frame->quantization[c]);
  }
  const bool is_sequential = segment.byte() == 0 && segment.byte() == 63 && segment.byte() == 0;
  return is_sequential && !segment.failed() && segment.left() == 0;
}

}  // namespace

bool read_frame(const uint8_t* data, size_t size, HuffmanCache* tables, Frame* frame) {
  Definitions definitions;
  Segment file(data, size);
  if (file.word() != (0xFF00 | kStartOfImage)) return false;
  for (;;) {
    if (file.byte() != 0xFF) return false;
    int marker = file.byte();
    while (marker == 0xFF && !file.failed()) marker = file.byte();
    const int length = file.word();
    if (file.failed() || length < 2) return false;
    const auto content_size = static_cast<size_t>(length - 2);
    const uint8_t* content = file.here();
    if (!file.skip(content_size)) return false;
    const Segment segment(content, content_size);
    bool is_known = true;
    if (marker == kDefineQuantization) {
      is_known = read_quantization(segment, &definitions);
    } else if (marker == kDefineHuffman) {
      is_known = read_huffman(segment, &definitions);
    } else if (marker == kStartOfFrame0) {
      is_known = read_start_of_frame(segment, frame, &definitions) && arrange(definitions, frame);
    } else if (marker == kDefineRestart) {
      is_known = content_size == 2;
      if (is_known) frame->restart_interval = content[0] << 8 | content[1];
    } else if (marker == kApp0) {
      // As libjpeg: a shorter one says nothing.
      if (content_size >= 14 && std::memcmp(content, "JFIF", 5) == 0) definitions.is_jfif = true;
    } else if (marker == kApp14) {
      if (content_size >= 12 && std::memcmp(content, "Adobe", 5) == 0) {
        definitions.adobe_transform = content[11];
      }
    } else if (marker == kStartOfScan) {
      frame->scan = file.here();
      frame->end = data + size;
      return is_ycbcr(definitions) && read_start_of_scan(segment, definitions, tables, frame);
    } else {
      is_known = (marker >= kApp0 && marker <= kApp15) || marker == kComment;
    }
    if (!is_known) return false;
  }
}

void Frame::pair_quantization(int first, int second, int16_t* out) const {
  for (int row = 0; row < 8; ++row) {
    for (int column = 0; column < 8; ++column) {
      const int k = 8 * row + column;
      out[16 * row + column] = static_cast<int16_t>(quantization[first][k]);
      out[16 * row + 8 + column] = static_cast<int16_t>(quantization[second][k]);
    }
  }
}

}  // namespace ffvit
