// The inner loops for AVX2, BMI2 and MOVBE.
#define FFVIT_TARGET avx2
#include "lanes_avx2.h"
// The lanes first: what follows is written in them.
#include "entropy.h"
#include "markers.h"
#include "pixels.h"

namespace ffvit {

extern const Target kAvx2Target = {"avx2",
                                   avx2::find_markers,
                                   avx2::copy_unstuffed,
                                   avx2::decode_mcus,
                                   avx2::blocks_to_samples,
                                   avx2::blocks_to_bytes,
                                   avx2::clip_colours,
                                   avx2::resize_stripe,
                                   avx2::finish_row};

}  // namespace ffvit
