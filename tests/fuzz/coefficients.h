// The kernel's entropy decoder against libjpeg-turbo's, coefficient by coefficient.
#pragma once

#include <cstdint>

namespace ffvit {

struct Coefficients {
  bool are_equal = true;      // also where there is nothing to compare with
  bool are_moderate = false;  // equal, and no sum of an inverse DCT of them can leave int16
};

// Compares what each target decodes, if the kernel takes the file and libjpeg-turbo has no warning.
Coefficients compare_coefficients(const uint8_t* data, int64_t size);

}  // namespace ffvit
