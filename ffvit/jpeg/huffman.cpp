#include "huffman.h"

#include <algorithm>
#include <cstring>

namespace ffvit {
namespace {

// What the leading bits of an index say, if they hold a whole code: its length and symbol.
struct Code {
  uint8_t length = 0;  // 0: no code this short
  uint8_t symbol = 0;
};

// One AC symbol with the bits of its value.
struct Coefficient {
  int length = 0;  // 0: does not fit
  int run = 0;     // zeros before it
  int value = 0;
  int extra = 0;  // bits of the value that lie behind the index
  bool ends_block = false;
};

constexpr uint32_t kIndexMask = (1u << kLookupBits) - 1;

// T.81 F.2.2.1: values whose first bit is 0 are negative.
int extend(int bits, int size) { return bits < (1 << (size - 1)) ? bits - (1 << size) + 1 : bits; }

Coefficient read_coefficient(const std::vector<Code>& codes, uint32_t index, int available) {
  const Code code = codes[index];
  Coefficient result;
  if (code.length == 0 || code.length > available) return result;
  const int size = code.symbol & 15;
  result.run = code.symbol >> 4;
  if (size == 0) {  // end of block, or sixteen zeros: the last of them counts as a value of 0
    result.length = code.length;
    result.ends_block = result.run != 15;
    if (result.ends_block) result.run = 0;
    return result;
  }
  const int length = code.length + size;
  if (length <= available) {
    result.length = length;
    result.value =
        extend(static_cast<int>((index >> (kLookupBits - length)) & ((1u << size) - 1)), size);
    return result;
  }
  // The rest of the value follows behind the index; its sign must not.
  const int known = kLookupBits - code.length;
  if (available < kLookupBits || known < 1 || length > kMaxLookupLength) return result;
  result.length = length;
  result.extra = length - kLookupBits;
  const auto bits = static_cast<int>(index & ((1u << known) - 1)) << result.extra;
  result.value = extend(bits, size);
  return result;
}

bool fits(int value, int num_bits) {
  return value >= -(1 << (num_bits - 1)) && value < 1 << (num_bits - 1);
}

uint32_t pair_entry(const std::vector<Code>& codes, uint32_t index) {
  const Coefficient first = read_coefficient(codes, index, kLookupBits);
  if (first.length == 0 || !fits(first.value, 9)) return kPairSlow << kPairAdvanceShift;
  int length = first.length, advance = first.run, distance = 0, last = 0;
  bool ends = first.ends_block;
  for (int number = 2; !ends && number <= 3 && length < kLookupBits; ++number) {
    const Coefficient next =
        read_coefficient(codes, (index << length) & kIndexMask, kLookupBits - length);
    if (next.length == 0) break;
    if (!next.ends_block) {
      if (number == 3 || next.run + 1 > 7 || !fits(next.value, 4)) break;
      distance = next.run + 1;
      last = next.value;
      advance += distance;
    }
    length += next.length;
    ends = next.ends_block;
  }
  return static_cast<uint32_t>(length) |
         (static_cast<uint32_t>(advance) + (ends ? kPairEnd : 0)) << kPairAdvanceShift |
         static_cast<uint32_t>(distance) << kPairDistanceShift |
         static_cast<uint32_t>(first.extra) << kPairExtraShift |
         (static_cast<uint32_t>(last) & 15) << kPairLastShift |
         static_cast<uint32_t>(first.value) << kPairFirstShift;
}

uint16_t skip_entry(const std::vector<Code>& codes, uint32_t index) {
  int length = 0, advance = 0;
  bool ends = false;
  while (!ends && length < kLookupBits && advance < 48) {
    const Code code = codes[(index << length) & kIndexMask];
    if (code.length == 0 || code.length > kLookupBits - length) break;
    const int size = code.symbol & 15, run = code.symbol >> 4;
    if (length + code.length + size > kMaxLookupLength) break;
    length += code.length + size;
    ends = size == 0 && run != 15;
    if (!ends) advance += run + 1;
  }
  if (length == 0) return static_cast<uint16_t>(kPairSlow << kSkipAdvanceShift);
  return static_cast<uint16_t>(length | (advance + (ends ? static_cast<int>(kPairEnd) : 0))
                                            << kSkipAdvanceShift);
}

}  // namespace

bool build_huffman_table(const HuffmanSpec& spec, bool is_ac, HuffmanTable* table) {
  if (spec.size < 16 || spec.size > 16 + 256) return false;
  const size_t num_symbols = spec.size - 16;
  std::memset(table->symbols, 0, sizeof table->symbols);
  std::memcpy(table->symbols, spec.data + 16, num_symbols);

  std::vector<Code> codes(1u << kLookupBits);
  uint32_t code = 0;
  size_t index = 0;
  table->limits[0] = 0;
  for (int length = 1; length <= 16; ++length) {
    const uint32_t count = spec.data[length - 1];
    // As libjpeg: the code of ones only must stay free.
    if (index + count > num_symbols || (count > 0 && code + count >= 1u << length)) return false;
    table->offsets[length] = static_cast<int32_t>(index) - static_cast<int32_t>(code);
    for (uint32_t i = 0; i < count; ++i, ++code, ++index) {
      if (length > kLookupBits) continue;
      const uint32_t first = code << (kLookupBits - length);
      std::fill_n(codes.begin() + first, 1u << (kLookupBits - length),
                  Code{static_cast<uint8_t>(length), table->symbols[index]});
    }
    table->limits[length] = code << (16 - length);
    code <<= 1;
  }
  table->limits[17] = UINT32_MAX;
  if (index != num_symbols) return false;

  for (uint32_t i = 0; i < 1u << kLookupBits && is_ac; ++i) {
    table->pairs[i] = pair_entry(codes, i);
    table->skips[i] = skip_entry(codes, i);
  }
  for (uint32_t i = 0; i < 1u << kCategoryBits && !is_ac; ++i) {
    const Code entry = codes[i << (kLookupBits - kCategoryBits)];
    const bool is_short = entry.length != 0 && entry.length <= kCategoryBits && entry.symbol <= 11;
    table->categories[i] = static_cast<uint16_t>(is_short ? (entry.length + entry.symbol) |
                                                                entry.length << kCategoryCodeShift |
                                                                entry.symbol << kCategorySizeShift
                                                          : 0);
  }
  return true;
}

const HuffmanTable* HuffmanCache::find(const HuffmanSpec& spec, bool is_ac) {
  ++clock_;
  for (Entry& entry : entries_) {
    if (entry.is_ac == is_ac && entry.key.size() == spec.size &&
        std::memcmp(entry.key.data(), spec.data, spec.size) == 0) {
      entry.last_use = clock_;
      return entry.table.get();
    }
  }
  auto table = std::make_unique<HuffmanTable>();
  if (!build_huffman_table(spec, is_ac, table.get())) return nullptr;
  if (entries_.size() < kCapacity) entries_.emplace_back();
  Entry* oldest = &entries_.back();
  for (Entry& entry : entries_) {
    if (entry.last_use < oldest->last_use) oldest = &entry;
  }
  oldest->key.assign(spec.data, spec.data + spec.size);
  oldest->is_ac = is_ac;
  oldest->last_use = clock_;
  oldest->table = std::move(table);
  return oldest->table.get();
}

}  // namespace ffvit
