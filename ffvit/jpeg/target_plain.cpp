// The inner loops for no vector instructions.
#define FFVIT_TARGET plain
#include "lanes_plain.h"
// The lanes first: what follows is written in them.
#include "entropy.h"
#include "markers.h"
#include "pixels.h"

namespace ffvit {

extern const Target kPlainTarget = {"plain",
                                    plain::find_markers,
                                    plain::copy_unstuffed,
                                    plain::decode_mcus,
                                    plain::blocks_to_samples,
                                    plain::blocks_to_bytes,
                                    plain::clip_colours,
                                    plain::resize_stripe,
                                    plain::finish_row};

}  // namespace ffvit
