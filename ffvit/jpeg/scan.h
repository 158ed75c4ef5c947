// What the entropy decoder is given: the bytes of a segment, and what they hold.
#pragma once

#include <cstdint>

#include "huffman.h"

namespace ffvit {

constexpr int kBlockSize = 64;

// Bytes that may be read behind the last one of a segment: a block is at most 64 symbols of 31
// bits, and whether the segment has ended is looked at before each block.
constexpr int64_t kEntropyPadding = 64 * 31 / 8 + 32;

// Where the k-th coefficient of a block lies: row * 8 + column, by frequency (T.81, figure A.6).
constexpr uint8_t kNaturalOrder[kBlockSize] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

// Blocks of an MCU, at most.
constexpr int64_t kMaxBlocks = 6;
// MCUs decoded before their samples are computed: few enough for the first-level cache.
constexpr int64_t kMcusAtOnce = 4;

// The blocks of an MCU, luma first, in the order of the scan.
struct McuLayout {
  int num_blocks = 0;
  int component[kMaxBlocks] = {};
  const HuffmanTable* dc[kMaxBlocks] = {};
  const HuffmanTable* ac[kMaxBlocks] = {};
};

// A place in the bytes of a segment, without their stuffing, and the DC predictions there.
struct BitPosition {
  uint64_t bits = 0;
  uint64_t count = 0;
  const uint8_t* next = nullptr;
  const uint8_t* end = nullptr;  // of the segment; kEntropyPadding more bytes may be read
  int32_t dc[3] = {};
};

}  // namespace ffvit
