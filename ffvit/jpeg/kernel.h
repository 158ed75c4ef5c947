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
  kUnsupported = -8,  // CMYK, YCCK, or another kind that has no conversion to RGB
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

// Name of the instruction set that inner loops are compiled for; 0 is the fastest that this machine
// can run. Null where there are no more.
FFVIT_API const char* ffvit_target_name(int64_t target);

// Make a pool that decodes with `num_threads` threads, the caller's among them, for one of the
// targets. Owned by the caller. Returns 0 if there is no such target, no memory or no more threads.
FFVIT_API int64_t ffvit_pool_create(int64_t num_threads, int64_t target);
FFVIT_API void ffvit_pool_destroy(int64_t pool);

// Count the images that this pool left to libjpeg-turbo so far.
FFVIT_API int64_t ffvit_pool_fallbacks(int64_t pool);

// Decode `num_jobs` crops to RGB images of one size.
//
// jobs: (num_jobs, 10) int64, rows of Job. out: (num_jobs, out_height, out_width, 3) uint8,
// overwritten. statuses: (num_jobs,) int32, overwritten; where it is not 0 the image in `out` is
// black. Returns the number of jobs whose status is not 0.
FFVIT_API int64_t ffvit_decode_batch(int64_t pool, int64_t num_jobs, const void* jobs,
                                     int64_t filter, int64_t out_height, int64_t out_width,
                                     void* out, void* statuses);

// Decode every coefficient of a JPEG file and throw it away. Returns the status that decoding the
// whole image would have.
FFVIT_API int64_t ffvit_check_jpeg(int64_t pool, const void* data, int64_t size, int64_t height,
                                   int64_t width);
