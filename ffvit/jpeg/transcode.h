// Restart markers for JPEGs that have none, without changing a coefficient. For transcode.py.
#pragma once

#include <cstdint>

#include "kernel.h"

// The version of libjpeg-turbo that the writer's functions are compiled for.
FFVIT_API const char* ffvit_libjpeg_version();

// Write a JPEG again as a sequential one with restart markers and the standard Huffman tables.
//
// Coefficients, quantisation tables, sampling and colour space stay; progressive and arithmetic
// coding become sequential Huffman coding; comments and metadata are dropped. Thread-safe.
//
// data: size bytes, not modified. height, width: that the image must have. restart_interval: MCUs
// between markers, 1 to 65,535. out: capacity bytes, overwritten. Returns the bytes written, or a
// negative ffvit::Status, or -100: capacity does not suffice.
FFVIT_API int64_t ffvit_add_restart_markers(const void* data, int64_t size, int64_t height,
                                            int64_t width, int64_t restart_interval, void* out,
                                            int64_t capacity);
