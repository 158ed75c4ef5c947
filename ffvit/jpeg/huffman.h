// Huffman tables of baseline JPEG, made ready for look-up. Source: ITU-T T.81, annexes C and F.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace ffvit {

// Bits that index the AC tables: 8 KiB of pairs and 4 KiB of skips each, so that those of luma and
// chroma share a first-level cache.
constexpr int kLookupBits = 11;
// Bits that index the DC categories.
constexpr int kCategoryBits = 9;
// The most bits that one look-up may consume: three fit between two refills of at least 56 bits.
constexpr int kMaxLookupLength = 18;

// An entry of `pairs`: one or two coefficients, and the end of the block where it follows in the
// same bits. From the low bit:
//   6 length      bits consumed
//   7 advance     from the block's next position to that of the last coefficient; bit 6 of it is
//                 set where the block ends. kPairSlow: not to be had from this table
//   3 distance    from the first coefficient to the last one; 0 where there is only one
//   3 extra       how many of `length` lie behind the index; they are added to the first value
//   4 last        value of the last coefficient if distance > 0
//   9 first       value of the first coefficient
constexpr int kPairAdvanceShift = 6, kPairDistanceShift = 13, kPairExtraShift = 16,
              kPairLastShift = 19, kPairFirstShift = 23;
constexpr uint32_t kPairEnd = 64, kPairAdvanceMask = 127, kPairSlow = 127;

// An entry of `skips`: as many symbols as fit. From the low bit: 6 length; 7 advance, how many
// positions they fill, bit 6 as above.
constexpr int kSkipAdvanceShift = 6;

// An entry of `categories`: 0 where the code is longer than the index. From the low bit: 6 length,
// of the code and its value; 5 length of the code; 5 size of the value.
constexpr int kCategoryCodeShift = 6, kCategorySizeShift = 11;

// What one DHT segment defines, for either class of table.
struct HuffmanTable {
  uint32_t pairs[1 << kLookupBits];         // AC
  uint16_t skips[1 << kLookupBits];         // AC
  uint16_t categories[1 << kCategoryBits];  // DC, see below
  // Codes of length n, moved to the top of 16 bits, are below limits[n]; limits[17] ends any
  // search.
  uint32_t limits[18];
  int32_t offsets[17];  // of a code of length n, moved to the bottom: its index in `symbols`
  uint8_t symbols[256];
};

// A table as it stands in a file: 16 counts of codes by length, then the symbols.
struct HuffmanSpec {
  const uint8_t* data = nullptr;
  size_t size = 0;
};

// Fill `table`. Returns false if no set of codes has such counts.
bool build_huffman_table(const HuffmanSpec& spec, bool is_ac, HuffmanTable* table);

// Keeps the last tables by their bytes: nearly all files of a beton share theirs. For one thread.
class HuffmanCache {
 public:
  // Returns the table, or null if `spec` is damaged. Valid for as long as kCapacity - 1 others are
  // asked for.
  const HuffmanTable* find(const HuffmanSpec& spec, bool is_ac);

 private:
  static constexpr size_t kCapacity = 16;  // four images' worth

  struct Entry {
    std::vector<uint8_t> key;
    bool is_ac = false;
    uint64_t last_use = 0;
    std::unique_ptr<HuffmanTable> table;
  };
  std::vector<Entry> entries_;
  uint64_t clock_ = 0;
};

}  // namespace ffvit
