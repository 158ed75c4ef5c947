// The inner loops for NEON, which every 64-bit ARM has.
#define FFVIT_TARGET neon
#include "lanes_neon.h"
// The lanes first: what follows is written in them.
#include "entropy.h"
#include "markers.h"
#include "pixels.h"

namespace ffvit {

extern const Target kNeonTarget = {"neon",
                                   neon::find_markers,
                                   neon::copy_unstuffed,
                                   neon::decode_mcus,
                                   neon::blocks_to_samples,
                                   neon::blocks_to_bytes,
                                   neon::clip_colours,
                                   neon::resize_stripe,
                                   neon::finish_row};

}  // namespace ffvit
