// Entropy decoding of baseline JPEG: bits to coefficients, or past them. Compiled once for each
// target (target.h), whose name is FFVIT_TARGET. Source: ITU-T T.81, annex F.2.
//
// Nothing here reads past the bytes it is given: see kEntropyPadding.
#pragma once

#include <cstdint>
#include <cstring>

#include "huffman.h"
#include "scan.h"

namespace ffvit {
namespace FFVIT_TARGET {

#define FFVIT_INLINE inline __attribute__((always_inline))

// The value of the first `size` bits, 0 to 15 of them: negative if they begin with 0 (F.2.2.1).
FFVIT_INLINE int extend(uint64_t bits, int size) {
  const auto value = static_cast<int>((bits >> 1) >> (63 - size));
  const int is_negative = static_cast<int>(~bits >> 63);
  return value - (((1 << size) - 1) & -is_negative);
}

// Bits of the scan in registers; a copy of BitPosition that the compiler need not keep in memory.
// `bits` holds the next ones at its top; at least `count` mod 64 of them are valid.
struct Reader {
  uint64_t bits;
  uint64_t count;
  const uint8_t* next;

  // Afterwards at least 56 bits are there.
  FFVIT_INLINE void refill() {
    uint64_t word;
    std::memcpy(&word, next, sizeof word);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    const uint64_t have = count & 63;
    bits |= word >> have;
    next += (63 - have) >> 3;
    count = have | 56;
  }

  // `length` may carry anything above its low six bits.
  FFVIT_INLINE void consume(uint64_t length) {
    bits <<= length & 63;
    count -= length;
  }

  // Take `size` bits, 0 to 15, as a value.
  FFVIT_INLINE int take_value(int size) {
    const int value = extend(bits, size);
    consume(static_cast<uint64_t>(size));
    return value;
  }

  // Take one code of any length; -1 if it is none.
  FFVIT_INLINE int take_symbol(const HuffmanTable& table) {
    const auto code = static_cast<uint32_t>(bits >> 48);
    int length = 1;
    for (int n = 1; n <= 16; ++n) length += code >= table.limits[n] ? 1 : 0;
    if (length > 16) return -1;
    const int index = static_cast<int>(code >> (16 - length)) + table.offsets[length];
    consume(static_cast<uint64_t>(length));
    return table.symbols[index & 255];
  }

  // Take the difference to the block before; returns false if it is not one.
  FFVIT_INLINE bool take_dc(const HuffmanTable& table, int* difference) {
    const uint32_t entry = table.categories[bits >> (64 - kCategoryBits)];
    if (__builtin_expect(entry != 0, 1)) {
      *difference = extend(bits << ((entry >> kCategoryCodeShift) & 31),
                           static_cast<int>(entry >> kCategorySizeShift));
      consume(entry);
      return true;
    }
    const int size = take_symbol(table);
    if (size < 0 || size > 11) return false;  // more than 8-bit samples can need
    *difference = take_value(size);
    return true;
  }
};

// Store what an entry of `pairs` holds; its last coefficient is at `position`. The first is stored
// after the last, as it is the one that counts where they are the same.
FFVIT_INLINE void put_pair(uint32_t entry, uint64_t bits, uint64_t position, int16_t* block) {
  const uint64_t distance = (entry >> kPairDistanceShift) & 7;
  const uint64_t num_extra = (entry >> kPairExtraShift) & 7;
  const uint64_t extra = ((bits << kLookupBits) >> 1) >> (63 - num_extra);
  const int32_t first = static_cast<int32_t>(entry) >> kPairFirstShift;
  const int32_t last = static_cast<int32_t>(entry << (32 - kPairFirstShift)) >> 28;
  block[kNaturalOrder[position]] = static_cast<int16_t>(last);
  block[kNaturalOrder[position - distance]] = static_cast<int16_t>(first + static_cast<int>(extra));
}

// Take the AC coefficients of one block. block: 64 int16 in natural order, zero.
FFVIT_INLINE bool take_ac(Reader* reader_in_memory, const HuffmanTable& table, int16_t* block) {
  Reader reader = *reader_in_memory;
  uint64_t position = 1;  // of the next coefficient, in zigzag order
  for (;;) {
    uint32_t entry = 0;
    uint64_t last = 0;
    reader.refill();
    // Three look-ups of at most kMaxLookupLength bits.
    for (int i = 0; i < 3; ++i) {
      entry = table.pairs[reader.bits >> (64 - kLookupBits)];
      last = position + ((entry >> kPairAdvanceShift) & kPairAdvanceMask);
      if (__builtin_expect(last >= 63, 0)) break;
      put_pair(entry, reader.bits, last, block);
      reader.consume(entry);
      position = last + 1;
    }
    if (__builtin_expect(last < 63, 1)) continue;

    const bool ends = ((entry >> kPairAdvanceShift) & kPairEnd) != 0;
    if (ends && last < 63 + kPairEnd) {
      put_pair(entry, reader.bits, last - kPairEnd, block);
      reader.consume(entry);
      break;
    }
    if (last == 63) {  // the block is full, no code ends it
      put_pair(entry, reader.bits, last, block);
      reader.consume(entry);
      break;
    }
    // A long code, or what follows the block's last coefficient was taken for more of it.
    reader.refill();
    const int symbol = reader.take_symbol(table);
    const int run = symbol >> 4, size = symbol & 15;
    if (symbol < 0) return false;
    if (size == 0 && run != 15) break;
    position += static_cast<uint64_t>(run);
    if (position > 63) return false;
    block[kNaturalOrder[position]] = static_cast<int16_t>(reader.take_value(size));
    if (++position == 64) break;
  }
  *reader_in_memory = reader;
  return true;
}

// As take_ac, but the coefficients are passed over.
FFVIT_INLINE bool skip_ac(Reader* reader_in_memory, const HuffmanTable& table) {
  Reader reader = *reader_in_memory;
  uint64_t position = 1;
  for (;;) {
    uint32_t entry = 0;
    uint64_t next = 0;
    reader.refill();
    for (int i = 0; i < 3; ++i) {
      entry = table.skips[reader.bits >> (64 - kLookupBits)];
      next = position + (entry >> kSkipAdvanceShift);
      if (__builtin_expect(next >= 64, 0)) break;
      reader.consume(entry);
      position = next;
    }
    if (__builtin_expect(next < 64, 1)) continue;

    const bool ends = ((entry >> kSkipAdvanceShift) & kPairEnd) != 0;
    if (next == 64 || (ends && next < 64 + kPairEnd)) {
      reader.consume(entry);
      break;
    }
    reader.refill();
    const int symbol = reader.take_symbol(table);
    const int run = symbol >> 4, size = symbol & 15;
    if (symbol < 0) return false;
    if (size == 0 && run != 15) break;
    position += static_cast<uint64_t>(run) + 1;
    if (position > 64) return false;
    reader.consume(static_cast<uint64_t>(size));
    if (position == 64) break;
  }
  *reader_in_memory = reader;
  return true;
}

// Decode `num_mcus` MCUs: block b to 64 of `coefficients`, which are zero before, if bit b of
// `wanted` is set; the others are passed over. Returns false where the data are damaged or end.
inline bool decode_mcus(BitPosition* position, const McuLayout& layout, uint32_t wanted,
                        int64_t num_mcus, int16_t* coefficients) {
  Reader reader{position->bits, position->count, position->next};
  for (int64_t mcu = 0; mcu < num_mcus; ++mcu) {
    for (int b = 0; b < layout.num_blocks; ++b) {
      // Up to 8 bytes are in the register already.
      if (__builtin_expect(reader.next > position->end + 8, 0)) return false;
      const int component = layout.component[b];
      int difference = 0;
      reader.refill();
      if (!reader.take_dc(*layout.dc[b], &difference)) return false;
      position->dc[component] = static_cast<int32_t>(  // unsigned: damaged data may overflow it
          static_cast<uint32_t>(position->dc[component]) + static_cast<uint32_t>(difference));
      if ((wanted >> b & 1) != 0) {
        int16_t* block = coefficients + (mcu * layout.num_blocks + b) * kBlockSize;
        block[0] = static_cast<int16_t>(position->dc[component]);
        if (!take_ac(&reader, *layout.ac[b], block)) return false;
      } else if (!skip_ac(&reader, *layout.ac[b])) {
        return false;
      }
    }
  }
  position->bits = reader.bits;
  position->count = reader.count & 63;
  position->next = reader.next;
  return true;
}

}  // namespace FFVIT_TARGET
}  // namespace ffvit
