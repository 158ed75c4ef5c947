// Baseline JPEGs to smaller or coarser ones, for the writer (shrink.py).
#pragma once

#include <cstdint>

#include "kernel.h"

// Encode a YCbCr JPEG anew as 4:2:0 with the standard Huffman tables, shrunk by exact area
// coverage.
//
// Works on the planes: what is 4:2:0 already is never enlarged, and nothing passes through RGB, so
// less is lost than by the usual way. Metadata are dropped. Thread-safe.
//
// target: as for ffvit_pool_create. data: size bytes, not modified; of height x width pixels, and
// of a kind that the kernel's own decoder takes: baseline, one scan, YCbCr. new_height, new_width:
// 1 to height, width. quality: 1 to 100. restart_interval: MCUs between markers, 0 to 65,535. out:
// capacity bytes, overwritten. Returns the bytes written, or a negative ffvit::Status, or -100:
// capacity does not suffice.
FFVIT_API int64_t ffvit_shrink_jpeg(int64_t target, const void* data, int64_t size, int64_t height,
                                    int64_t width, int64_t new_height, int64_t new_width,
                                    int64_t quality, int64_t restart_interval, void* out,
                                    int64_t capacity);

// Shrink pixels by exact area coverage. Thread-safe.
//
// pixels: (height, width, 3) uint8 RGB, contiguous, not modified. new_height, new_width: 1 to
// height, width. out: (new_height, new_width, 3) uint8, overwritten. Returns an ffvit::Status.
FFVIT_API int64_t ffvit_shrink_pixels(const void* pixels, int64_t height, int64_t width,
                                      int64_t new_height, int64_t new_width, void* out);
