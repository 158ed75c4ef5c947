// The C interface of the JPEG kernel, called from numba's nopython code without the GIL.
//
// All functions are thread-safe. None raises: what goes wrong with a sample is that sample's
// status.
#pragma once

#include <cstdint>

#define FFVIT_API extern "C" __attribute__((visibility("default")))

namespace ffvit {

// Keep in step with STATUS_TEXT of kernel.py.
enum Status : int32_t {
  kOk = 0,
  kBadHeader = -1,    // not a JPEG, or its header is damaged
  kDamaged = -2,      // libjpeg-turbo complained about the image data
  kWrongSize = -3,    // the stored width and height are not the image's
  kBadCrop = -4,      // the crop does not lie inside the image
  kShortSample = -5,  // fewer bytes than raw pixels need
  kOutOfMemory = -6,
  kUnknownMode = -7,  // neither JPEG nor raw
};

// As stored in the `mode` field of a beton.
enum Mode : int64_t { kJpeg = 0, kRaw = 1 };

// How an image is resized. Area: exact coverage where an axis shrinks, a triangle where it grows.
enum Filter : int64_t { kArea = 0, kBicubic = 1 };

// One image of a batch: where it is, what is cut from it, and where the result goes. One row of the
// int64 array that `ffvit_decode_batch` takes; the order is that of kernel.py's `JOB_FIELDS`.
struct Job {
  int64_t data;    // address of the encoded bytes; not modified
  int64_t size;    // bytes
  int64_t mode;    // Mode
  int64_t height;  // of the whole image, pixels
  int64_t width;
  int64_t top;  // crop, pixels of the whole image
  int64_t left;
  int64_t crop_height;
  int64_t crop_width;
  int64_t flip;  // 1: mirror the crop
};

}  // namespace ffvit

// Make a pool that decodes with `num_threads` threads, the caller's among them. Owned by the
// caller.
FFVIT_API int64_t ffvit_pool_create(int64_t num_threads);
FFVIT_API void ffvit_pool_destroy(int64_t pool);

// Decode `num_jobs` crops to RGB squares.
//
// jobs: (num_jobs, 10) int64, rows of Job. out: (num_jobs, resolution, resolution, 3) uint8,
// overwritten. statuses: (num_jobs,) int32, overwritten; where it is not 0 the image in `out` is
// black. Returns the number of jobs whose status is not 0.
FFVIT_API int64_t ffvit_decode_batch(int64_t pool, int64_t num_jobs, const void* jobs,
                                     int64_t filter, int64_t resolution, void* out, void* statuses);
