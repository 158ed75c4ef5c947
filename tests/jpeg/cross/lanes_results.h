// Every vector operation once. Included once for each FFVIT_TARGET, behind its lanes; hence no
// include guard.

namespace ffvit {
namespace FFVIT_TARGET {

// p, q: 128 values each. Not both of a lane are -32768, which `scale` does not allow.
inline std::vector<LanesResult> lanes_results(const int16_t* p, const int16_t* q) {
  std::vector<LanesResult> results;
  const auto keep = [&](const char* operation, Lanes lanes) {
    results.push_back({operation, std::vector<int16_t>(16)});
    store(results.back().values.data(), lanes);
  };
  const Lanes a = load(p), b = load(q);
  keep("load_halves", load_halves(q, p));
  keep("fill", fill(p[0]));
  keep("add", add(a, b));
  keep("add_saturated", add_saturated(a, b));
  keep("subtract_saturated", subtract_saturated(a, b));
  keep("keep_bits", keep_bits(a, b));
  keep("multiply_low", multiply_low(a, b));
  keep("scale", scale(a, b));
  keep("maximum", maximum(a, b));
  keep("highest", fill(static_cast<int16_t>(highest(a))));
  keep("double_low", double_low(a));
  keep("double_high", double_high(a));
  keep("add_neighbours", add_neighbours(a, b));
  keep("clamp", clamp(a, -300, 200));
  keep("shift_left", shift_left<4>(a));
  keep("shift_right", shift_right<7>(a));

  std::vector<int16_t> halves(24);
  store_halves(halves.data(), halves.data() + 16, a);
  results.push_back({"store_halves", halves});

  Lanes rows[8];
  for (int i = 0; i < 8; ++i) rows[i] = load(p + 16 * i);
  transpose_halves(rows);
  for (const Lanes& row : rows) keep("transpose_halves", row);

  uint8_t levels[16];
  store_bytes(levels, levels + 8, a);
  results.push_back({"store_bytes", std::vector<int16_t>(levels, levels + 16)});

  alignas(16) uint8_t pixels[48];  // or nothing is streamed
  store_rgb(pixels, a, b, load(p + 16));
  results.push_back({"store_rgb", std::vector<int16_t>(pixels, pixels + 48)});
  stream_rgb(pixels, b, a, load(p + 16));
  results.push_back({"stream_rgb", std::vector<int16_t>(pixels, pixels + 48)});

  // 32 bytes, however many a target takes at once; half of them are alike.
  uint8_t bytes[32], copy[32];
  for (int i = 0; i < 32; ++i) bytes[i] = static_cast<uint8_t>((p[i] & 1) != 0 ? q[0] : q[i]);
  uint32_t bits = 0;
  for (int i = 0; i < 32; i += kBytesAtOnce) {
    bits |= bytes_equal(bytes + i, static_cast<uint8_t>(q[0])) << i;
    copy_bytes(bytes + i, copy + i);
  }
  const auto low_bits = static_cast<int16_t>(bits), high_bits = static_cast<int16_t>(bits >> 16);
  results.push_back({"bytes_equal", {low_bits, high_bits}});
  results.push_back({"copy_bytes", std::vector<int16_t>(copy, copy + 32)});
  return results;
}

}  // namespace FFVIT_TARGET
}  // namespace ffvit
