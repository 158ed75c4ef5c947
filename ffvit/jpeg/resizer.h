// Turns stripes of samples, top to bottom, into the rows of a resized RGB image.
#pragma once

#include <cstdint>
#include <vector>

#include "filters.h"
#include "target.h"

namespace ffvit {

// What becomes of the image.
struct Output {
  Filter filter = kArea;
  bool flip = false;  // mirror it
  int64_t height = 0;
  int64_t width = 0;
  uint8_t* pixels = nullptr;  // (height, width, 3) RGB
};

// Eight rows of a plane, in one half of a stripe's columns.
struct HalfStripe {
  int plane = -1;  // -1: nothing of use
  int64_t first_row = 0;
};

// For one thread, one image after another.
class Resizer {
 public:
  // The filters of luma, or of all planes where they are alike, and of chroma, on either axis.
  FilterTaps across, down, chroma_across, chroma_down;

  // Begin an image whose filters are set. is_ycbcr: planes 1 and 2 are Cb and Cr and take the
  // filters of chroma; otherwise planes are R, G, B.
  void begin(const Target& target, const Output& output, bool is_ycbcr);

  // Resize a stripe along its rows. columns: of kStripeHeight samples, `stride` int16 apart, the
  // first one at column `origin` of its planes. Both halves take the same filter.
  void add_stripe(const int16_t* columns, int64_t stride, int64_t origin, HalfStripe low,
                  HalfStripe high);

  // Finish every row of the output that needs only rows above these of plane 0, and of the others.
  void finish_rows(int64_t luma_end, int64_t chroma_end);

 private:
  int16_t* row(int plane, int64_t number);

  const Target* target_ = nullptr;
  Output output_;
  bool is_ycbcr_ = false;
  int64_t next_row_ = 0;       // of the output
  int64_t pitch_ = 0;          // int16 from one row to the next
  int64_t capacity_ = 0;       // rows kept of each plane, a power of two
  std::vector<int16_t> rows_;  // of all planes, resized along the row; and one that nobody reads
  std::vector<const int16_t*> pointers_;
};

}  // namespace ffvit
